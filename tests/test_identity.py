"""Artifacts that say what they are, golden data beside them, and what is another between two."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_models

import edgecomp
from edgecomp import native
from edgecomp.acceptance.golden import golden_path, selftest, write_golden
from edgecomp.checkpoint import CompressedModel, load
from edgecomp.cli import main
from edgecomp.errors import CheckpointError, ConfigError, EdgecompError, ModelError
from edgecomp.exported.executorch_file import read_executorch
from edgecomp.exported.onnx_file import read_onnx
from edgecomp.exporters import export
from edgecomp.identity import METADATA, Identity, find_identity, identity_of
from edgecomp.inspect.difference import compare

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PLAIN = ["passes.0.weighting=none", "passes.0.refits=0"]
IDS = tiny_models.tokens()[0]


def compressed(recipe: str = "lut-4bit", scale: float = 1.0) -> CompressedModel:
    module = tiny_models.tied_tokens()
    for parameter in module.parameters():
        parameter.data *= scale
    return edgecomp.compress(module, recipe, [IDS], overrides=PLAIN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as a checkpoint and for ONNX Runtime, with golden data."""
    here = tmp_path_factory.mktemp("identity")
    model = compressed()
    model.save(here / "m.ec")
    export(model, "onnx", here / "m.onnx")
    write_golden(here / "m.onnx", 3)
    return here


def c_identity(data: bytes) -> dict[str, str] | None:
    """By the C call."""

    class Found(ctypes.Structure):
        _fields_ = (
            ("size", ctypes.c_size_t),
            *((name, ctypes.c_char * 65) for name in ("id", "original", "recipe", "calibration")),
            ("edgecomp", ctypes.c_char * 32),
        )

    found = Found(size=ctypes.sizeof(Found))
    status = native._library().ec_identity_find(data, ctypes.c_size_t(len(data)), ctypes.byref(found))
    names = ("id", "original", "recipe", "calibration", "edgecomp")
    return {name: getattr(found, name).decode() for name in names} if status == 0 else None


def test_every_artifact_carries_the_same_identity(folder: Path) -> None:
    expected = load(folder / "m.ec", model=tiny_models.tied_tokens()).identity
    assert expected.edgecomp == edgecomp.__version__
    texts = {
        "checkpoint": (folder / "m.ec" / "manifest.json").read_bytes(),
        "onnx": (folder / "m.onnx").read_bytes(),
        "golden": golden_path(folder / "m.onnx").read_bytes(),
    }
    for what, data in texts.items():
        assert find_identity(data) == expected, what
        assert c_identity(data) == expected.to_json(), what
    assert read_onnx(folder / "m.onnx").metadata[METADATA] == str(expected)
    assert c_identity(b"edgecomp-identity/1 id=" + b"0" * 63) is None


def test_a_program_of_executorch_carries_it_too(tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    model = compressed()
    export(model, "executorch", tmp_path / "m.pte")
    data = (tmp_path / "m.pte").read_bytes()
    assert c_identity(data) == model.identity.to_json()
    assert read_executorch(tmp_path / "m.pte").manifest["identity"] == str(model.identity)
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(tmp_path / "m.pte")
    assert "edgecomp_identity" in program.method_names
    assert program.load_method("edgecomp_identity").execute([]) == [str(model.identity)]
    write_golden(tmp_path / "m.pte", 2)
    assert selftest(tmp_path / "m.pte").passed
    for name in ("m.pte", "m.pte.golden.json"):
        require_found(tmp_path / name, tmp_path / "m.pte")


def test_what_the_identity_depends_on() -> None:
    recipe, provenance = {"name": "a", "bits": 4}, {"source": {"x": "1"}, "calibration": {"sha256": "c" * 64}, "edgecomp": "1"}
    arrays = [("b", np.arange(3)), ("a", np.zeros((2, 2), np.float16))]
    first = identity_of(recipe, provenance, arrays)
    assert identity_of({**recipe, "name": "b"}, provenance, arrays[::-1]) == first
    assert identity_of({**recipe, "bits": 3}, provenance, arrays).recipe != first.recipe
    assert identity_of(recipe, {**provenance, "source": {"x": "2"}}, arrays).original != first.original
    assert identity_of(recipe, provenance, [("b", np.arange(1, 4)), arrays[1]]).id != first.id
    assert find_identity(str(first).encode()) == first
    nothing = identity_of(recipe, {}, [])
    assert (nothing.calibration, find_identity(str(nothing).encode())) == ("", nothing)


def test_golden_outputs_repeat_and_cost_little(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = selftest(folder / "m.onnx")
    assert result.passed
    assert result.differences == (0, 0, 0)
    assert result.identity is not None
    assert main(["selftest", str(folder / "m.onnx")]) == 0
    assert "passed: m.onnx on local, 3 golden inputs, 3 with the very outputs" in capsys.readouterr().out
    assert main(["selftest", str(folder / "m.ec"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"]


@pytest.mark.parametrize("name", ["m.onnx", "m.onnx.data", "m.onnx.golden.json", "m.ec/manifest.json", "m.ec/weights.safetensors"])
def test_a_flipped_bit_is_found(folder: Path, name: str) -> None:
    """Wherever it is."""
    require_found(folder / name, folder / ("m.ec" if name.startswith("m.ec") else "m.onnx"))


def require_found(path: Path, artifact: Path) -> None:
    """Flip bits of a file, one at a time; each must end the self-test with an error of files."""
    whole = path.read_bytes()
    random = np.random.default_rng(3)
    try:
        for _ in range(25):
            place, bit = int(random.integers(len(whole))), int(random.integers(8))
            path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
            assert main(["selftest", str(artifact)]) in (4, 6, 7), (path.name, place, bit)
    finally:
        path.write_bytes(whole)


def test_other_outputs_fail_the_self_test(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of files that are whole: golden data of a device that computes something else."""
    for name in ("m.onnx", "m.onnx.data"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    content = json.loads(golden_path(folder / "m.onnx").read_text())
    from edgecomp.identity import digest_of_json

    for sample in content["samples"]:
        for output in sample["outputs"].values():
            output["values"] = output["values"][::-1] if "=" not in output["values"] else "A" * 8 + output["values"][8:]
    content.pop("digest")
    golden_path(tmp_path / "m.onnx").write_text(json.dumps(content | {"digest": digest_of_json(content)}))
    assert main(["selftest", str(tmp_path / "m.onnx")]) == 11
    assert "FAILED" in capsys.readouterr().out


def test_golden_inputs_of_the_users_own(folder: Path, tmp_path: Path) -> None:
    for name in ("m.onnx", "m.onnx.data"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    np.savez(tmp_path / "inputs.npz", **{name: np.concatenate([value, value[:, ::-1]]) for name, value in IDS.items()})
    write_golden(tmp_path / "m.onnx", 8, inputs=tmp_path / "inputs.npz")
    result = selftest(tmp_path / "m.onnx")
    assert result.differences == (0,) * 4  # the first axis counts: two samples of two rows
    with pytest.raises(ConfigError, match="1 to 1000"):
        write_golden(tmp_path / "m.onnx", 0, overwrite=True)
    golden_path(tmp_path / "m.onnx").unlink()
    with pytest.raises(ModelError, match="no golden data"):
        selftest(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "change",
    [
        {"samples": []},
        {"kind": 3},
        {"files": [{"name": "m.onnx", "bytes": "many", "sha256": ""}]},
        {"schema_version": 2},
        {"more": 1},
    ],
)
def test_golden_data_of_another_form_is_refused(folder: Path, tmp_path: Path, change: dict[str, object]) -> None:
    for name in ("m.onnx", "m.onnx.data"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    content = json.loads(golden_path(folder / "m.onnx").read_text())
    golden_path(tmp_path / "m.onnx").write_text(json.dumps(content | change))
    with pytest.raises(CheckpointError, match="golden data as it was written"):
        selftest(tmp_path / "m.onnx")


def test_a_difference_names_layers_bits_and_bytes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compressed("lut-3bit").save(tmp_path / "three.ec")
    found = compare(folder / "m.ec", tmp_path / "three.ec")
    assert found.recipe["recipe.passes.0.bits"] == (4, 3)
    assert set(found.identity) == {"id", "recipe"}
    assert found.layers[0].bits == ("4", "3")
    assert found.total_bytes[1] < found.total_bytes[0]
    assert compare(folder / "m.ec", folder / "m.ec").same
    assert main(["diff", str(folder / "m.ec"), str(tmp_path / "three.ec")]) == 0
    printed = capsys.readouterr().out
    assert "recipe.passes.0.bits: 4 -> 3" in printed
    assert "4 -> 3" in printed.split("| layer |")[1]
    export(load(tmp_path / "three.ec", model=tiny_models.tied_tokens()), "onnx", tmp_path / "three.onnx")
    exported = compare(folder / "m.onnx", tmp_path / "three.onnx")
    assert "sha256 of the files" in exported.identity
    assert exported.recipe["recipe.passes.0.bits"] == (4, 3)
    with pytest.raises(EdgecompError, match="two checkpoints are compared"):
        compare(folder / "m.ec", folder / "m.onnx")


def test_a_recipe_is_repeated_on_new_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.py").write_text(
        "import tiny_models\n"
        "from edgecomp.tensor import TensorSpec\n"
        "def old():\n    return tiny_models.tied_tokens()\n"
        "def new():\n"
        "    model = tiny_models.tied_tokens()\n"
        "    model.load_state_dict({name: -1.5 * value for name, value in model.state_dict().items()})\n"
        "    return model\n"
    )
    np.savez("ids.npz", **IDS)
    common = ("--quiet", "--calibration", "ids.npz", "--set", "passes.0.refits=0")
    assert main(["compress", "weights:old", "-r", "lut-3bit", *common, "-o", "old.ec"]) == 0
    capsys.readouterr()
    assert main(["compress", "weights:new", "--like", "old.ec", "--quiet", "-o", "new.ec"]) == 0
    printed = capsys.readouterr().out
    assert "original: " in printed
    assert "changed" in printed
    manifests = [json.loads(Path(name, "manifest.json").read_text()) for name in ("old.ec", "new.ec")]
    assert manifests[0]["recipe"] == manifests[1]["recipe"]
    assert manifests[0]["provenance"]["calibration"] == manifests[1]["provenance"]["calibration"]
    assert main(["compress", "weights:new", "--like", "old.ec", "-r", "lut-4bit", "-o", "x.ec"]) == 3
    Path("ids.npz").unlink()
    assert main(["compress", "weights:new", "--like", "old.ec", "-o", "x.ec"]) == 5
    assert "give --calibration FILE" in capsys.readouterr().err


def test_an_earlier_recipe_that_names_code_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((folder / "m.ec" / "manifest.json").read_text())
    manifest["recipe"]["passes"].append({"method": "jlcm", "objective": "os:system"})
    (tmp_path / "old.ec").mkdir()
    (tmp_path / "old.ec" / "manifest.json").write_text(json.dumps(manifest))
    assert main(["compress", "m:make", "--like", str(tmp_path / "old.ec"), "-o", str(tmp_path / "x.ec")]) == 3
    assert "names code" in capsys.readouterr().err


def test_an_identity_is_a_line() -> None:
    identity = Identity("a" * 64, "b" * 64, "c" * 64, "", "0.1.0")
    assert str(identity).startswith(f"edgecomp-identity/1 id={'a' * 64} original=")
    assert str(identity).endswith(" calibration=- edgecomp=0.1.0;")
