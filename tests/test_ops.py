from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

from edgecomp import torch_ops  # noqa: F401  (registers the operators)
from edgecomp.formats import FORMATS
from edgecomp.ops import OPERATORS, STAGE_OPERATORS


def test_names_of_the_operators_in_each_runtime() -> None:
    assert {name: (op.onnx_name, op.torch_name) for name, op in OPERATORS.items()} == {
        "lut_matmul": ("LutMatMul", "edgecomp::lut_matmul"),
        "lut_gather": ("LutGather", "edgecomp::lut_gather"),
        "lut_conv2d": ("LutConv2D", "edgecomp::lut_conv2d"),
        "lut_narrow_conv2d": ("LutNarrowConv2D", "edgecomp::lut_narrow_conv2d"),
        "kv_append_float32": ("KVAppendFloat32", "edgecomp::kv_append_float32"),
        "kv_append_float16": ("KVAppendFloat16", "edgecomp::kv_append_float16"),
        "kv_append_int8": ("KVAppendInt8", "edgecomp::kv_append_int8"),
        "kv_attention_float32": ("KVAttentionFloat32", "edgecomp::kv_attention_float32"),
        "kv_attention_float16": ("KVAttentionFloat16", "edgecomp::kv_attention_float16"),
        "kv_attention_int8": ("KVAttentionInt8", "edgecomp::kv_attention_int8"),
    }


def test_schema_lists_inputs_then_attributes() -> None:
    assert OPERATORS["lut_gather"].torch_schema == (
        "lut_gather(Tensor indices, Tensor codes, Tensor codebooks, Tensor tile_book, Tensor scales, Tensor row_scale, "
        "Tensor? row_index, *, int N, int K, int bits, int block_size) -> Tensor"
    )


def test_torch_has_every_operator_with_the_schema_of_the_table() -> None:
    for name, operator in OPERATORS.items():
        schema = getattr(torch.ops.edgecomp, name).default._schema
        assert str(schema) == f"edgecomp::{operator.torch_schema}"


def test_stages_run_on_operators_of_their_format() -> None:
    for (format_name, _), operator in STAGE_OPERATORS.items():
        assert format_name in FORMATS
        assert operator.factor.format == format_name
        assert operator in OPERATORS.values()


CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", CHECKOUT / "runtimes" / "ops" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def generated(generator: ModuleType, folder: Path, change: tuple[str, str] | None = None) -> dict[str, str]:
    """What is generated from the table, or from one with a piece of its text replaced."""
    text = (CHECKOUT / "edgecomp" / "ops.py").read_text(encoding="utf-8")
    if change is not None:
        assert change[0] in text
        text = text.replace(*change, 1)
    path = folder / "ops.py"
    path.write_text(text, encoding="utf-8")
    files: dict[str, str] = generator.generated(generator.load_table(path))
    return files


def test_generated_files_are_those_of_the_table(generator: ModuleType, tmp_path: Path) -> None:
    for name, text in generated(generator, tmp_path).items():
        assert (CHECKOUT / name).read_text(encoding="utf-8") == text, f"run python runtimes/ops/generate.py for {name}"


CODES, SCALES = 'OpInput("codes", "uint8"', 'OpInput("scales", "int8"'


@pytest.mark.parametrize(
    "change",
    [
        (SCALES, 'OpInput("scales", "uint8"'),
        (CODES, SCALES.replace("int8", "uint8")),
        ('first=OpInput("x", "float32"', 'first=OpInput("x", "int64"'),
        ('OpAttribute("N", "int"), OpAttribute("K", "int")', 'OpAttribute("K", "int"), OpAttribute("N", "int")'),
        ('choices=("float", "int8")', 'choices=("int8", "float")'),
        ('OpAttribute("pads", "ints", 4)', 'OpAttribute("pads", "ints", 2)'),
        ("optional=True)", "optional=False)"),
    ],
)
def test_a_reordered_or_retyped_input_changes_what_adapters_read(
    generator: ModuleType, tmp_path: Path, change: tuple[str, str]
) -> None:
    # The test above then fails until the files are generated anew, and adapters, which read nothing else, follow.
    before, after = generated(generator, tmp_path), generated(generator, tmp_path, change)
    assert before["runtimes/ops/op_table.cpp"] != after["runtimes/ops/op_table.cpp"]
    assert before["edgecomp/operators.md"] != after["edgecomp/operators.md"]


def test_adapters_name_no_operator_and_no_array() -> None:
    with_factors = [operator for operator in OPERATORS.values() if operator.factor.arrays]
    names = {declared.name for operator in with_factors for declared in operator.inputs[1:]}
    names |= {name for operator in OPERATORS.values() for name in (operator.name, operator.onnx_name)}
    for path in (CHECKOUT / "runtimes" / "adapters").rglob("*.[hc]*"):
        code = re.sub(r"//.*", "", path.read_text(encoding="utf-8"))
        assert not [name for name in names if re.search(rf"\b{name}\b", code)], path
