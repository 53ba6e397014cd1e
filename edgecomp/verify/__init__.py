"""Whether an artifact computes what its reference computes, on our library and on the stock runtime, and how good it is."""

from __future__ import annotations

from edgecomp.verify.check import Reference, Tolerance, VerifyOptions, open_artifact, raise_on_failure, verify
from edgecomp.verify.label_files import read_labels, read_slices
from edgecomp.verify.labelled import Examples, Flips, Judgement, Score
from edgecomp.verify.metrics import OutputDifference
from edgecomp.verify.perturbations import Perturbation, parse_perturbations, perturbed_arrays, typos
from edgecomp.verify.result import Comparison, VerifyResult
from edgecomp.verify.scores import Classes, Metric, Own

__all__ = [
    "Classes",
    "Comparison",
    "Examples",
    "Flips",
    "Judgement",
    "Metric",
    "OutputDifference",
    "Own",
    "Perturbation",
    "Reference",
    "Score",
    "Tolerance",
    "VerifyOptions",
    "VerifyResult",
    "open_artifact",
    "parse_perturbations",
    "perturbed_arrays",
    "raise_on_failure",
    "read_labels",
    "read_slices",
    "typos",
    "verify",
]
