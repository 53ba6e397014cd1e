"""One self-contained page from the records of a run."""

from __future__ import annotations

from edgecomp.report.page import verdict_on, write_report
from edgecomp.report.run_folder import load_runs

__all__ = ["load_runs", "verdict_on", "write_report"]
