"""One self-contained page from the records of a run."""

from __future__ import annotations

from edgecomp.report.page import write_report

__all__ = ["write_report"]
