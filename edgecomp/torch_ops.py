"""The operators of `edgecomp.ops` in PyTorch: each by its schema in the table and its reference (`edgecomp.references`)."""

from __future__ import annotations

from importlib import import_module

import torch
from torch.library import Library

from edgecomp.ops import NAMESPACE, OPERATORS
from edgecomp.references.common import Reference

_library = Library(NAMESPACE, "DEF")

for _name, _operator in OPERATORS.items():
    _reference: Reference = import_module(f"edgecomp.references.{_operator.factor.format}").REFERENCES[_name]
    _library.define(_operator.torch_schema)
    _library.impl(_name, _reference.run, "CompositeExplicitAutograd")
    torch.library.register_fake(_operator.torch_name, _reference.fake, lib=_library)
