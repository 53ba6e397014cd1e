"""With the library a model's weights stay in pages of its file, which the system can drop: no copy of them is made."""

from __future__ import annotations

from pathlib import Path

import pytest
from packed_models import chain_model, features, linear, plan, random_factor

from edgecomp import native
from edgecomp.bench.options import BenchOptions
from edgecomp.bench.runner import run_bench
from edgecomp.exporters import export
from edgecomp.tensor import COMPUTE_MODES, Compute

SHAPES = [(4096, 1024), (1024, 4096)] * 3


@pytest.mark.parametrize("compute", COMPUTE_MODES)
def test_the_library_makes_no_copy_of_the_weights(tmp_path: Path, compute: Compute) -> None:
    """Six matrices of 4 bits, 13.5 MB; a copy of one as int8 would be 4.2 MB. The activations and their arena take 2.5 MB."""
    model = chain_model(
        {f"fc{i}": plan([linear(str(i))]) for i in range(len(SHAPES))},
        {str(i): random_factor(n, k, seed=i) for i, (n, k) in enumerate(SHAPES)},
        features(1024),
        compute,
    )
    size = export(model, "onnx", tmp_path / "model.onnx").total_bytes
    record = run_bench(tmp_path / "model.onnx", BenchOptions(rounds=1, min_iterations=5, min_duration_s=0, max_spread=1e9))
    assert record.rounds[0].measurement.kernels == native.selected_variants()
    memory = record.rounds[0].measurement.memory
    for moment in (memory.loaded, memory.first_inference, memory.steady):
        assert moment.anonymous_bytes - memory.empty_session.anonymous_bytes < size / 4
    # The whole file was read, so the weights are there and not somewhere that this test does not look.
    assert memory.steady.artifact_file_backed_bytes > 0.9 * size
