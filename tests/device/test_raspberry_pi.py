"""On the Raspberry Pi stand-in, by the real ssh client: figures, and everything that may go wrong on the way."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import executorch_programs
import numpy as np
import pytest
from on_device import QUICK, bundle_with, given, programs_on, save_expansion
from onnx_models import embedding_table, save_encoder
from raspberry_pi import RaspberryPi, make_key

from edgecomp.bench.job import Job
from edgecomp.bench.options import BenchOptions
from edgecomp.bench.record import Record, Round
from edgecomp.bench.runner import run_benches
from edgecomp.cli import main
from edgecomp.devices.base import Completed
from edgecomp.devices.ssh import SshDevice
from edgecomp.errors import CheckpointError, ConfigError, DeviceError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_encoder(tmp_path / "m.onnx", embedding_table(), external=True)


def bench(model: Path, pi: RaspberryPi, bundle: Path, options: BenchOptions = QUICK, url: str | None = None) -> Record:
    return run_benches([model], options, devices=[url or pi.url], bundle=bundle)[0]


def failure_of(record: Record) -> str:
    """What is wrong with a partial record, which must say so wherever it is shown."""
    assert record.failure is not None
    assert not record.validity.valid
    assert record.validity.reasons[0] == record.failure
    return record.failure


def test_minilm_computes_the_same_and_takes_less_memory(pi: RaspberryPi, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the packed model adds to an empty runtime, against its float32 ONNX: 0.35 or less."""
    packed, dense = given("EDGECOMP_TEST_PACKED"), given("EDGECOMP_TEST_DENSE")
    options = BenchOptions(sequence=32, rounds=1, warmup=1, min_iterations=2, min_duration_s=0, max_spread=1e9)
    records = run_benches([packed, dense], options, devices=["local", pi.url], bundle=bundle)
    added = {}
    for record in records:
        assert record.failure is None
        if record.device == "local":
            continue
        assert record.parity is not None
        assert record.parity.relative_difference is not None
        # Sums in another order: a last digit of float32; with the packed model's int8 activations as much as between two of this
        # machine's own instruction sets (0.01).
        assert record.parity.relative_difference < (0.05 if record is records[1] else 1e-5)
        assert record.summary is not None
        assert record.summary.latency is None
        assert record.summary.above_empty_session is not None
        added[record.artifact.name] = record.summary.above_empty_session.resident_bytes
    ratio = added[packed.name] / added[dense.name]
    differences = [record.parity.relative_difference for record in records if record.parity is not None]
    with capsys.disabled():  # the figure belongs in CI's log
        sys.stdout.write(f"\nadded to an empty runtime: {added}, ratio {ratio:.3f}; outputs differ by {differences}\n")
    assert ratio <= 0.35


def test_one_table_of_all_devices(
    pi: RaspberryPi, bundle: Path, tied_program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each artifact here, over ssh and emulated: what each device can tell, and nothing else."""
    model = executorch_programs.save_tied_onnx(tmp_path)
    devices = ["local", pi.url, "qemu://cortex-a76"]
    command = ["bench", str(model), str(tied_program), *(word for url in devices for word in ("--device", url))]
    command += ["--bundle", str(bundle), "--rounds", "1", "--min-iterations", "3", "--min-duration", "0", "--quiet", "-s", "8"]
    command += ["--operators", "--outputs", str(tmp_path / "outputs"), "--save", str(tmp_path / "bench.json")]
    assert main(command) == 0
    table = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()]
    rows = [dict(zip(table[0], cells, strict=True)) for cells in table[2:8]]
    assert [(row["model"].removesuffix(" !"), row["device"]) for row in rows] == [
        (artifact.name, url) for artifact in (model, tied_program) for url in devices
    ]
    for row, (timed, remembered) in zip(rows, [(True, True), (False, True), (False, False)] * 2, strict=True):
        assert (row["p50 ms"] != "-", row["cold load ms"] != "-") == (timed, timed)
        assert (row["anon MiB"] != "-", row["peak MiB"] != "-") == (remembered, remembered)
    for record in json.loads((tmp_path / "bench.json").read_text(encoding="utf-8")):
        assert record["failure"] is None
        assert (record["operators"] is not None) == (record["device"] == "local")
        if record["device"] != "local":
            assert record["parity"]["relative_difference"] < 1e-5
    for artifact in (model, tied_program):
        folder = tmp_path / "outputs" / artifact.name
        assert sorted(path.name for path in folder.iterdir()) == [
            *("inputs.npz", "local.npz", "qemu-cortex-a76.npz", "ssh-raspberrypi.npz"),
        ]
        here, there = np.load(folder / "local.npz"), np.load(folder / "ssh-raspberrypi.npz")
        for name in here:
            np.testing.assert_allclose(there[name], here[name], rtol=1e-3, atol=1e-4)
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "report.html")]) == 0


def test_doctor_says_what_the_device_is(pi: RaspberryPi, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", pi.url, "--bundle", str(bundle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["cpu_model"], found["cpu_count"], found["emulation"]) == ("ARM Cortex-A72", 2, "machine")
    assert found["cpu_features"] == ["asimd"]
    assert found["folder"] == "/root/.cache/edgecomp"
    assert 0.9e9 < found["memory_bytes"] < 1.1e9
    assert found["free_bytes"] > 0
    assert found["runs"] == [".onnx", ".ort", ".pte"]


def test_what_is_there_is_not_brought_again(pi: RaspberryPi, bundle: Path, model: Path) -> None:
    assert bench(model, pi, bundle).failure is None
    before = pi.shell("cd .cache/edgecomp/objects && ls -l --full-time * 2>/dev/null || ls -lR")
    assert bench(model, pi, bundle).failure is None
    assert pi.shell("cd .cache/edgecomp/objects && ls -l --full-time * 2>/dev/null || ls -lR") == before


def test_a_host_that_does_not_answer(pi: RaspberryPi, bundle: Path, model: Path) -> None:
    url = "ssh://root@127.0.0.1:9"
    reached, failed = run_benches([model], QUICK, devices=["local", url], bundle=bundle)
    assert reached.failure is None  # the other device's figures are kept
    assert "ssh server must run there" in failure_of(failed)
    assert (failed.rounds, failed.summary, failed.environment) == ([], None, None)


def test_a_key_that_is_not_known(
    pi: RaspberryPi, bundle: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    known = f"IdentityFile {given('EDGECOMP_TEST_PI')}/id_ed25519"
    config.write_text(pi.ssh_config.read_text().replace(known, f"IdentityFile {make_key(tmp_path)}"))
    monkeypatch.setenv("EDGECOMP_SSH_COMMAND", f"ssh -F {config}")
    assert "ssh-copy-id" in failure_of(bench(model, pi, bundle))


def test_no_room_on_the_device(pi: RaspberryPi, bundle: Path, model: Path) -> None:
    """/small holds 2 MiB."""
    assert "must have room for" in failure_of(bench(model, pi, bundle, url=f"{pi.url}/small"))


def test_a_disk_that_fills_while_files_are_copied(
    pi: RaspberryPi, bundle: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/filling has room for the bundle when it is asked, and somebody else takes the room after the first file."""
    upload, copied = SshDevice.upload, []

    def upload_beside_another(device: SshDevice, source: Path, target: str) -> Completed:
        if len(copied) == 1:
            pi.shell("dd if=/dev/zero of=/filling/other bs=1M 2>/dev/null; true")
        copied.append(target)
        return upload(device, source, target)

    monkeypatch.setattr(SshDevice, "upload", upload_beside_another)
    try:
        reached, record = run_benches([model], QUICK, devices=["local", f"{pi.url}/filling"], bundle=bundle)
    finally:
        pi.shell("rm -f /filling/other")
    assert reached.failure is None
    failure = failure_of(record)
    assert "was full before it was copied; make room there" in failure
    assert "\n" not in failure
    assert (record.rounds, record.summary) == ([], None)
    assert pi.shell("cd /filling/edgecomp && ls -A objects incoming runs").split() == ["incoming:", "objects:", "runs:"]


def test_a_folder_that_programs_may_not_run_in(pi: RaspberryPi, bundle: Path, model: Path, tmp_path: Path) -> None:
    other = bundle_with(bundle, tmp_path / "other", "int main() {}")
    assert "noexec" in failure_of(bench(model, pi, other, url=f"{pi.url}/noexec"))


def test_a_machine_of_another_architecture(pi: RaspberryPi, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system of 32 bits, as far as it tells."""
    shell = SshDevice.shell
    monkeypatch.setattr(
        SshDevice, "shell", lambda self, script, timeout_s: shell(self, script.replace("uname -m", "echo armv7l"), timeout_s)
    )
    reached, failed = run_benches([model], QUICK, devices=["local", pi.url])
    assert reached.failure is None
    assert "must be aarch64, as its `uname -m` says it, got armv7l" in failure_of(failed)


def test_a_bundle_for_another_machine(pi: RaspberryPi, bundle: Path, model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    description = json.loads((other / "bundle.json").read_text())
    (other / "bundle.json").write_text(json.dumps({**description, "architecture": "x86_64", "files": []}))
    with pytest.raises(ConfigError, match=r"the device is aarch64, and the bundle in .* is for x86_64"):
        bench(model, pi, other)


def test_a_program_of_another_machine(pi: RaspberryPi, bundle: Path, model: Path, tmp_path: Path) -> None:
    """The description says aarch64, the program is this machine's."""
    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    shutil.copy(sys.executable, other / "edgecomp-run-onnxruntime")
    with pytest.raises(CheckpointError, match="edgecomp-run-onnxruntime must be a program or library for aarch64"):
        bench(model, pi, other)


def test_an_instruction_that_the_processor_lacks(pi: RaspberryPi, bundle: Path, model: Path, tmp_path: Path) -> None:
    """SDOT on a Cortex-A72."""
    source = 'int main() { __asm__ volatile("sdot v0.4s, v1.16b, v2.16b"); }'
    other = bundle_with(bundle, tmp_path / "other", source, "-march=armv8.2-a+dotprod")
    assert "an instruction that the processor does not have" in failure_of(bench(model, pi, other))


def test_no_memory_left(pi: RaspberryPi, bundle: Path, tmp_path: Path) -> None:
    """900 MB on a machine of 1 GiB: it promises them, has not got them, and kills the program."""
    model = save_expansion(tmp_path / "large.onnx", 225_000_000)
    assert "no memory left" in failure_of(bench(model, pi, bundle))


def test_a_round_that_takes_too_long(pi: RaspberryPi, bundle: Path, model: Path, tmp_path: Path) -> None:
    other = bundle_with(bundle, tmp_path / "other", "#include <unistd.h>\nint main() { alarm(1); pause(); }")
    assert "--timeout" in failure_of(bench(model, pi, other))


def test_outputs_that_are_too_large(pi: RaspberryPi, bundle: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecomp.bench.job._LARGEST_OUTPUTS_BYTES", 1000)
    assert "at most 1000 are brought back" in failure_of(bench(model, pi, bundle))


@contextlib.contextmanager
def clock_set_again_and_again(pi: RaspberryPi) -> Iterator[None]:
    script = "i=0; while [ $i -lt 120 ]; do date -s @$((2000000000 + i * 1000)) >/dev/null; i=$((i + 1)); sleep 0.5; done"
    setter = subprocess.Popen([*pi.ssh_command, "raspberrypi", script], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        setter.kill()
        setter.wait()
        for number in programs_on(pi, "[d]ate -s"):
            pi.shell(f"kill {number} 2>/dev/null; true")


def test_a_clock_that_jumps(pi: RaspberryPi, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_expansion(tmp_path / "slow.onnx", 2**23)  # a sample of some milliseconds
    monkeypatch.setattr("edgecomp.bench.job._EMULATED_SAMPLES", 200)
    with clock_set_again_and_again(pi):
        record = bench(model, pi, bundle)
    assert record.failure is None
    assert not record.validity.valid
    assert "clock jump" in record.validity.reasons[0]


def test_ctrl_c_leaves_nothing(pi: RaspberryPi, bundle: Path, tmp_path: Path) -> None:
    other = bundle_with(bundle, tmp_path / "other", "#include <unistd.h>\nint main() { sleep(100); }")
    model = save_encoder(tmp_path / "m.onnx", embedding_table())
    command = [sys.executable, "-P", "-m", "edgecomp", "bench", str(model), "--device", pi.url, "--bundle", str(other), "--quiet"]
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, previous)
    while process.poll() is None and not programs_on(pi, "[e]dgecomp-run"):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.splitlines()[-1].startswith("edgecomp bench: interrupted")


def test_a_device_that_goes_in_the_middle(pi: RaspberryPi, bundle: Path, model: Path) -> None:
    """Its processor stops before the second round, and goes on when the session has given up."""
    options = replace(QUICK, rounds=2)

    def stop_after_first_round(job: Job, _: Round) -> dict[str, np.ndarray]:
        if job.url != "local":
            os.kill(pi.process.pid, signal.SIGSTOP)
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgecomp.bench.job.Job.pull_outputs", stop_after_first_round)
        try:
            record = run_benches([model], options, devices=["local", pi.url], bundle=bundle)[1]
        finally:
            os.kill(pi.process.pid, signal.SIGCONT)
    assert len(record.rounds) == 1
    assert record.summary is not None
    assert "is not reached" in failure_of(record)
    # What such a session leaves goes when it is a day old.
    pi.shell("touch -d '2020-01-01' .cache/edgecomp/runs/* 2>/dev/null; true")
    assert bench(model, pi, bundle).failure is None


def test_errors_end_the_command_and_save_the_records(
    pi: RaspberryPi, bundle: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", str(model), "--device", "local", "--device", "ssh://root@127.0.0.1:9", "--bundle", str(bundle)]
    command += ["--rounds", "1", "--min-duration", "0", "--quiet", "-s", "8", "--save", str(tmp_path / "bench.json")]
    assert main(command) == DeviceError.exit_code
    printed = capsys.readouterr()
    assert "| m.onnx ! | ssh://root@127.0.0.1:9 |" in printed.out
    assert printed.err.splitlines()[-1].startswith("edgecomp bench: error: ssh://root@127.0.0.1:9 is not reached")
    saved = [Record.model_validate(value) for value in json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))]
    assert [record.failure is None for record in saved] == [True, False]
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "report.html")]) == 0
    assert "Connection refused" in (tmp_path / "report.html").read_text(encoding="utf-8")
