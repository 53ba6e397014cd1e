"""On a kernel with pages of 16 KiB, as a Raspberry Pi 5 has it: files are mapped and compute what they do here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from on_device import given, left_on
from raspberry_pi import RaspberryPi

from edgecomp.acceptance.golden import selftest, write_golden
from edgecomp.bench.options import BenchOptions
from edgecomp.bench.runner import run_benches

pytestmark = pytest.mark.long

PAGE = 16 * 1024


@pytest.fixture(scope="module")
def pi5(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RaspberryPi]:
    image = given("EDGECOMP_TEST_PI5")
    pi = RaspberryPi(image, tmp_path_factory.mktemp("pi5"), image / "id_ed25519", "cortex-a76")
    yield pi
    pi.stop()


def test_minilm_runs_and_repeats_its_golden_outputs(
    pi5: RaspberryPi, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECOMP_SSH_COMMAND", " ".join(pi5.ssh_command))
    assert "16 kB" in pi5.shell("grep -m 1 KernelPageSize /proc/self/smaps")
    packed = given("EDGECOMP_TEST_PACKED")
    for path in [*packed.parent.glob(f"{packed.name}*"), packed.with_suffix(".pte")]:
        shutil.copy(path, tmp_path)
    models = [tmp_path / packed.name, tmp_path / packed.with_suffix(".pte").name]
    options = BenchOptions(sequence=16, rounds=1, warmup=1, min_iterations=2, min_duration_s=0, max_spread=1e9)
    for record in run_benches(models, options, devices=["local", pi5.url], bundle=bundle):
        assert record.failure is None
        if record.device == "local":
            continue
        assert record.parity is not None
        assert record.parity.relative_difference is not None
        assert record.parity.relative_difference < 0.05
        memory = record.rounds[0].measurement.memory.steady
        # Mapped as it lies in its file, a whole page at a time.
        assert memory.artifact_file_backed_bytes > 0.5 * record.artifact.bytes
        assert memory.artifact_file_backed_bytes % PAGE == memory.anonymous_bytes % PAGE == 0
    for model in models:
        write_golden(model, 2, overwrite=True)
        assert selftest(model, device=pi5.url, bundle=bundle).passed
    assert left_on(pi5) == []
