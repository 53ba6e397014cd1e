"""What a product asks of a model: requirements in a file, held to what was measured."""

from __future__ import annotations

from edgecomp.acceptance.evidence import Evidence, evidence_of
from edgecomp.acceptance.requirements import FIGURES, Limit, Requirements, read_requirements, requirements_schema
from edgecomp.acceptance.verdict import Line, Verdict, judge, raise_on_failure

__all__ = [
    "FIGURES",
    "Evidence",
    "Limit",
    "Line",
    "Requirements",
    "Verdict",
    "evidence_of",
    "judge",
    "raise_on_failure",
    "read_requirements",
    "requirements_schema",
]
