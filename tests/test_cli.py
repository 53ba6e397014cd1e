"""The command line: verbs, exit codes, what goes to stdout and what to stderr."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from onnx_models import embedding_table, save_encoder

import edgecomp
import edgecomp.recipe
from edgecomp import errors
from edgecomp.cli import INTERRUPTED, VERBS, build_parser, main

TESTS = Path(tiny_models.__file__).parent


def run(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """`python -m edgecomp` in a process of its own, tiny_models at hand."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "edgecomp", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_every_verb_explains_itself(verb: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"] if verb else ["--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert f"usage: edgecomp {verb or '[-h]'}" in printed
    if verb is None:
        assert all(re.search(rf"^    {name}\s", printed, re.MULTILINE) for name in VERBS)


@pytest.mark.parametrize("arguments", [[], ["squeeze"], ["compress"], ["compress", "m", "--samples", "few", "-o", "x"]])
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage:" in capsys.readouterr().err


ERRORS = [error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, errors.EdgecompError)]


def test_exit_codes_are_unique_and_clear_of_those_of_shells() -> None:
    codes = [error.exit_code for error in ERRORS]
    assert len(set(codes)) == len(codes)
    assert not {0, 2, INTERRUPTED} & set(codes)
    assert max(codes) < 126


def raise_on_listing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make `edgecomp recipe` fail."""

    def fail() -> list[str]:
        raise error

    monkeypatch.setattr(edgecomp.recipe, "builtin_recipes", fail)


@pytest.mark.parametrize("error", ERRORS)
def test_each_error_ends_with_its_code_and_message(
    error: type[errors.EdgecompError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raise_on_listing(monkeypatch, error("what must hold"))
    assert main(["recipe"]) == error.exit_code
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "edgecomp recipe: error: what must hold\n")
    assert main(["--debug", "recipe"]) == error.exit_code
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(("package", "extra"), [("torch", "torch"), ("transformers.utils", "transformers"), ("plotly", "report")])
def test_a_package_of_an_extra_that_is_missing_is_no_bug(
    package: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raise_on_listing(monkeypatch, ModuleNotFoundError(f"No module named {package!r}", name=package))
    assert main(["recipe"]) == errors.RuntimeUnavailableError.exit_code
    assert capsys.readouterr().err == f"edgecomp recipe: error: No module named {package!r}; pip install 'edgecomp[{extra}]'\n"


def test_memory_that_ends_is_no_bug(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raise_on_listing(monkeypatch, MemoryError("Unable to allocate 4 EiB"))
    assert main(["recipe"]) == 1
    assert capsys.readouterr().err == "edgecomp recipe: error: there must be more memory than there is: Unable to allocate 4 EiB\n"


def test_another_module_that_is_missing_is_a_bug(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raise_on_listing(monkeypatch, ModuleNotFoundError("No module named 'edgecomp.x'", name="edgecomp.x"))
    assert main(["recipe"]) == 1
    assert "this is a bug" in capsys.readouterr().err


def test_a_program_is_inspected(capsys: pytest.CaptureFixture[str], tied_program: Path) -> None:
    assert main(["inspect", str(tied_program)]) == 0
    assert "- operators: edgecomp::lut_gather.out, edgecomp::lut_matmul.out" in capsys.readouterr().out
    assert main(["inspect", "none.pte"]) == errors.ModelError.exit_code
    assert "no ExecuTorch program at none.pte" in capsys.readouterr().err


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raise_on_listing(monkeypatch, KeyboardInterrupt())
    assert main(["recipe"]) == INTERRUPTED
    assert capsys.readouterr().err == "edgecomp recipe: interrupted\n"


def test_an_interrupt_ends_with_130_when_a_library_makes_another_error_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> list[str]:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape") from None
        return []

    monkeypatch.setattr(edgecomp.recipe, "builtin_recipes", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored, as in a shell's background jobs
    try:
        assert main(["recipe"]) == INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "edgecomp recipe: interrupted\n"


def test_recipes_are_listed_resolved_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe"]) == 0
    assert capsys.readouterr().out.splitlines() == edgecomp.recipe.builtin_recipes()
    assert main(["recipe", "lut-3bit", "--set", "passes.0.bits=5"]) == 0
    assert json.loads(capsys.readouterr().out)["passes"][0]["bits"] == 5
    assert main(["recipe", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Recipe"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["compress", "tiny_models:described", "-r", "lut-9bit"], errors.ConfigError),
        (["compress", "tiny_models:described", "--set", "passes.0.bits=9"], errors.ConfigError),
        (["compress", "no_such_module:f"], errors.ModelError),
        (["compress", "tiny_models:described"], errors.CalibrationError),
        (["compress", "tiny_models:described", "--calibration", "missing.npz"], errors.CalibrationError),
        (["export", "missing.ec"], errors.CheckpointError),
    ],
)
def test_what_is_refused_writes_nothing(
    arguments: list[str], error: type[errors.EdgecompError], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "-o", str(tmp_path / "out")]) == error.exit_code
    assert capsys.readouterr().out == ""
    assert not list(tmp_path.iterdir())


def test_an_existing_output_is_refused_before_the_model_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", "no_such_module:f", "-o", str(tmp_path)]) == errors.OutputError.exit_code
    assert "--force" in capsys.readouterr().err


def test_a_model_goes_from_factory_to_verified_onnx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ("--set", "passes.0.refits=1", "--set", "passes.0.compute=float")
    source = ("tiny_models:described", "--calibration", "tiny_models:images")
    model = ("--model", "tiny_models:described")
    made = run("compress", *source, "-r", "lut-8bit", *quick, "-o", "m.ec", folder=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "bits per weight" in made.stdout
    assert "lut-kmeans: 100%" in made.stderr
    assert "100%" not in made.stdout
    exported = run("export", "m.ec", *model, "-o", "m.onnx", "--json", folder=tmp_path)
    files = json.loads(exported.stdout)
    assert "export: 100%" in exported.stderr
    assert files["total_bytes"] == sum((tmp_path / name).stat().st_size for name in files["files"])

    monkeypatch.chdir(tmp_path)

    def result_of(*arguments: str, code: int = 0) -> Any:
        assert main([*arguments, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    assert result_of("inspect", "m.onnx")["bytes"] == files["total_bytes"]
    assert main(["inspect", "m.onnx"]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    ratio = 4 * files["parameters"] / files["total_bytes"]
    assert f"total: {files['total_bytes']:,} bytes in the files for {files['parameters']:,} parameters, {ratio:.2f}x" in told
    assert result_of("inspect", "m.ec", *model)["size"]["bits_per_weight"] < 10
    assert result_of("inspect", "m.ec") == result_of("inspect", "m.ec", *model)
    verify = ("verify", "m.onnx", "--against", "m.ec", *model, "--inputs", "tiny_models:images")
    assert main([*verify, "--json"]) == 0
    assert "verify: 100%" in capsys.readouterr().err
    assert main([*verify, "--json", "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert result_of(*verify, "--max-absolute", "1e-4")
    assert result_of(*verify, "--max-absolute", "1e-30", code=errors.VerificationError.exit_code)
    assert result_of("compress", *source, *quick, "-o", "m.ec", "--force", "--quiet")["size"]["bits_per_weight"] < 6


def test_what_float16_lost_shows_against_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint has lost it too: the original's tensors are compared with, where they are at hand."""
    monkeypatch.chdir(tmp_path)
    settings = ("--set", 'dense_dtype="float16"', "--set", "passes.0.weighting=none", "--set", "passes.0.compute=float")
    assert main(["compress", "tiny_models:scaled", *settings, "-o", "m.ec", "--quiet"]) == 0
    model = ("--model", "tiny_models:scaled")
    assert main(["export", "m.ec", *model, "-o", "m.onnx", "--quiet"]) == 0
    capsys.readouterr()
    verify = ("verify", "m.onnx", "--against", "m.ec", "--inputs", "tiny_models:scaled_inputs", "--json")
    assert main([*verify, *model]) == 0
    found = json.loads(capsys.readouterr().out)["comparisons"][-1]["outputs"][0]
    assert found["relative"] > 0.03  # one of 128 outputs is 0


def test_that_the_original_is_not_at_hand_is_said(
    bert_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bert_folder, "bert")
    (tmp_path / "inputs.txt").write_text("the quick fox\n")
    settings = ("--set", 'dense_dtype="float16"', "--set", "passes.0.weighting=none", "--set", "passes.0.compute=float")
    assert main(["compress", "bert", *settings, "-o", "m.ec", "--quiet"]) == 0
    assert main(["export", "m.ec", "-o", "m.onnx", "--quiet"]) == 0
    verify = ("verify", "m.onnx", "--against", "m.ec", "--inputs", "inputs.txt", "--no-stock", "--json")

    capsys.readouterr()
    assert main(verify) == 0
    printed = capsys.readouterr()
    assert "notice" not in printed.err
    assert json.loads(printed.out)["comparisons"][0]["outputs"][0]["relative"] > 1e-5
    shutil.rmtree("bert")
    assert main(verify) == 0
    printed = capsys.readouterr()
    assert "not at hand" in printed.err
    assert json.loads(printed.out)["comparisons"][0]["outputs"][0]["relative"] < 1e-5


README = (TESTS.parent / "README.md").read_text(encoding="utf-8")


def readme_commands() -> list[list[str]]:
    """Every whole command of the README, without its comment."""
    lines = [line.strip() for line in README.splitlines() if line.strip().startswith("edgecomp ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_the_commands_of_the_readme_are_those_of_the_parser() -> None:
    commands = readme_commands()
    assert {command[0] for command in commands} >= {"compress", "export", "verify", "bench", "report", "doctor"}
    for command in commands:
        assert build_parser().parse_args(command).verb == command[0]
    for verb, rest in re.findall(r"`edgecomp ([a-z-]+)([^`]*)`", README):
        assert verb in VERBS
        assert set(re.findall(r"--[a-z-]+", rest)) <= options_of(verb)
    # Options that the text mentions by themselves, pip's aside, belong to some verb, or to all.
    everywhere = {"--debug", "--help", "--version"}.union(*(options_of(verb) for verb in VERBS))
    text = "\n".join(line for line in README.splitlines() if not line.strip().startswith("pip "))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) <= everywhere


def options_of(verb: str) -> set[str]:
    """The long options of a verb, from its --help."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit):
        main([verb, "--help"])
    return set(re.findall(r"--[a-z][a-z-]*", printed.getvalue()))


def test_the_readme_lists_every_exit_code() -> None:
    listed = {name: int(code) for code, name in re.findall(r"^\| (\d+) \| `(\w+)` \|", README, re.MULTILINE)}
    assert listed == {error.__name__: error.exit_code for error in ERRORS}
    assert f"| {INTERRUPTED} |" in README


@pytest.mark.parametrize("what", ["recipe", "lut-4bit", "--schema", "m.ec", "m.onnx", "m.pte"])
def test_recipes_and_files_are_shown_without_pytorch(what: str, tmp_path: Path, tied_program: Path) -> None:
    """Which takes seconds to import."""
    if what == "m.ec":
        model = edgecomp.compress(
            tiny_models.described()[0], "lut-8bit", tiny_models.images(), overrides=["passes.0.weighting=none", "passes.0.refits=0"]
        )
        model.save(tmp_path / what)
    elif what == "m.onnx":
        save_encoder(tmp_path / what, embedding_table())
    elif what == "m.pte":
        shutil.copy(tied_program, tmp_path / what)
    arguments = ["recipe"] if what == "recipe" else ["recipe", what] if "." not in what else ["inspect", what]
    code = (
        "import sys; from edgecomp.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(code or ', '.join({'torch', 'onnx', 'transformers', 'onnxruntime', 'executorch'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_importing_the_package_is_quick(tmp_path: Path) -> None:
    code = "import time; start = time.perf_counter(); import edgecomp; print(time.perf_counter() - start)"
    command = [sys.executable, "-P", "-c", code]
    # The best of some: other work on this machine is not ours to measure.
    times = [float(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout) for _ in range(5)]
    assert min(times) < 0.2


def test_importing_the_package_loads_no_heavy_library(tmp_path: Path) -> None:
    heavy = "{'torch', 'onnx', 'onnxruntime', 'numpy', 'transformers', 'pydantic'}"
    code = f"import sys, edgecomp, edgecomp.cli; edgecomp.cli.build_parser(); print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_api_is_what_the_package_lists() -> None:
    assert all(getattr(edgecomp, name) is not None for name in edgecomp.__all__)
    with pytest.raises(AttributeError, match="no attribute 'squeeze'"):
        _ = edgecomp.squeeze


def test_the_sources_of_a_checkout_say_that_they_are_not_installed(tmp_path: Path) -> None:
    checkout = tmp_path / "edgecomp"
    checkout.mkdir()
    shutil.copy(edgecomp.__file__, checkout)
    ended = subprocess.run([sys.executable, "-c", "import edgecomp"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert f"ImportError: edgecomp must be imported as installed, not from its sources in {checkout}" in ended.stderr
