"""Compression methods: each a module with a configuration and a pass over the draft."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgecomp.context import PassContext
from edgecomp.draft import Draft
from edgecomp.passes.base import Candidate, Foretelling, Pass
from edgecomp.passes.jlcm import Jlcm
from edgecomp.passes.lut_kmeans import LutKmeans

PASSES: dict[str, type[Pass]] = {
    "lut-kmeans": LutKmeans,
    "jlcm": Jlcm,
}


def run_passes(passes: Sequence[Pass], draft: Draft, context: PassContext) -> None:
    """Run passes one after another, each held to what it needs and to what it leaves; none runs before all are prepared.

    Raises:
        EdgecompError: a setting, the calibration or the draft is not what a pass needs, or a pass left what it must not.

    """
    for step in passes:
        step.prepare(draft, context)
    _require_work(passes, draft)
    for number, step in enumerate(passes):
        step.requires(draft)
        step.run(draft, context.of_pass(number))
        step.ensures(draft)
        draft.check()


def _require_work(passes: Sequence[Pass], draft: Draft) -> None:
    """Hold passes to what they need, as far as those before them foretell what they leave."""
    ahead = replace(draft, plans=dict(draft.plans), matrices=dict(draft.matrices), factors=dict(draft.factors))
    for step in passes:
        if not isinstance(step, Foretelling):
            return
        step.requires(ahead)
        step.foretell(ahead)


__all__ = ["PASSES", "Candidate", "Pass", "PassContext", "run_passes"]
