"""Language models on devices: the tokens that this machine writes, whatever leads there, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from on_device import QUICK, bundle_with, programs_on
from raspberry_pi import RaspberryPi

from edgecomp.bench.runner import run_benches
from edgecomp.cli import main
from edgecomp.errors import DeviceError

TEXT = "the quick brown fox"
TOKENS = replace(QUICK, prompt_tokens=(16,), generate_tokens=(4,), depths=(0, 9), repetitions=1)


def generate(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    """What `generate --json` tells."""
    assert main(["generate", str(folder), "--prompt", TEXT, "-n", "12", "--json", "--quiet", *arguments]) == 0
    told: dict[str, object] = json.loads(capsys.readouterr().out)
    return told


@pytest.mark.parametrize("kind", ["fused_folder", "portable_folder"])
@pytest.mark.parametrize("sampled", [[], ["--temperature", "1.2", "--top-k", "20", "--seed", "5"]])
def test_emulated_processors_write_the_same(
    kind: str, sampled: list[str], bundle: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = request.getfixturevalue(kind)
    here = generate(folder, capsys, *sampled)["turns"]
    for processor in ("cortex-a72", "cortex-a76"):
        there = generate(folder, capsys, *sampled, "--device", f"qemu://{processor}", "--bundle", str(bundle))
        assert [turn["text"] for turn in there["turns"]] == [turn["text"] for turn in here]  # type: ignore[attr-defined]
        assert there["peak_bytes"] is None  # an emulator's memory says nothing, nor do its times
        assert there["turns"][0]["tokens_per_s"] is None  # type: ignore[index]


def test_tests_of_tokens_on_emulated_processors(fused_folder: Path, bundle: Path) -> None:
    options = replace(TOKENS, count_instructions=True)
    records = run_benches([fused_folder], options, devices=["local", "qemu://cortex-a72"], bundle=bundle, quiet=True)
    assert [record.test for record in records[::2]] == ["pp16", "tg4", "pp16 @ d9", "tg4 @ d9"]
    for record in records[1::2]:
        assert (record.failure, record.validity.reasons) == (None, [])
        assert record.parity is not None
        assert record.summary is not None
        assert record.summary.instructions
        assert record.summary.latency is None


def test_a_board_over_ssh(pi: RaspberryPi, fused_folder: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = generate(fused_folder, capsys)
    there = generate(fused_folder, capsys, "--device", pi.url, "--bundle", str(bundle))
    assert there["turns"][0]["text"] == here["turns"][0]["text"]  # type: ignore[index]
    assert 1 << 20 < there["anonymous_bytes"] <= there["peak_bytes"]  # type: ignore[operator]
    records = run_benches([fused_folder], replace(TOKENS, depths=(0,)), devices=[pi.url], bundle=bundle, quiet=True)
    for record in records:
        assert record.failure is None
        assert record.summary is not None
        assert record.summary.steady is not None
        assert record.rounds[0].measurement.cache_bytes > 0


def test_a_board_that_goes_in_the_middle(
    pi: RaspberryPi, fused_folder: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its processor stops once the model is loaded, and goes on when the command has given up."""

    def stop(*_: object) -> None:
        os.kill(pi.process.pid, signal.SIGSTOP)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgecomp.generation.on_device.require_room", stop)
        try:
            code = main(["generate", str(fused_folder), "--prompt", TEXT, "--device", pi.url, "--bundle", str(bundle)])
        finally:
            os.kill(pi.process.pid, signal.SIGCONT)
    assert code == DeviceError.exit_code
    assert "is not reached" in capsys.readouterr().err
    pi.shell("touch -d '2020-01-01' .cache/edgecomp/runs/* 2>/dev/null; true")
    generate(fused_folder, capsys, "--device", pi.url, "--bundle", str(bundle))  # which removes what is a day old


def test_ctrl_c_leaves_nothing_on_a_board(pi: RaspberryPi, fused_folder: Path, bundle: Path, tmp_path: Path) -> None:
    other = bundle_with(bundle, tmp_path / "other", "#include <unistd.h>\nint main() { sleep(100); }")
    command = [sys.executable, "-P", "-m", "edgecomp", "generate", str(fused_folder), "--prompt", TEXT, "--library", "none"]
    command += ["--device", pi.url, "--bundle", str(other)]
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, previous)
    while process.poll() is None and not programs_on(pi, "[e]dgecomp-run"):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "interrupted" in said.splitlines()[-1]
