"""Signatures of the operators that ExecuTorch brings: `python -m edgecomp.exporters.to_executorch.signatures > FILE`.

The file is edgecomp/exported/executorch_signatures.txt, by which programs are checked where no ExecuTorch is installed. A line is
an operator's name and a letter for each argument, see `edgecomp.exported.executorch_calls`.
"""

from __future__ import annotations

import re

import executorch.exir.passes._quant_patterns_and_replacements
import executorch.kernels.quantized  # noqa: F401  (both register schemas with PyTorch)
import torch
from executorch.runtime import Runtime

from edgecomp.exported.executorch_calls import ANY, MAYBE

_LETTERS = {
    "Tensor": "T",
    "int": "i",
    "float": "d",
    "bool": "b",
    "number": "n",
    "str": "s",
    "List[int]": "I",
    "List[float]": "D",
    "List[bool]": "B",
    "List[Tensor]": "L",
    "List[Optional[Tensor]]": "O",
}
# Those that PyTorch has no schema of, by ExecuTorch's source (kernels/prim_ops).
_PRIMITIVES = {"et_copy_index.tensor": "TTi", "et_view.default": "TIT", "floordiv.int": "ii*", "mod.int": "ii*"}


def signatures() -> dict[str, str]:
    """Of every operator that the installed ExecuTorch brings; the last argument of those with a schema is what they return."""
    found = {}
    for name in sorted(Runtime.get().operator_registry.operator_names):
        namespace, _, operator = name.partition("::")
        if namespace == "executorch_prim" and operator in _PRIMITIVES:
            found[name] = _PRIMITIVES[operator]
            continue
        schema = torch._C._get_schema(*name.partition(".")[::2])
        found[name] = "".join(_letter(str(argument.type)) for argument in schema.arguments) + ANY
    return found


def _letter(kind: str) -> str:
    optional = re.fullmatch(r"Optional\[(.*)\]", kind)
    return _LETTERS[optional[1]] + MAYBE if optional else _LETTERS[kind]


if __name__ == "__main__":
    for name, letters in signatures().items():
        print(name, letters)  # noqa: T201
