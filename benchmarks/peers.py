"""Peers of a compressed encoder: what the runtime's own tools make of the same Hugging Face model.

    python benchmarks/peers.py MODEL_FOLDER -o OUTPUT_FOLDER

writes one ONNX file per entry of `PEERS`, all from the one fp32 export, so that a comparison differs in nothing but the weights:

| file | made by |
| --- | --- |
| fp32.onnx | `torch.onnx.export(dynamo=True)`, batch and sequence dynamic, opset 21 |
| int8-dynamic.onnx | `onnxruntime.quantization.quantize_dynamic`, int8 weights, one scale per tensor (the tool's default) |
| nbits4-block32.onnx | `MatMulNBitsQuantizer`, 4 bits, blocks of 32, zero points, accuracy level 4, Gather quantised too |
| nbits4-block128.onnx | the same with blocks of 128 |
| nbits4-block32-symmetric.onnx | blocks of 32 without zero points |
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from transformers import AutoModel

OPSET = 21  # the first with 4-bit integers, which GatherBlockQuantized stores


class Encoder(torch.nn.Module):
    """A Hugging Face encoder with positional inputs and one output, as ONNX wants it."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.model = AutoModel.from_pretrained(folder, attn_implementation="eager", add_pooling_layer=False).eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
        """Hidden states of the last layer: float32 `[batch, sequence, hidden]`."""
        output: torch.Tensor = self.model(input_ids, attention_mask, token_type_ids).last_hidden_state
        return output


def silence_packages() -> None:
    """Keep back what other packages log and warn of while peers are made: every node, kernels that a CPU lacks, changes to come."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def export_fp32(model: Encoder, output: Path) -> None:
    """The uncompressed model as one ONNX file."""
    ids = torch.arange(10, 24).reshape(2, 7)
    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence")
    names = ["input_ids", "attention_mask", "token_type_ids"]
    program = torch.onnx.export(
        model,
        (ids, torch.ones_like(ids), torch.zeros_like(ids)),
        dynamo=True,
        opset_version=OPSET,
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_shapes={name: {0: batch, 1: sequence} for name in names},
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    program.save(str(output))


def quantize_int8(fp32: Path, output: Path) -> None:
    """Dynamic int8: weights int8, activations quantised on the fly, embeddings int8 too."""
    quantize_dynamic(fp32, output, weight_type=QuantType.QInt8)


def quantize_nbits4(fp32: Path, output: Path, *, block_size: int, symmetric: bool) -> None:
    """Weight-only 4 bits by plain rounding, embeddings as `GatherBlockQuantized`."""
    quantizer = MatMulNBitsQuantizer(
        onnx.load(fp32),
        bits=4,
        block_size=block_size,
        is_symmetric=symmetric,
        accuracy_level=4,
        op_types_to_quantize=("MatMul", "Gather"),
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(output), use_external_data_format=False)


PEERS: dict[str, Callable[[Path, Path], None]] = {
    "int8-dynamic": quantize_int8,
    "nbits4-block32": partial(quantize_nbits4, block_size=32, symmetric=False),
    "nbits4-block128": partial(quantize_nbits4, block_size=128, symmetric=False),
    "nbits4-block32-symmetric": partial(quantize_nbits4, block_size=32, symmetric=True),
}


def build_peers(folder: Path, output: Path) -> dict[str, Path]:
    """Write the fp32 export and every peer below `output`; returns their paths by name, fp32 first."""
    output.mkdir(parents=True, exist_ok=True)
    paths = {"fp32": output / "fp32.onnx"}
    export_fp32(Encoder(folder).eval(), paths["fp32"])
    for name, quantize in PEERS.items():
        paths[name] = output / f"{name}.onnx"
        quantize(paths["fp32"], paths[name])
    return paths


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the peers and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a Hugging Face encoder")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the ONNX files")
    options = parser.parse_args(arguments)
    silence_packages()
    for name, path in build_peers(options.model, options.output).items():
        print(f"{name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
