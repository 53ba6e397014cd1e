"""Whose code may run: nobody's but ours and the user's own, unless the user says so."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trust:
    """What of a model's makers is trusted besides data.

    Args:
        remote_code: Python files beside a Hugging Face model that its configuration names, and whatever else that may name
            (kernels, quantisation methods): `--trust-remote-code`.
        code: files whose reading runs code that they hold: `.pt2` programs and pickled weights: `--trust-code`.

    """

    remote_code: bool = False
    code: bool = False


NOBODY = Trust()
