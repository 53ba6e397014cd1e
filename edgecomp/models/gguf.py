"""Weights of a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), dequantised one at a time.

transformers' loader holds all weights of a file in float32 at once, eight times a file of 4 bits. Here each is written to a
temporary file as soon as it is dequantised, and the model's parameters are pages of that file, which the system can drop. Names and
layouts are transformers' own.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgecomp.errors import ModelError

_DISK = Path("/var/tmp")  # survives a restart, so that it is no file system in memory, as /tmp often is


def fill(body: nn.Module, path: Path) -> bool:
    """Give a model on the meta device the weights of a file, in float32.

    Args:
        body: the model; weights that are tied to others need none of their own.
        path: the file.

    Returns:
        Whether all weights could be given; if not, as for mixtures of experts, whose weights a file holds in another division, the
        model is as it was.

    Raises:
        ModelError: there is no room for the weights on the disk.

    """
    with tempfile.TemporaryFile(dir=_folder()) as file:
        places: dict[str, tuple[int, tuple[int, ...]]] = {}
        for name, weight in _weights(body, path):
            places[name] = file.tell(), weight.shape
            try:
                file.write(np.ascontiguousarray(weight, np.float32).data)
                file.flush()
            except OSError as error:
                size = 4 * sum(parameter.numel() for parameter in body.parameters())
                raise ModelError(
                    f"the weights of {path} need room for {size:,} bytes in {_folder()} while the model is worked on: "
                    f"{error.strerror}. Name another folder by the environment variable TMPDIR"
                ) from error
        pages = np.memmap(file, np.float32, "c") if places else np.empty(0, np.float32)
    tied = {id(parameter): name for name, parameter in body.named_parameters() if name in places}
    if any(id(parameter) not in tied for parameter in body.parameters()):
        return False
    tensors: dict[str, Tensor] = {}
    for name, (start, shape) in places.items():
        tensors[name] = torch.from_numpy(pages[start // 4 :][: int(np.prod(shape))].reshape(shape))
    # Every name of a shared parameter gets the same tensor.
    names = {name: tied[id(parameter)] for name, parameter in body.named_parameters(remove_duplicate=False)}
    parameters = {source: nn.Parameter(tensors[source], requires_grad=False) for source in set(names.values())}
    body.load_state_dict({name: parameters[source] for name, source in names.items()}, strict=False, assign=True)
    return True


def _weights(body: nn.Module, path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and float32 values of each weight, as transformers would give them to the model."""
    import gguf
    from transformers import modeling_gguf_pytorch_utils as loader

    reader = gguf.GGUFReader(path)
    parsed = {**loader.load_gguf_checkpoint(path), "tensors": {}}
    architecture = loader.read_field(reader, "general.architecture")[0]
    processor = loader.TENSOR_PROCESSORS.get(architecture, loader.TensorProcessor)(config=parsed["config"])
    names = loader.get_gguf_hf_weights_map(body, processor)
    for tensor in reader.tensors:
        result = processor.process(
            weights=gguf.dequantize(tensor.data, tensor.tensor_type),
            name=tensor.name,
            tensor_key_mapping=names,
            parsed_parameters=parsed,
        )
        if result.name in names:
            yield names[result.name], result.weights


def _folder() -> str:
    """Where the weights lie: the folder that TMPDIR names, else one on a disk."""
    return tempfile.gettempdir() if "TMPDIR" in os.environ or not _DISK.is_dir() else str(_DISK)
