"""One artifact on one device: brought there, given inputs, measured round by round."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecomp.bench.answers import described_inputs, read_output
from edgecomp.bench.host import now
from edgecomp.bench.long_runs import energy_of, sessions_of
from edgecomp.bench.operators import read_operator_times
from edgecomp.bench.options import BenchOptions
from edgecomp.bench.record import (
    Conditions,
    Energy,
    Interval,
    Machine,
    Measurement,
    OperatorTimes,
    Round,
    Segment,
    Sessions,
)
from edgecomp.bench.token_tests import FolderTest
from edgecomp.bounded import read_bytes, require_unpackable
from edgecomp.devices.answers import part_of, validated
from edgecomp.devices.qemu import INSTRUCTIONS_FILE, QemuDevice
from edgecomp.devices.session import Session
from edgecomp.errors import ConfigError, DeviceError
from edgecomp.exported.executorch_file import ExecutorchFile
from edgecomp.exported.inputs import InputSizes, InputSpec, count_items, count_tokens, make_inputs
from edgecomp.exported.library import AUTO
from edgecomp.exported.onnx_file import OnnxFile

# Emulated, no time is measured: as many samples as it takes to see steady memory.
_EMULATED_SAMPLES = 2
# Shares of operators differ little between inferences, and a trace has an event for every node of each.
_TRACED_WARMUP, _TRACED_SAMPLES = 2, 10
_TRACE_FILE = "trace.json"  # the runner's name for it
_LARGEST_OUTPUTS_BYTES = 256 * 1024 * 1024
_LARGEST_COUNT = 64  # characters of a count of instructions
_COOLING_STEP_S = 2.0
_LONGEST_IDLE_S = 10.0


class Job:
    """An artifact on a device.

    Args:
        session: with the device.
        model: the artifact.
        library: the custom-op library to register, as a file of this machine; None for none.
        options: what to measure.
        scratch: a folder of this machine that outlives the job, for its inputs.
        test: of a language model with a cache; None for any other model.

    """

    def __init__(
        self,
        session: Session,
        model: OnnxFile | ExecutorchFile,
        library: Path | None,
        options: BenchOptions,
        scratch: Path,
        test: FolderTest | None = None,
    ) -> None:
        self._session, self._model, self._options, self._test = session, model, options, test
        self.url = session.device.url
        folder = model.path.parent
        # What is sent is what was checked, wherever a link leads by now.
        sources = model.checked if session.copies else model.files
        names = [path.relative_to(folder).as_posix() for path in model.files]
        files = session.push(dict(zip(names, sources, strict=True)))
        self._request: list[tuple[str, object]] = [
            ("artifact", files[model.path.name]),
            *(("file", path) for path in files.values()),
        ]
        self._request += [("threads", options.threads), *(("cpu", cpu) for cpu in options.cpus)]
        if test is not None:
            self._request += test.request
        if library is not None:
            own = options.library == AUTO
            path = session.own_library(model.path) if own else session.push({library.name: library})[library.name]
            self._request.append(("library", path))
        description = session.ask(model.path, [*self._request, ("action", "describe")], options.timeout_s)
        self.machine = validated(Machine, part_of(description, "machine", url=self.url), self.url)
        described = part_of(description, "description", "inputs", url=self.url)
        self.inputs = test.inputs(options.seed) if test is not None else _make_inputs(_specs(model, described, self.url), options)
        arrays = {name: f"input-{number}.npy" for number, name in enumerate(self.inputs)}
        for name, array in self.inputs.items():
            np.save(scratch / arrays[name], np.ascontiguousarray(array), allow_pickle=False)
        paths = session.push({name: scratch / name for name in arrays.values()})
        self._request += [("input", f"{name}={paths[file]}") for name, file in arrays.items()]

    def run_round(self) -> Round:
        """Cool down, and measure in a fresh process.

        Raises:
            DeviceError: the device fails.
            EdgecompError: of the class that the measuring program names.

        """
        cooled_s = self._cool_down()
        started = now()
        answer = self._session.ask(self._model.path, [*self._request, *self._sampling()], self._options.timeout_s)
        counts = {"batch": 1, "tokens": self._test.test.tokens} if self._test is not None else _counts(self.inputs)
        measured = part_of(answer, "measurement", url=self.url)
        return Round(
            started_utc=started,
            cooled_s=cooled_s,
            before=validated(Conditions, part_of(answer, "before", url=self.url), self.url),
            after=validated(Conditions, part_of(answer, "after", url=self.url), self.url),
            measurement=validated(Measurement, measured | counts if isinstance(measured, dict) else measured, self.url),
            instructions=self._instructions(),
        )

    def time_operators(self) -> OperatorTimes | None:
        """Trace some inferences in a fresh process; None on an emulated device, where times say nothing.

        Raises:
            DeviceError: the device fails.
            EdgecompError: of the class that the measuring program names.

        """
        if self._session.probe.emulation != "no":
            return None
        limit = ("max_duration_ns", round(self._options.max_duration_s * 1e9))
        lines = [*self._request, *_brought_back(), ("warmup", _TRACED_WARMUP), ("min_iterations", _TRACED_SAMPLES), limit]
        answer = self._session.ask(self._model.path, [*lines, ("action", "trace")], self._options.timeout_s)
        instructions = self._model.instructions if isinstance(self._model, ExecutorchFile) else ()
        with tempfile.TemporaryDirectory() as temporary:
            trace = Path(temporary, _TRACE_FILE)
            self._session.device.pull(_TRACE_FILE, trace)
            try:
                return read_operator_times(trace, part_of(answer, "trace", "runs", url=self.url), instructions)
            except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:  # of a trace of any other form
                raise DeviceError(f"{self.url}: the trace of operators is not what this version expects: {error}") from error

    def endure(self, seconds: float) -> Segment:
        """Run one session for so long; what was measured when the device went is kept."""
        options, started = self._options, now()
        lines = [
            *self._request,
            ("action", "endure"),
            ("warmup", options.warmup),
            ("min_duration_ns", round(seconds * 1e9)),
            ("interval_ns", round(options.interval_s * 1e9)),
        ]
        parts, answer = self._session.ask_in_parts(self._model.path, lines, seconds + options.timeout_s)
        intervals = [validated(Interval, part_of(part, "interval", url=self.url), self.url) for part in parts]
        failure = str(answer) if isinstance(answer, DeviceError) else None
        return Segment(started_utc=started, intervals=intervals, failure=failure)

    def open_and_close(self) -> Sessions:
        """Open, run and close sessions in one process.

        Raises:
            DeviceError: the device fails.

        """
        lines = [*self._request, ("action", "sessions"), ("sessions", self._options.sessions)]
        answer = self._session.ask(self._model.path, lines, self._options.timeout_s)
        return sessions_of(validated(Sessions, part_of(answer, "sessions", url=self.url), self.url))

    def measure_energy(self) -> Energy | None:
        """Measure energy in a fresh process; None on an emulated device.

        Raises:
            RuntimeUnavailableError: the device has no meter.
            DeviceError: the device fails.

        """
        if self._session.probe.emulation != "no":
            return None
        seconds = self._options.energy_s
        lines = [
            *self._request,
            ("action", "energy"),
            ("warmup", self._options.warmup),
            ("idle_ns", round(min(seconds, _LONGEST_IDLE_S) * 1e9)),
            ("min_duration_ns", round(seconds * 1e9)),
        ]
        answer = self._session.ask(self._model.path, lines, 2 * seconds + self._options.timeout_s)
        return energy_of(validated(Energy, part_of(answer, "energy", url=self.url), self.url))

    def _sampling(self) -> list[tuple[str, object]]:
        options = self._options
        keys = _brought_back()
        if self._session.probe.emulation != "no":
            if self._test is not None:  # of hundreds of tokens, the first of which shows what it takes
                return [*keys, ("warmup", 0), ("min_iterations", 1)]
            return [*keys, ("warmup", 1), ("min_iterations", _EMULATED_SAMPLES)]
        return [
            *keys,
            ("warmup", options.warmup),
            ("min_iterations", options.min_iterations),
            ("min_duration_ns", round(options.min_duration_s * 1e9)),
            ("max_duration_ns", round(options.max_duration_s * 1e9)),
        ]

    def _cool_down(self) -> float:
        """Wait until the device is cool enough, or `cooldown_s`; returns how long."""
        start = time.monotonic()
        while True:
            state = validated(Conditions, part_of(self._session.machine(), "before", url=self.url), self.url)
            waited = time.monotonic() - start
            hottest = state.hottest_celsius
            if hottest is None or hottest <= self._options.max_start_celsius or waited >= self._options.cooldown_s:
                return waited if waited >= _COOLING_STEP_S else 0.0
            time.sleep(min(_COOLING_STEP_S, self._options.cooldown_s - waited))

    def _instructions(self) -> int | None:
        device = self._session.device
        if not (isinstance(device, QemuDevice) and device.count_instructions):
            return None
        with tempfile.TemporaryDirectory() as temporary:
            device.pull(INSTRUCTIONS_FILE, Path(temporary, "count"))
            text = read_bytes(Path(temporary, "count"), _LARGEST_COUNT).decode(errors="replace").strip()
            if not (text.isascii() and text.isdecimal()):
                raise DeviceError(f"{self.url}: a count of instructions must be a whole number, got {text!r}")
            return int(text)

    def pull_outputs(self, done: Round) -> dict[str, np.ndarray]:
        """The outputs of the last round, which is `done`."""
        outputs = {}
        with tempfile.TemporaryDirectory() as temporary:
            for number, output in enumerate(done.measurement.outputs):
                target = Path(temporary, "output.npy")
                self._session.device.pull(f"output-{number}.npy", target)
                outputs[output.name] = read_output(target, output, self.url)
        return outputs


def _brought_back() -> list[tuple[str, object]]:
    """Where the runner leaves files for the host: in the session's folder."""
    return [("output_folder", "."), ("max_output_bytes", _LARGEST_OUTPUTS_BYTES)]


def _counts(inputs: Mapping[str, np.ndarray]) -> dict[str, int | None]:
    return {"batch": count_items(inputs), "tokens": count_tokens(inputs)}


def _specs(model: OnnxFile | ExecutorchFile, described: Any, url: str) -> Sequence[InputSpec]:
    """What the device says of the inputs; ExecuTorch knows no names of dynamic sizes, and our manifest does."""
    if isinstance(model, ExecutorchFile):
        return model.inputs
    return described_inputs(described, url)


def _make_inputs(specs: Sequence[InputSpec], options: BenchOptions) -> dict[str, np.ndarray]:
    if options.inputs is None:
        sizes = InputSizes(options.batch, options.sequence, options.sizes)
        return make_inputs(specs, sizes, token_ids=options.token_ids, seed=options.seed)
    try:
        require_unpackable(options.inputs)
        with np.load(options.inputs, allow_pickle=False) as arrays:
            return {spec.name: arrays[spec.name] for spec in specs}
    except Exception as error:  # numpy, zipfile and the tokenizer of numpy's headers raise errors of many unrelated classes
        names = ", ".join(spec.name for spec in specs)
        raise ConfigError(f"{options.inputs} must be an .npz with the arrays {names}: {error}") from error
