"""Compression methods: each a module with a configuration and a pass over the draft."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from edgecomp.context import PassContext
from edgecomp.draft import Draft
from edgecomp.errors import EdgecompError
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
    for number, step in enumerate(passes):
        with _numbered(number):
            step.prepare(draft, context)
    _require_work(passes, draft)
    for number, step in enumerate(passes):
        with _numbered(number):
            step.requires(draft)
            step.run(draft, context.of_pass(number))
            step.ensures(draft)
            draft.check()


@contextmanager
def _numbered(number: int) -> Iterator[None]:
    """Messages of a pass name its settings as the command line does, `--set passes.N.bits=3`: N becomes its number."""
    try:
        yield
    except EdgecompError as error:
        text = str(error).replace("passes.N.", f"passes.{number}.")
        if text == str(error):
            raise
        raise type(error)(text) from error


def _require_work(passes: Sequence[Pass], draft: Draft) -> None:
    """Hold passes to what they need, as far as those before them foretell what they leave."""
    ahead = replace(draft, plans=dict(draft.plans), matrices=dict(draft.matrices), factors=dict(draft.factors))
    for number, step in enumerate(passes):
        if not isinstance(step, Foretelling):
            return
        with _numbered(number):
            step.requires(ahead)
            step.foretell(ahead)


__all__ = ["PASSES", "Candidate", "Pass", "PassContext", "run_passes"]
