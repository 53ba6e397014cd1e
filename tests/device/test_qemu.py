"""Emulated processors: real programs, exact counts, no times."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from on_device import QUICK
from onnx_models import embedding_table, save_encoder
from packed_models import chain_model, features, linear, plan, random_factor

from edgecomp.bench.output import format_records
from edgecomp.bench.runner import run_benches
from edgecomp.devices import open_device
from edgecomp.errors import ConfigError
from edgecomp.exporters import export


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed layer of 4 bits."""
    path = tmp_path_factory.mktemp("packed") / "packed.onnx"
    model = chain_model({"fc": plan([linear("w")])}, {"w": random_factor(64, 128, seed=0)}, features(128), "int8")
    export(model, "onnx", path)
    return path


def test_instructions_are_the_same_each_time(packed: Path, bundle: Path) -> None:
    options = replace(QUICK, rounds=3, count_instructions=True)
    (record,) = run_benches([packed], options, devices=["qemu://cortex-a76"], bundle=bundle)
    counts = [round_.instructions for round_ in record.rounds]
    assert record.summary is not None
    assert len(counts) == 3
    assert counts[0] is not None
    assert counts == [counts[0]] * 3
    assert record.summary.instructions == counts[0] // len(record.rounds[0].measurement.samples_ns)
    # 64 x 128 weights: fewer than one instruction for each would be none of ours, more than ten no fast kernel.
    assert 64 * 128 * 0.1 < record.summary.instructions < 64 * 128 * 10


def test_every_processor_computes_the_same_by_the_kernels_it_has(packed: Path, bundle: Path) -> None:
    devices = ["local", "qemu://cortex-a72", "qemu://cortex-a76"]
    host, a72, a76 = run_benches([packed], QUICK, devices=devices, bundle=bundle)
    for record, variant in ((a72, "neon"), (a76, "neon_dotprod")):
        assert record.rounds[0].measurement.kernels["lut_matmul"] == variant
        assert record.parity is not None
        assert record.parity.relative_difference is not None
        assert record.parity.relative_difference < 1e-5
        assert record.validity.valid
    assert host.summary is not None
    assert host.summary.latency is not None


def test_no_time_and_no_memory_of_an_emulator_is_shown(packed: Path, bundle: Path) -> None:
    records = run_benches([packed], QUICK, devices=["qemu://cortex-a72"], bundle=bundle)
    table = [[cell.strip() for cell in line.split("|")] for line in format_records(records, "md").splitlines()]
    row = dict(zip(table[0], table[2], strict=True))
    for head in ("p50 ms", "p90 ms", "p99 ms", "inf/s", "cold load ms", "first ms", "anon MiB", "file-backed MiB", "peak MiB"):
        assert row[head] == "-"
    assert "emulated: times and memory say nothing" in format_records(records, "md")


def test_instructions_are_counted_on_emulated_devices_alone(bundle: Path, tmp_path: Path) -> None:
    model = save_encoder(tmp_path / "m.onnx", embedding_table())
    with pytest.raises(ConfigError, match="emulated devices alone"):
        run_benches([model], replace(QUICK, count_instructions=True))
    local, emulated = run_benches(
        [model], replace(QUICK, count_instructions=True), devices=["local", "qemu://cortex-a72"], bundle=bundle
    )
    assert local.rounds[0].instructions is None
    assert emulated.rounds[0].instructions is not None


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("qemu://pentium", "cortex-a53, cortex-a72, cortex-a76, max"),
        ("ftp://somewhere", "a device must be local, ssh://"),
        ("ssh://", "must name its host"),
        ("ssh://host:port", "port of ssh://host:port must be a number"),
        ("ssh://-oProxyCommand=x", "must not begin with '-'"),
        ("local://there", "takes no address"),
    ],
)
def test_urls_that_lead_nowhere(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message), open_device(url):
        pass
