"""What strangers' files make a command open, write, remove or reach: nothing outside of the folders that it was given.

Commands run on hostile files under strace, in one process after the other's import of PyTorch has been paid; what the kernel was
asked for is held against the folders. Beside the given folder lies one that the files name, which must not be touched.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import site
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest
import tiny_models

import edgecomp

SECRET = "what-nobody-gave"
CALLS = "open,openat,creat,unlink,unlinkat,rmdir,rename,renameat,renameat2,mkdir,mkdirat,link,linkat,symlink,symlinkat"
CALLS += ",truncate,chmod,fchmodat,connect,sendto,sendmsg,execve"
RUN = """
import json, sys
from edgecomp.cli import main
for argv in json.load(sys.stdin):
    try:
        code = main(argv)
    except SystemExit as end:
        code = end.code
    print("code", code, *argv[:1], flush=True)
"""
# strace's lines: a process, a call, its arguments, its result. Where threads come between, the result has a line of its own.
_CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*?)(?:\) += (?:-?\d+|\?).*| <unfinished \.\.\.>)$")
_NO_CALL = re.compile(r"(?:\d+ +)?(?:<\.\.\. \w+ resumed>|---|\+\+\+)")  # a result, a signal, an end
_PATH = re.compile(r'"((?:[^"\\]|\\.)*)"')
_WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC")


class Traced:
    """What a run asked the kernel for."""

    def __init__(self, lines: list[str], start: Path) -> None:
        self.read: set[Path] = set()
        self.changed: set[Path] = set()
        self.reached: list[str] = []
        for line in lines:
            match = _CALL.match(line)
            if match is None:
                assert _NO_CALL.match(line), line
                continue
            call, arguments = match.groups()
            if call in ("connect", "sendto", "sendmsg"):
                if "AF_INET" in arguments:
                    self.reached.append(line)
                continue
            paths = {Path(os.path.normpath(start / path)) for path in _PATH.findall(arguments)[: 1 if call == "execve" else 2]}
            opened = call in ("open", "openat")
            (self.read if call == "execve" or (opened and not _WRITES.search(arguments)) else self.changed).update(paths)


def weights_elsewhere(folder: Path, outside: Path) -> list[str]:
    model = tiny_models.save_llama(made(folder / "weights"))
    (model / "model.safetensors").rename(outside / "model.safetensors")
    index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": f"../../{outside.name}/model.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    return compress(model, folder)


def code_beside(folder: Path, outside: Path) -> list[str]:
    model = tiny_models.save_llama(made(folder / "code"))
    (model / "theirs.py").write_text(f"open({str(outside / SECRET)!r}).read()\n")
    edit(model / "config.json", model_type="theirs", auto_map={"AutoConfig": "theirs.C", "AutoModelForCausalLM": "theirs.M"})
    return compress(model, folder)


def kernels_of_a_hub(folder: Path, outside: Path) -> list[str]:
    model = tiny_models.save_llama(made(folder / "kernels"))
    edit(model / "config.json", attn_implementation="somebody/attention", _attn_implementation="somebody/attention")
    return compress(model, folder)


def tokenizer_elsewhere(folder: Path, outside: Path) -> list[str]:
    model = tiny_models.save_llama(made(folder / "tokenizer"))
    edit(model / "tokenizer_config.json", vocab_file=str(outside / SECRET), tokenizer_file=f"../../{outside.name}/{SECRET}")
    return compress(model, folder)


def adapter_of_another(folder: Path, outside: Path) -> list[str]:
    model = tiny_models.save_llama(made(folder / "adapter"))
    (model / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(outside), "peft_type": "LORA"}))
    return compress(model, folder)


class _Touches:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (self.path, "w")


def pickled_weights(folder: Path, outside: Path) -> list[str]:
    model = tiny_models.save_llama(made(folder / "pickle"))
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(_Touches(outside / "pickled")))
    return compress(model, folder)


def program_that_is_code(folder: Path, outside: Path) -> list[str]:
    with zipfile.ZipFile(folder / "program.pt2", "w") as archive:
        archive.writestr("archive/data/weights/model.pt", pickle.dumps(_Touches(outside / "pt2")))
    return compress(folder / "program.pt2", folder)


def calibration_that_is_code(folder: Path, outside: Path) -> list[str]:
    model = tiny_models.save_llama(made(folder / "calibrated"))
    np.save(folder / "samples.npy", np.array([_Touches(outside / "npy")], object), allow_pickle=True)
    return [*compress(model, folder), "--calibration", str(folder / "samples.npy")]


def work_folder_that_is_a_link(folder: Path, outside: Path) -> list[str]:
    model = tiny_models.save_llama(made(folder / "linked"))
    (folder / ".out.ec.work").symlink_to(outside)
    return compress(model, folder)


def output_over_a_folder(folder: Path, outside: Path) -> list[str]:
    model = tiny_models.save_llama(made(folder / "over"))
    (folder / "theirs.ec").symlink_to(outside)
    command = compress(model, folder)
    return [*command[:-1], str(folder / "theirs.ec"), "--force"]


def recipe_that_names_code(folder: Path, outside: Path) -> list[str]:
    (folder / "evil.py").write_text(f"open({str(outside / 'recipe')!r}, 'w')\n")
    passes = '[[passes]]\nmethod = "lut-kmeans"\n[[passes]]\nmethod = "jlcm"\nobjective = "evil:make"\n'
    (folder / "r.toml").write_text(f"version = 1\n{passes}")
    model = tiny_models.save_llama(made(folder / "recipe"))
    return ["compress", str(model), "--recipe", str(folder / "r.toml"), "--output", str(folder / "recipe.ec")]


def external_data_elsewhere(folder: Path, outside: Path) -> list[str]:
    path = onnx_models.save_encoder(folder / "external.onnx", np.ones((4, 4), np.float32), external=True)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = f"../{outside.name}/{SECRET}"
    path.write_bytes(model.SerializeToString())
    return ["bench", str(path), "--batch", "1", "--sequence", "2"]


def data_that_is_a_link(folder: Path, outside: Path) -> list[str]:
    path = onnx_models.save_encoder(folder / "link.onnx", np.ones((4, 4), np.float32), external=True)
    (tensor,) = onnx.load(path, load_external_data=False).graph.initializer
    (data,) = (entry.value for entry in tensor.external_data if entry.key == "location")
    shutil.move(folder / data, outside / "moved")
    (folder / data).symlink_to(outside / "moved")
    return ["bench", str(path), "--batch", "1", "--sequence", "2"]


def report_of_strangers(folder: Path, outside: Path) -> list[str]:
    run = made(folder / "run")
    (run / "a.json").symlink_to(outside / SECRET)
    (run / "b.json").write_text(json.dumps({"schema": 1, "kind": "bench", "artifact": f"<img src=file://{outside / SECRET}>"}))
    return ["report", str(run), "--output", str(folder / "report.html")]


CASES = [
    weights_elsewhere,
    code_beside,
    kernels_of_a_hub,
    tokenizer_elsewhere,
    adapter_of_another,
    pickled_weights,
    program_that_is_code,
    calibration_that_is_code,
    work_folder_that_is_a_link,
    output_over_a_folder,
    recipe_that_names_code,
    external_data_elsewhere,
    data_that_is_a_link,
    report_of_strangers,
]


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def edit(path: Path, **entries: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def compress(model: Path, folder: Path) -> list[str]:
    return ["compress", str(model), "--recipe", "lut-8bit", "--output", str(folder / "out.ec")]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`given` and what belongs to this user, and `outside`."""
    root = tmp_path_factory.mktemp("confined")
    return {name: made(root / name) for name in ("given", "outside", "home", "tmp")}


@pytest.fixture(scope="module")
def traced(places: dict[str, Path]) -> tuple[Traced, list[str]]:
    (places["outside"] / SECRET).write_text("secret")
    commands = [case(places["given"], places["outside"]) for case in CASES]
    log = places["tmp"].parent / "trace"
    environment = {**os.environ, "HOME": str(places["home"]), "TMPDIR": str(places["tmp"]), "HF_HOME": str(places["home"] / "hf")}
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)  # set by PyTorch for processes of its own, where this one has imported it
    environment |= {"HF_HUB_OFFLINE": "0", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["strace", "-f", "-qq", "-s", "4096", "-e", f"trace={CALLS}", "-o", str(log), sys.executable, "-P", "-c", RUN],
        input=json.dumps(commands),
        cwd=places["given"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ended = [line for line in done.stdout.splitlines() if line.startswith("code ")]
    assert len(ended) == len(commands), done.stderr
    return Traced(log.read_text(errors="replace").splitlines(), places["given"]), ended


def inside(path: Path, folders: list[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def test_calls_that_another_thread_interrupts_are_seen(tmp_path: Path) -> None:
    lines = [
        '12 openat(AT_FDCWD, "a", O_RDONLY <unfinished ...>',
        "13 --- SIGCHLD {si_signo=SIGCHLD} ---",
        "12 <... openat resumed>) = 3",
    ]
    seen = Traced([*lines, f'13 unlink("{tmp_path}/b") = -1 ENOENT (No such file or directory)'], tmp_path)
    assert (seen.read, seen.changed) == ({tmp_path / "a"}, {tmp_path / "b"})


def test_the_commands_refuse(traced: tuple[Traced, list[str]]) -> None:
    """All but the report, which says of a record what it is not."""
    assert [line for line in traced[1] if line.split()[1] == "0" and "report" not in line] == []


def test_nothing_of_the_folder_beside_is_opened_or_changed(traced: tuple[Traced, list[str]], places: dict[str, Path]) -> None:
    outside = [places["outside"]]
    assert [path for path in traced[0].read | traced[0].changed if inside(path, outside)] == []
    assert sorted(path.name for path in places["outside"].iterdir()) == ["model.safetensors", "moved", SECRET]


def test_changes_stay_in_the_given_folder_and_our_temporary_one(traced: tuple[Traced, list[str]], places: dict[str, Path]) -> None:
    allowed = [places["given"], places["tmp"], places["home"], Path("/dev"), Path("/proc/self")]
    assert [path for path in traced[0].changed if not inside(path, allowed)] == []
    assert [path for path in places["home"].rglob("*") if path.is_file()] == []
    assert [path.name for path in places["tmp"].iterdir() if not path.name.startswith("torchinductor_")] == []  # PyTorch's, empty
    assert [path for path in places["tmp"].rglob("*") if path.is_file()] == []


def test_what_is_read_is_given_or_belongs_to_the_programs(traced: tuple[Traced, list[str]], places: dict[str, Path]) -> None:
    programs = [Path(sys.prefix), Path(sys.base_prefix), Path(edgecomp.__file__).parents[1], *map(Path, site.getsitepackages())]
    programs += [Path(folder) for folder in os.environ.get("PYTHONPATH", "").split(":") if folder]
    system = [Path(folder) for folder in ("/usr", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev", "/bin", "/sbin", "/var/lib")]
    allowed = [*(path.resolve() for path in programs), *programs, *system, *(places[name] for name in ("given", "home", "tmp"))]
    assert [path for path in traced[0].read if not inside(path, allowed)] == []


def test_no_other_machine_is_reached(traced: tuple[Traced, list[str]]) -> None:
    assert traced[0].reached == []
