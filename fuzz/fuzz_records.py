"""Records of a run folder, as the report reads and shows them: JSON, of the kind that its first byte says."""

from __future__ import annotations

import harness

with harness.instrumented("edgecomp", "json"):
    import plotly.offline

    from edgecomp.report.page import render
    from edgecomp.report.run_folder import load_runs

FOLDER = harness.scratch_folder()
KINDS = {b"b": "bench", b"v": "verify", b"i": "inspect"}
plotly.offline.get_plotlyjs = lambda: ""  # megabytes that every page holds


def show(data: bytes) -> None:
    """Load the records, and render the page with them as their own baseline."""
    for kind in KINDS.values():
        (FOLDER / f"{kind}.json").unlink(missing_ok=True)
    (FOLDER / f"{KINDS.get(data[:1], 'bench')}.json").write_bytes(data[1:])
    runs = load_runs([FOLDER])
    render(runs, runs.records)


harness.fuzz(show)
