from __future__ import annotations

import torch

from edgecomp import torch_ops  # noqa: F401  (registers the operators)
from edgecomp.formats import FORMATS
from edgecomp.ops import OPERATORS, STAGE_OPERATORS


def test_names_of_the_operators_in_each_runtime() -> None:
    assert {name: (op.onnx_name, op.torch_name) for name, op in OPERATORS.items()} == {
        "lut_matmul": ("LutMatMul", "edgecomp::lut_matmul"),
        "lut_gather": ("LutGather", "edgecomp::lut_gather"),
        "lut_conv2d": ("LutConv2D", "edgecomp::lut_conv2d"),
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
        assert operator.format == format_name
        assert operator in OPERATORS.values()
