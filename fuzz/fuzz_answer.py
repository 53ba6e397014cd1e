"""What a device answers: a byte that says which question it was, then the answer."""

from __future__ import annotations

from pathlib import Path

import harness

with harness.instrumented("edgecomp", "json"):
    from edgecomp.bench.answers import described_inputs
    from edgecomp.bench.operators import read_operator_times
    from edgecomp.bench.record import Conditions, Machine, Measurement, Round
    from edgecomp.bench.stats import summarize
    from edgecomp.devices.answers import part_of, validated
    from edgecomp.devices.base import Completed
    from edgecomp.devices.local import LocalDevice
    from edgecomp.devices.session import Session

from urllib.parse import urlsplit

FOLDER = harness.scratch_folder()
MODEL = Path("m.onnx")
COUNTS = {"batch": 1, "tokens": None}


class FuzzedDevice(LocalDevice):
    """The machine itself, but for what it answers."""

    answer = ""

    def run(self, *_: object) -> Completed:
        """The answer."""
        return Completed(0, self.answer, "")


DEVICE = FuzzedDevice(urlsplit("local://"))
SESSION = Session(DEVICE)


def ask(data: bytes) -> None:
    """Give the answer to the question, and go on as the bench does."""
    question, DEVICE.answer = data[:1], data[1:].decode("utf-8", "replace")
    if question == b"t":
        (FOLDER / "trace.json").write_bytes(data[1:])
        try:
            read_operator_times(FOLDER / "trace.json", 1, ["a"])
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError):  # which the bench takes for wrong traces
            return
    answer = SESSION.ask(MODEL, [], 1)
    if question == b"d":
        validated(Machine, part_of(answer, "machine", url=""), "")
        described_inputs(part_of(answer, "description", "inputs", url=""), "")
        return
    before = validated(Conditions, part_of(answer, "before", url=""), "")
    measured = part_of(answer, "measurement", url="")
    measurement = validated(Measurement, measured | COUNTS if isinstance(measured, dict) else measured, "")
    round_ = Round(started_utc="", cooled_s=0, before=before, after=before, measurement=measurement)
    summarize([round_, round_]).model_dump_json()


harness.fuzz(ask)
