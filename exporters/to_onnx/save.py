"""Writing a model: the graph in one file, its weights in one other, laid out to be mapped into memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from edgecomp.array_file import bytes_of
from edgecomp.errors import OutputError

# Runtimes map a tensor of external data where it lies, so its offset is its alignment. Kernels read 64-byte planes; whole pages
# keep a layer's weights from sharing pages with another's. Tiny tensors stay in the graph: their entry would be as long.
PAGE_BYTES = 4096
SMALL_ALIGNMENT = 64
INLINE_BYTES = 256


@dataclass(frozen=True)
class Placement:
    """Where a tensor's bytes lie in the data file."""

    offset: int
    tensor: ir.TensorProtocol


def data_path(output: Path) -> Path:
    """The file of the weights of the model file `output`."""
    return output.with_name(f"{output.stem}.onnx.data")


def save(model: ir.Model, output: Path, check: Callable[[Path], None]) -> tuple[Path, ...]:
    """Write `model` to `output` and its weights to `data_path(output)`; the model's initialisers then refer to the written file.

    Both are written in a folder aside and take their places only when complete and checked, the weights first.

    Args:
        model: the finished model.
        output: the model file.
        check: called with the model file before it takes its place; what it raises leaves nothing behind.

    Returns:
        The files.

    Raises:
        OutputError: the files cannot be written.

    """
    data = data_path(output)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{output.stem}.", dir=output.parent) as folder:
            aside, data_aside = Path(folder, output.name), Path(folder, data.name)
            initializers = list(model.graph.initializers.values())
            _write_data(initializers, data_aside)
            proto = ir.serde.serialize_model(model)
            aside.write_bytes(proto.SerializeToString(deterministic=True))
            check(aside)
            # An old model must never be left beside new weights.
            output.unlink(missing_ok=True)
            if data_aside.exists():
                data_aside.replace(data)
            else:
                data.unlink(missing_ok=True)
            aside.replace(output)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}") from error
    return (output, data) if data.exists() else (output,)


def layout(tensors: Sequence[ir.TensorProtocol]) -> list[Placement]:
    """Place tensors in a file: large ones at whole pages, small ones in the gaps behind them that fit, else at the end."""
    placements: list[Placement] = []
    gaps: list[tuple[int, int]] = []
    end = 0
    for tensor in tensors:
        if tensor.nbytes >= PAGE_BYTES:
            placements.append(Placement(end, tensor))
            free = _round_up(end + tensor.nbytes, SMALL_ALIGNMENT)
            end = _round_up(end + tensor.nbytes, PAGE_BYTES)
            gaps.append((free, end))
    # The largest first, since the small ones of them fit anywhere.
    for tensor in sorted((t for t in tensors if t.nbytes < PAGE_BYTES), key=lambda t: -t.nbytes):
        index = next((i for i, (start, stop) in enumerate(gaps) if tensor.nbytes <= stop - start), None)
        if index is None:
            placements.append(Placement(end, tensor))
            end = _round_up(end + tensor.nbytes, SMALL_ALIGNMENT)
        else:
            start, stop = gaps[index]
            placements.append(Placement(start, tensor))
            gaps[index] = (_round_up(start + tensor.nbytes, SMALL_ALIGNMENT), stop)
    return sorted(placements, key=lambda placement: placement.offset)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _write_data(initializers: Sequence[ir.Value], path: Path) -> None:
    """Write the weights and make the initialisers refer to them."""
    values = {id(value.const_value): value for value in initializers}
    placements = layout([v.const_value for v in initializers if v.const_value is not None and v.const_value.nbytes >= INLINE_BYTES])
    if not placements:
        return
    with path.open("wb") as file:
        for placement in placements:
            file.write(bytes(placement.offset - file.tell()))
            tensor = placement.tensor
            # Elements of less than a byte are packed by `tobytes`; all others are written from where they lie.
            file.write(bytes_of(tensor.numpy()) if tensor.nbytes >= tensor.size else tensor.tobytes())
    for placement in placements:
        tensor = placement.tensor
        values[id(tensor)].const_value = ir.ExternalTensor(
            path.name,
            placement.offset,
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=values[id(tensor)].name or "",
            base_dir=path.parent,
        )
