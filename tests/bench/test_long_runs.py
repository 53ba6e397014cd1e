"""Endurance, sessions and energy, by the real runner; energy by made-up trees of the kernel's files: few machines have a meter."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from kernel_files import KernelFiles
from onnx_models import embedding_table, save_encoder

from edgecomp.bench.long_runs import LARGEST_GROWTH_PER_MINUTE, endurance_of, energy_of, reasons_of_long_runs, sessions_of
from edgecomp.bench.options import BenchOptions
from edgecomp.bench.record import Energy, Interval, Memory, Segment, SessionMemory, Sessions, Span
from edgecomp.bench.runner import run_benches
from edgecomp.cli import main
from edgecomp.cli.bench import _seconds
from edgecomp.devices import TRANSPORTS
from edgecomp.devices.base import Completed
from edgecomp.devices.local import LocalDevice
from edgecomp.errors import ConfigError

QUICK = BenchOptions(sequence=8, rounds=1, warmup=1, min_iterations=5, min_duration_s=0, max_spread=1e9)


def memory(anonymous: int) -> Memory:
    others = dict.fromkeys(Memory.model_fields, 0)
    return Memory(**{**others, "anonymous_bytes": anonymous})


def segment(*anonymous: int, failure: str | None = None) -> Segment:
    intervals = [
        Interval(
            elapsed_ns=60_000_000_000 * (number + 1),
            inferences=1,
            p50_ns=1,
            p90_ns=1,
            max_ns=1,
            celsius=None,
            frequency_hz=None,
            memory=memory(value),
        )
        for number, value in enumerate(anonymous)
    ]
    return Segment(started_utc="2026-01-01", intervals=intervals, failure=failure)


def test_the_slope_leaves_out_the_first_minute_and_single_jumps() -> None:
    assert endurance_of(600, 60, [segment(0, *[5_000_000] * 9)]).growth_bytes_per_minute == 0
    assert endurance_of(600, 60, [segment(0, *[n * 200_000 for n in range(9)])]).growth_bytes_per_minute == 200_000
    assert endurance_of(600, 60, [segment(0, 1, 1, 1, 9_000_000, 1, 1, 1, 1)]).growth_bytes_per_minute == 0
    assert endurance_of(600, 60, [segment(1, 2, 3)]).growth_bytes_per_minute is None


def test_growth_and_a_run_that_is_not_whole_are_reasons() -> None:
    growing = endurance_of(600, 60, [segment(*[n * 2 * LARGEST_GROWTH_PER_MINUTE for n in range(10)])])
    assert list(reasons_of_long_runs(growing, None)) == ["memory grows by 200 KiB a minute, above 100"]
    short = endurance_of(600, 60, [segment(1, 1, 1, 1, failure="it went"), segment(1, 1)])
    assert list(reasons_of_long_runs(short, None)) == ["the long run lasted 360 s of 600: the same command with --resume goes on"]
    readings = [SessionMemory(after_sessions=n, memory=memory(n * 1000)) for n in (100, 1000)]
    sessions = sessions_of(Sessions(sessions=1000, duration_ns=1, memory=readings))
    assert sessions.growth_bytes == 900_000
    noisy = [12562432, 12554240, 12673024, 12660736, 12627968, 12636160, 12599296, 12632064, 12582912, 12820480]  # as measured
    readings = [SessionMemory(after_sessions=100 * n, memory=memory(value)) for n, value in enumerate(noisy, 1)]
    assert list(reasons_of_long_runs(None, sessions_of(Sessions(sessions=1000, duration_ns=1, memory=readings)))) == []
    assert list(reasons_of_long_runs(None, sessions)) == ["1000 sessions leave 879 KiB behind, above 100"]


@pytest.mark.parametrize(("leak", "found"), [(0, False), (300, True), (2000, True)])
def test_a_leak_is_told_from_a_step_of_the_allocator(leak: int, found: bool) -> None:
    """KiB as ExecuTorch had them on a thousand sessions; the step is nobody's leak, and hides none."""
    measured = [4912, 4920, 4920, 4940, 5292, 5292, 5292, 5292, 5292, 5292]
    readings = [
        SessionMemory(after_sessions=100 * n, memory=memory(1024 * value + 100 * n * leak)) for n, value in enumerate(measured, 1)
    ]
    told = sessions_of(Sessions(sessions=1000, duration_ns=1, memory=readings))
    assert bool(list(reasons_of_long_runs(None, told))) == found


def test_a_long_run_and_sessions_are_in_the_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_encoder(tmp_path / "m.onnx", embedding_table())
    options = replace(QUICK, endure_s=0.6, interval_s=0.1, sessions=20)
    record = run_benches([model], options)[0]
    assert record.failure is None
    assert record.sessions is not None
    assert [reading.after_sessions for reading in record.sessions.memory] == list(range(2, 21, 2))
    assert record.endurance is not None
    (run,) = record.endurance.segments
    assert 1 <= len(run.intervals) <= 6
    assert record.endurance.measured_s >= 0.6
    assert all(interval.p50_ns <= interval.p90_ns <= interval.max_ns for interval in run.intervals)
    assert run.intervals[-1].memory.anonymous_bytes > 0


def test_a_device_that_goes_in_the_middle_keeps_its_minutes_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The measuring program is killed, as by a reboot, when it has told of two parts."""
    killed = threading.Event()

    class FragileDevice(LocalDevice):
        def run(self, command: Sequence[str], stdin: str, timeout_s: float) -> Completed:
            if "action=endure" not in stdin or killed.is_set():
                return super().run(command, stdin.replace("interval_ns=60000000000", "interval_ns=50000000"), timeout_s)
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=self.folder)
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(stdin.replace("interval_ns=60000000000", "interval_ns=50000000"))
            process.stdin.close()
            lines = [process.stdout.readline(), process.stdout.readline()]
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed.set()
            return Completed(128 + signal.SIGKILL, "".join(lines) + '{"interval": {"elap', "")

    monkeypatch.setitem(TRANSPORTS, "fragile", FragileDevice)  # type: ignore[misc]
    monkeypatch.chdir(tmp_path)
    save_encoder(tmp_path / "m.onnx", embedding_table())
    quick = ("--rounds", "1", "--min-iterations", "5", "--min-duration", "0", "-s", "8", "--quiet", "--save", "bench.json")
    command = ["bench", "m.onnx", "--device", "fragile", *quick, "--for", "1s"]
    assert main([*command, "--resume"]) == 3
    assert main(command) == 12
    (record,) = json.loads(Path("bench.json").read_text())
    assert len(record["endurance"]["segments"][0]["intervals"]) == 2
    assert "--resume goes on" in " ".join(record["validity"]["reasons"])
    assert "was killed" in capsys.readouterr().err
    assert main([*command, "--threads", "2", "--resume"]) == 3
    assert "goes on with the options that it began with, and threads changed" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    (resumed,) = json.loads(Path("bench.json").read_text())
    first, second = resumed["endurance"]["segments"]
    assert first == record["endurance"]["segments"][0]
    assert second["intervals"]
    assert first["intervals"][-1]["elapsed_ns"] + second["intervals"][-1]["elapsed_ns"] >= 1_000_000_000
    assert resumed["rounds"] == record["rounds"]
    assert main([*command, "--resume"]) == 0  # nothing is left to do
    assert json.loads(Path("bench.json").read_text())[0]["endurance"] == resumed["endurance"]


def test_times_of_a_long_run() -> None:
    assert [_seconds(text) for text in ("90", "90s", "30m", "2h")] == [90, 90, 1800, 7200]
    for text in ("", "m", "1.5h", "-3s", "9" * 20):
        with pytest.raises(ConfigError, match="--for must be a time"):
            _seconds(text)


def told(*, busy: float, idle: float = 10.0, updates: int = 100, counts: bool = True) -> Energy:
    return Energy(
        source="rapl package-0",
        counts=counts,
        inferences=50,
        idle=Span(joules=idle, duration_ns=10_000_000_000, updates=100, smallest_step=0.001),
        busy=Span(joules=busy, duration_ns=20_000_000_000, updates=updates, smallest_step=0.001),
    )


def test_idle_power_is_subtracted_and_the_resolution_stated() -> None:
    energy = energy_of(told(busy=70.0))
    assert (energy.joules, energy.resolution_joules, energy.refusal) == (1.0, 0.001 / 50, None)
    assert energy_of(told(busy=70.0, counts=False)).resolution_joules == 0.001 * 20 / 50


def test_a_meter_slower_than_the_run_is_refused() -> None:
    energy = energy_of(told(busy=70.0, updates=3))
    assert energy.joules is None
    assert (
        energy.refusal == "rapl package-0 changed 3 times in 20.0 s, and a figure wants 10: measure for longer (--energy-duration)"
    )
    assert "no more than at rest" in str(energy_of(told(busy=20.0)).refusal)


class StandInMeter(KernelFiles):
    """A stand-in for meters that this machine does not have: files as the kernel would write them."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.stopped = threading.Event()

    def count(self, watts: float, period_s: float) -> threading.Thread:
        """RAPL's counter of microjoules, which begins again at a joule."""
        self.write("class/powercap/intel-rapl:0/name", "package-0")
        self.write("class/powercap/intel-rapl:0:0/name", "core")
        self.write("class/powercap/intel-rapl:0/max_energy_range_uj", "1000000")
        self.write("class/powercap/intel-rapl:0/energy_uj", "0")

        def tick() -> None:
            start = time.monotonic()
            while not self.stopped.wait(period_s):
                joules = watts * (time.monotonic() - start)
                self.write("class/powercap/intel-rapl:0/energy_uj", str(int(joules * 1e6) % 1_000_000))

        thread = threading.Thread(target=tick)
        thread.start()
        return thread


@pytest.fixture
def meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInMeter:
    made = StandInMeter(tmp_path / "stand-in-sys")
    made.add_device("metered", monkeypatch)
    return made


def energy(tmp_path: Path, seconds: float) -> tuple[Energy | None, list[str]]:
    model = save_encoder(tmp_path / "m.onnx", embedding_table())
    record = run_benches([model], replace(QUICK, energy_s=seconds), devices=["metered"])[0]
    assert record.failure is None
    return record.energy, record.validity.notes


def test_rapl_counts_and_begins_again(meter: StandInMeter, tmp_path: Path) -> None:
    thread = meter.count(watts=2.0, period_s=0.002)
    try:
        found, _ = energy(tmp_path, 1.2)
    finally:
        meter.stopped.set()
        thread.join()
    assert found is not None
    assert (found.source, found.counts) == ("rapl package-0", True)
    # Two watts all the time, whatever this machine is busy with: joules go with time, in both spans.
    for span in (found.idle, found.busy):
        assert span.joules / (span.duration_ns / 1e9) == pytest.approx(2.0, rel=0.5)
    assert found.busy.updates > 1


def test_a_slow_counter_is_refused(meter: StandInMeter, tmp_path: Path) -> None:
    meter.write("class/powercap/intel-rapl:0/name", "package-0")
    meter.write("class/powercap/intel-rapl:0/energy_uj", "5")
    found, notes = energy(tmp_path, 0.1)
    assert found is not None
    assert found.joules is None
    assert any(note.startswith("energy is refused: rapl package-0 changed 0 times") for note in notes)


def test_a_meter_that_goes_in_the_middle_is_no_figure(meter: StandInMeter, tmp_path: Path) -> None:
    """Its file is a pipe, which tells three numbers, whenever they are asked for, and then none, however often it is asked."""
    meter.write("class/powercap/intel-rapl:0/name", "package-0")
    pipe = meter.root / "class/powercap/intel-rapl:0/energy_uj"
    os.mkfifo(pipe)

    def tell() -> None:
        for text in itertools.chain((1, 2, 3), itertools.repeat("gone")):
            with contextlib.suppress(BrokenPipeError):  # whoever asked has gone
                pipe.write_text(f"{text}\n")

    threading.Thread(target=tell, daemon=True).start()
    model = save_encoder(tmp_path / "m.onnx", embedding_table())
    record = run_benches([model], replace(QUICK, energy_s=0.1), devices=["metered"])[0]
    assert record.energy is None
    assert "energy_uj must be readable as long as energy is measured" in str(record.failure)


def test_an_ina_sensor_tells_watts(meter: StandInMeter, tmp_path: Path) -> None:
    for chip in range(2):
        meter.write(f"class/hwmon/hwmon{chip}/name", "ina231")
        meter.write(f"class/hwmon/hwmon{chip}/power1_input", "3000000")
        meter.write(f"class/hwmon/hwmon{chip}/update_interval", "10")
    found, _ = energy(tmp_path, 0.2)
    assert found is not None
    assert (found.source, found.counts) == ("hwmon ina231, the first of 2", False)
    assert found.busy.joules / (found.busy.duration_ns / 1e9) == pytest.approx(3.0, rel=1e-3)


def test_a_raspberry_pis_controller_by_its_rails(meter: StandInMeter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "stand-in-bin" / "vcgencmd"
    program.parent.mkdir()
    lines = ["3V3_SYS_A current(0)=0.5A", "VDD_CORE_A current(7)=2.0A", "3V3_SYS_V volt(8)=3.0V", "VDD_CORE_V volt(15)=0.75V"]
    lines.append("EXT5V_V volt(24)=5.1V")
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    found, _ = energy(tmp_path, 0.3)
    assert found is not None
    assert found.source == "vcgencmd pmic_read_adc"
    assert found.busy.joules / (found.busy.duration_ns / 1e9) == pytest.approx(0.5 * 3.0 + 2.0 * 0.75, rel=1e-3)


def test_without_a_meter_the_record_says_so(meter: StandInMeter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, notes = energy(tmp_path, 0.1)
    assert found is None
    assert any(note.startswith("energy is not measured: energy needs RAPL") for note in notes)
