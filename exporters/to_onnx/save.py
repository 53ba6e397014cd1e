"""Writing a model: the graph in one file, its weights in one other, laid out to be mapped into memory."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from edgecomp.array_file import bytes_of
from edgecomp.errors import OutputError
from edgecomp.exported.files import digest_of
from edgecomp.exported.onnx_file import DATA_DIGESTS

# Runtimes map a tensor of external data where it lies. A mapping begins at a page: of 4 KiB on most processors, of 16 or 64 KiB on
# some of ARM, and at 64 KiB on Windows. Large tensors begin at offsets of 64 KiB, which a mapping of any page size can begin at;
# those of less than a MiB would waste too much (all-MiniLM-L6-v2 of 4 bits would grow by 13 %), and begin at pages of 4 KiB, so
# that a layer's weights share no such page with another's. All others are aligned to the 64-byte planes that kernels read: an
# offset of 64 is an address of 64 whatever page the mapping begins at. Tiny ones stay in the graph: their entry would be as long.
LARGE_BYTES, LARGE_ALIGNMENT = 1 << 20, 1 << 16
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

    The model's metadata holds the digest of the data file, by which the tools refuse the data of another export beside it. Both
    files are written in a folder aside and take their places only when complete and checked, the weights first.

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
            model.metadata_props.pop(DATA_DIGESTS, None)
            if data_aside.exists():
                model.metadata_props[DATA_DIGESTS] = json.dumps({data.name: digest_of(data_aside)})
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
    """Place tensors in a file, each aligned by its size: in the first gap behind another that it fits into, else at the end."""
    placements: list[Placement] = []
    gaps: list[tuple[int, int]] = []
    end = 0
    # Those of pages in the model's order, in which they are read; then small ones, the largest first, into the gaps left by these.
    for tensor in sorted(tensors, key=lambda tensor: -min(tensor.nbytes, PAGE_BYTES)):
        alignment = _alignment(tensor.nbytes)
        fits = (i for i, (free, stop) in enumerate(gaps) if _round_up(free, alignment) + tensor.nbytes <= stop)
        index = next(fits, None)
        start = _round_up(end if index is None else gaps[index][0], alignment)
        placements.append(Placement(start, tensor))
        if index is None:
            gaps.append((end, start))
            end = start + tensor.nbytes
        else:
            free, stop = gaps.pop(index)
            gaps += [(free, start), (start + tensor.nbytes, stop)]
        gaps = [(free, stop) for free, stop in gaps if _round_up(free, SMALL_ALIGNMENT) + INLINE_BYTES <= stop]
    return sorted(placements, key=lambda placement: placement.offset)


def _alignment(nbytes: int) -> int:
    if nbytes >= LARGE_BYTES:
        return LARGE_ALIGNMENT
    return PAGE_BYTES if nbytes >= PAGE_BYTES else SMALL_ALIGNMENT


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
