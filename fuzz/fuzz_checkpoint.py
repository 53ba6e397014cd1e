"""Checkpoints: the manifest, a zero byte, and the weights. Digests are made right, since nobody finds them by chance."""

from __future__ import annotations

import hashlib
import json

import harness

with harness.instrumented("edgecomp", "json"):
    from edgecomp.checkpoint import MANIFEST, WEIGHTS, read_contents
    from edgecomp.checkpoint_file import sealed

FOLDER = harness.scratch_folder()


def read(data: bytes) -> None:
    """Read the checkpoint's files."""
    manifest, _, weights = data.partition(b"\0")
    (FOLDER / MANIFEST).write_bytes(_signed(manifest, weights))
    (FOLDER / WEIGHTS).write_bytes(weights)
    read_contents(FOLDER)


def _signed(manifest: bytes, weights: bytes) -> bytes:
    try:
        value = json.loads(manifest)
        value["files"][WEIGHTS] = hashlib.sha256(weights).hexdigest()
        return sealed(value).encode()
    except (ValueError, TypeError, LookupError, RecursionError):  # so wrong that it is tried as it is
        return manifest


harness.fuzz(read)
