"""Whether an artifact computes what its reference computes, on our library and on the stock runtime."""

from __future__ import annotations

from edgecomp.verify.check import Reference, Tolerance, VerifyOptions, raise_on_failure, verify
from edgecomp.verify.metrics import OutputDifference
from edgecomp.verify.result import Comparison, VerifyResult

__all__ = [
    "Comparison",
    "OutputDifference",
    "Reference",
    "Tolerance",
    "VerifyOptions",
    "VerifyResult",
    "raise_on_failure",
    "verify",
]
