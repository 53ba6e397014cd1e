"""Runs benchmarks: a fresh process per round, artifact and device; all of a round before the next, so that drift hits all alike."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import edgecomp
from edgecomp.bench.host import git_commit, now
from edgecomp.bench.job import Job
from edgecomp.bench.long_runs import endurance_of
from edgecomp.bench.options import BenchOptions
from edgecomp.bench.record import (
    Artifact,
    ArtifactFile,
    Endurance,
    Energy,
    Environment,
    OperatorTimes,
    Parity,
    Record,
    Round,
    Segment,
    Sessions,
    TokenTest,
)
from edgecomp.bench.saved_outputs import SavedOutputs
from edgecomp.bench.stats import relative_difference, summarize
from edgecomp.bench.token_tests import FolderTest, tests_of
from edgecomp.bench.validity import check_validity
from edgecomp.devices import open_device
from edgecomp.devices.base import Device
from edgecomp.devices.qemu import QemuDevice
from edgecomp.devices.session import Session
from edgecomp.errors import ConfigError, DeviceError, EdgecompError, RuntimeUnavailableError
from edgecomp.exported.executorch_file import ExecutorchFile
from edgecomp.exported.files import hash_files
from edgecomp.exported.library import resolve_library
from edgecomp.exported.onnx_file import OnnxFile
from edgecomp.exported.read import read_exported


def run_bench(artifact: Path, options: BenchOptions, *, command: Sequence[str] | None = None) -> Record:
    """Measure one artifact on this machine; see `run_benches`.

    Raises:
        DeviceError: the measuring program died.

    """
    record = run_benches([artifact], options, command=command)[0]
    if record.failure is not None:
        raise DeviceError(record.failure)
    return record


def run_benches(
    artifacts: Sequence[Path],
    options: BenchOptions,
    *,
    devices: Sequence[str] = ("local",),
    bundle: Path | None = None,
    outputs: Path | None = None,
    earlier: Sequence[Record] = (),
    command: Sequence[str] | None = None,
    quiet: bool = False,
) -> list[Record]:
    """Measure artifacts on devices in alternating rounds, each in a fresh process.

    A device that fails ends its own measurements: the records say so, and hold what was measured until then. Of several
    devices, one that refuses the model has failed as well.

    Args:
        artifacts: `.onnx`, `.ort` and `.pte` files; external data lies beside them. Of a language model's folder each test is
            measured by itself (`edgecomp.bench.token_tests`).
        options: what to measure.
        devices: URLs, see `edgecomp.devices`.
        bundle: what is brought to devices of another architecture; None for the default place.
        outputs: a folder for each device's outputs, see `edgecomp.bench.saved_outputs`.
        earlier: records of the same artifacts, devices and options whose long runs are not whole: their rounds are kept, and the
            long run goes on where it ended.
        command: the command line to record; by default this process's.
        quiet: no progress bar, not even on a terminal.

    Returns:
        A record per artifact (and test of it) and device: the first artifact's on all devices, then the next one's.

    Raises:
        ModelError: no such file, or the model does not run on the inputs, on the only device.
        CheckpointError: an artifact is incomplete or not readable.
        ConfigError: a device's URL is wrong, no device can do what is asked for, a dynamic size is not known, the input file does
            not fit, or two outputs would have one name.
        OutputError: the outputs cannot be written.
        RuntimeUnavailableError: onnxruntime or the library does not load, or there is no bundle for a device.

    """
    works = [work for path in artifacts for work in _works_of(path, options)]
    saved = None if outputs is None else SavedOutputs(outputs, [_output_name(work) for work in works], devices)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgecomp-")))
        counting = options.count_instructions
        opened = [stack.enter_context(open_device(url, count_instructions=counting)) for url in devices]
        if options.time_operators and all(isinstance(device, QemuDevice) for device in opened):
            raise ConfigError(f"operators are timed on devices that are not emulated, got {', '.join(devices)} alone")
        if counting and not any(isinstance(device, QemuDevice) for device in opened):
            raise ConfigError(f"instructions are counted on emulated devices alone (qemu://CPU), got {', '.join(devices)}")
        targets = [_Target(device, bundle) for device in opened]
        runs = [
            _Run(work, target, options, scratch / f"{w}-{t}", alone=len(targets) == 1)
            for w, work in enumerate(works)
            for t, target in enumerate(targets)
        ]
        for run in runs:
            run.go_on_from(earlier)
        keep = len(devices) > 1 or saved is not None
        extra = (options.time_operators, options.energy_s > 0, options.sessions > 0, options.endure_s > 0)
        total = (options.rounds + sum(extra)) * len(runs)
        with tqdm(total=total, desc="bench", unit="process", file=sys.stderr, disable=quiet or None) as progress:
            for number in range(options.rounds):
                for run in runs:
                    if len(run.rounds) > number:  # of an earlier run
                        progress.update()
                        continue
                    progress.set_postfix_str(f"{run.label} on {run.target.device.url}")
                    run.advance(keep_outputs=number == 0 and keep, saved=saved)
                    progress.update()
            extras = {
                "operators": _Run.time_operators,
                "energy": _Run.measure_energy,
                "sessions": _Run.open_and_close,
                "long run": _Run.endure,
            }
            for (what, measure), asked in zip(extras.items(), extra, strict=True):
                for run in runs if asked else ():
                    progress.set_postfix_str(f"{what} of {run.label} on {run.target.device.url}")
                    measure(run)
                    progress.update()
    words = list(sys.argv if command is None else command)
    return [run.to_record(words, runs[index - index % len(targets)]) for index, run in enumerate(runs)]


_Work = OnnxFile | ExecutorchFile | FolderTest


def _works_of(path: Path, options: BenchOptions) -> list[_Work]:
    """What is measured of an artifact."""
    return list(tests_of(path, options)) if path.is_dir() else [read_exported(path)]


def _output_name(work: _Work) -> str:
    """Of the folder for its outputs."""
    return f"{work.name} {work.test.name}".replace(" ", "-") if isinstance(work, FolderTest) else work.path.name


class _Target:
    """A device, reached when it is first needed; a failure to reach it is not tried again."""

    def __init__(self, device: Device, bundle: Path | None) -> None:
        self.device, self._bundle = device, bundle
        self._session: Session | None = None
        self._failure: str | None = None

    @property
    def session(self) -> Session:
        if self._failure is not None:
            raise DeviceError(self._failure)
        if self._session is None:
            try:
                self._session = Session(self.device, self._bundle)
            except DeviceError as error:
                self._failure = str(error)
                raise
        return self._session


class _Run:
    """The rounds of one artifact on one device, until one fails."""

    def __init__(self, work: _Work, target: _Target, options: BenchOptions, scratch: Path, *, alone: bool) -> None:
        self.test = work if isinstance(work, FolderTest) else None
        self.model: OnnxFile | ExecutorchFile = work.model if isinstance(work, FolderTest) else work
        self.options = options if self.test is None else self.test.options(options)
        self.name = self.model.path.name if self.test is None else self.test.name
        self.target, self._scratch, self._alone = target, scratch, alone
        self._output_name = _output_name(work)
        self.library = resolve_library(options.library, self.model)
        self.rounds: list[Round] = []
        self.outputs: dict[str, np.ndarray] = {}
        self.operators: OperatorTimes | None = None
        self.energy: Energy | None = None
        self.sessions: Sessions | None = None
        self.segments: list[Segment] = []
        self._earlier: Record | None = None
        self.notes: list[str] = []
        self.failure: str | None = None
        self._job: Job | None = None
        self._created = now()

    @property
    def label(self) -> str:
        """For the progress bar."""
        return self.name if self.test is None else f"{self.test.test.name} of {self.name}"

    @property
    def _token_test(self) -> TokenTest | None:
        return None if self.test is None else self.test.test

    def go_on_from(self, earlier: Sequence[Record]) -> None:
        """Take over what an earlier run measured of the same files on the same device.

        Raises:
            ConfigError: it had other options.

        """
        mine = (_artifact(self.model, self.library, self.name), self._token_test, self.target.device.url)
        for record in earlier:
            if (record.artifact, record.token_test, record.device) == mine and record.endurance is not None:
                changed = [name for name, value in _options_json(self.options).items() if record.options.get(name) != value]
                if changed:
                    raise ConfigError(
                        f"a long run goes on with the options that it began with, and {', '.join(changed)} changed: give the same "
                        "command with --resume, or leave --resume out"
                    )
                self._earlier = record
                self.rounds, self.operators, self.energy = list(record.rounds), record.operators, record.energy
                self.sessions, self.segments, self._created = record.sessions, record.endurance.segments, record.created_utc

    def advance(self, *, keep_outputs: bool, saved: SavedOutputs | None) -> None:
        """Run the next round."""

        def measure(job: Job) -> None:
            self.rounds.append(job.run_round())
            if keep_outputs:
                self.outputs = job.pull_outputs(self.rounds[-1])
                if saved is not None:
                    saved.save(self._output_name, self.target.device.url, job.inputs, self.outputs)

        self._unless_failed(measure)

    def time_operators(self) -> None:
        """Trace the operators, where the runtime can."""

        def trace(job: Job) -> None:
            try:
                self.operators = job.time_operators()
            except RuntimeUnavailableError as error:
                self.notes.append(f"operators are not timed: {error}")

        if self.operators is None:
            self._unless_failed(trace)

    def measure_energy(self) -> None:
        """Measure energy, where the device can."""

        def measure(job: Job) -> None:
            try:
                self.energy = job.measure_energy()
            except RuntimeUnavailableError as error:
                self.notes.append(f"energy is not measured: {error}")

        if self.energy is None:
            self._unless_failed(measure)

    def open_and_close(self) -> None:
        """Open and close sessions."""

        def work(job: Job) -> None:
            self.sessions = job.open_and_close()

        if self.sessions is None:
            self._unless_failed(work)

    def endure(self) -> None:
        """Run for minutes, or for what is left of them."""

        def work(job: Job) -> None:
            left = self.options.endure_s - self._endurance().measured_s
            if left > 0:
                self.segments.append(job.endure(left))
                self.failure = self.segments[-1].failure

        self._unless_failed(work)

    def _endurance(self) -> Endurance:
        return endurance_of(self.options.endure_s, self.options.interval_s, self.segments)

    def _unless_failed(self, work: Callable[[Job], None]) -> None:
        """Work with the device, unless it failed before."""
        if self.failure is not None:
            return
        try:
            if self._job is None:
                self._scratch.mkdir()
                self._job = Job(self.target.session, self.model, self.library, self.options, self._scratch, self.test)
            work(self._job)
        except EdgecompError as error:
            # What a device says must not end the measurements of others.
            if not isinstance(error, DeviceError) and (self._alone or not error.told_by_device):
                raise
            self.failure = str(error)

    def to_record(self, command: list[str], first: _Run) -> Record:
        """The record; `first` ran the same artifact on the first device."""
        earlier = self._earlier
        environment = None if earlier is None else earlier.environment
        if self._job is not None:
            environment = Environment(
                **self._job.machine.model_dump(),
                emulation=self.target.session.probe.emulation,
                edgecomp_version=edgecomp.__version__,
                git_commit=git_commit(),
            )
        emulation = "no" if environment is None else environment.emulation
        summary = summarize(self.rounds, emulation, by_median=self.test is not None) if self.rounds else None
        parity = None if self is first else _compare(self.outputs, first)
        if parity is None and earlier is not None:  # its outputs are not kept
            parity = earlier.parity
        endurance = self._endurance() if self.options.endure_s > 0 else None
        validity = check_validity(
            self.rounds,
            summary,
            self.options,
            emulation,
            parity=parity,
            failure=self.failure,
            endurance=endurance,
            sessions=self.sessions,
        )
        notes = [*validity.notes, *self.notes]
        if self.energy is not None and self.energy.refusal is not None:
            notes.append(f"energy is refused: {self.energy.refusal}")
        return Record(
            created_utc=self._created,
            command=command,
            device=self.target.device.url,
            options=_options_json(self.options),
            artifact=_artifact(self.model, self.library, self.name),
            environment=environment,
            rounds=self.rounds,
            summary=summary,
            parity=parity,
            operators=self.operators,
            endurance=endurance,
            sessions=self.sessions,
            energy=self.energy,
            token_test=self._token_test,
            failure=self.failure,
            validity=validity.model_copy(update={"notes": notes}),
        )


def _compare(outputs: dict[str, np.ndarray], first: _Run) -> Parity | None:
    if not outputs or outputs.keys() != first.outputs.keys():
        return None  # one of the two failed before
    pairs = [(outputs[name], reference) for name, reference in first.outputs.items()]
    differences = [relative_difference(left, right) for left, right in pairs]
    return Parity(
        reference=first.target.device.url,
        identical=all(np.array_equal(left, right, equal_nan=right.dtype.kind == "f") for left, right in pairs),
        relative_difference=max(differences) if all(np.isfinite(differences)) else None,
    )


def _artifact(model: OnnxFile | ExecutorchFile, library: Path | None, name: str) -> Artifact:
    files = [ArtifactFile(**asdict(info)) for info in hash_files(model)]
    return Artifact(
        name=name,
        bytes=sum(file.bytes for file in files),
        files=files,
        uses_edgecomp=model.uses_edgecomp,
        unknown_operators=model.unknown_operators if isinstance(model, OnnxFile) else [],
        library=None if library is None else library.name,
    )


def _options_json(options: BenchOptions) -> dict[str, Any]:
    values = asdict(options)
    plain = {"inputs": None if options.inputs is None else str(options.inputs), "sizes": dict(options.sizes)}
    lists = {name: list(values[name]) for name in ("cpus", "prompt_tokens", "generate_tokens", "depths")}
    return values | plain | lists
