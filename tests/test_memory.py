"""What a system says of its memory, and what is refused for want of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import edgecomp
from edgecomp import calibration, memory
from edgecomp.errors import CalibrationError, ConfigError
from edgecomp.layers import find_layers
from edgecomp.walk import Walk, find_structure

CPU = torch.device("cpu")
MIB = 1 << 20


def system(root: Path, groups: str, files: dict[str, int | str]) -> Path:
    """A root of 1000 MiB available and 24 MiB of swap, with these control groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        f"MemTotal: {4000 * 1024} kB\nMemFree: 5 kB\nMemAvailable: {1000 * 1024} kB\nSwapFree: {24 * 1024} kB\nHugePages_Total: 0\n"
    )
    (root / "proc/self/cgroup").write_text(groups)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content * MIB if isinstance(content, int) else content}\n")
    return root


STAT = f"anon 5\nactive_file {30 * MIB}\ninactive_file {70 * MIB}\ntotal_active_file {3 * MIB}\ntotal_inactive_file {7 * MIB}"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {}, 1000),
        ("0::/\n", {"memory.max": "max", "memory.current": 100}, 1000),
        ("0::/a/b\n", {"a/memory.max": 500, "a/memory.current": 400, "a/memory.stat": STAT, "a/b/memory.max": "max"}, 200),
        ("0::/a/b\n", {"a/memory.max": 500, "a/memory.current": 100, "a/b/memory.max": 90, "a/b/memory.current": 80}, 10),
        ("0::/a\n", {"a/memory.max": 90, "a/memory.current": 95}, 0),
        ("0::/../../other\n", {"memory.max": 300, "memory.current": 100}, 200),  # a container's, whose group is its own root
        ("1:name=systemd:/\n", {"memory/memory.limit_in_bytes": 9, "memory/memory.usage_in_bytes": 1}, 1000),
        ("4:cpu,memory:/a\n", {"memory/a/memory.limit_in_bytes": 50, "memory/a/memory.usage_in_bytes": 40}, 10),
        (
            "4:memory:/docker/1\n0::/\n",
            {"memory/memory.limit_in_bytes": 50, "memory/memory.usage_in_bytes": 40, "memory/memory.stat": STAT},
            20,
        ),
    ],
)
def test_what_is_available_is_the_least_of_all_limits(
    tmp_path: Path, groups: str, files: dict[str, int | str], expected: int
) -> None:
    assert memory.available_bytes(system(tmp_path, groups, files)) == (expected + 24) * MIB


def test_of_a_system_that_says_nothing_nothing_is_known(tmp_path: Path) -> None:
    assert memory.available_bytes(tmp_path) is None


def test_this_system_has_some() -> None:
    available = memory.available_bytes()
    assert available is None or available > 0


def test_each_device_has_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 100)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (200, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 20)
    for device, most in (("cpu", 100), ("cuda", 230)):
        memory.require_memory(most, "it", "take less", torch.device(device))
        with pytest.raises(ConfigError, match=f"available on {device}: take less"):
            memory.require_memory(most + 1, "it", "take less", torch.device(device))
    memory.require_memory(1 << 60, "it", "take less", torch.device("meta"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system with 1 MB left."""
    monkeypatch.setattr(memory, "available_bytes", lambda: 1_000_000)


class Wide(nn.Module):
    """A layer of many inputs, which counts how often it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.wide = nn.Linear(64, 256), nn.Linear(256, 64)
        self.runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        y: Tensor = self.wide(self.first(x))
        return y


QUICK = [{"method": "lut-kmeans", "refits": 0, "bits": 3}]


def recipe(**settings: object) -> dict[str, object]:
    return {"version": 1, "name": "one", "passes": [{"method": "lut-kmeans", "refits": 0, **settings}]}


X = {"x": torch.ones(2, 64).numpy()}


@pytest.mark.usefixtures("small")
def test_a_hessian_that_does_not_fit_is_refused_before_the_walk() -> None:
    model = Wide()
    message = (
        "weighting the errors of wide by a Hessian of 256 columns needs 1.3 MB of memory, and 1.0 MB are available on cpu: weight "
        'them by its diagonal, weighting = "activations" (--set passes.0.weighting=activations), or leave the layer out with skip'
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        edgecomp.compress(model, recipe(weighting="hessian"), [X])
    assert model.runs <= 1  # for the names of its outputs
    edgecomp.compress(model, recipe(weighting="activations"), [X])
    edgecomp.compress(model, recipe(weighting="hessian", skip=["wide"]), [X])


@pytest.mark.usefixtures("small")
def test_hidden_states_that_do_not_fit_are_refused_at_the_first_sample() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    batches = [[torch.ones(rows, 8)] for rows in (1000, 5000, 27000)]
    walk = Walk(model, find_structure(model, batches[0], {}), find_layers(model), batches, CPU)
    with pytest.raises(ConfigError, match=r"what 3 samples give between the blocks of the model needs 1\.1 MB.*--samples"):
        list(walk.units()[0].run())
    assert not walk.values
    walk = Walk(model, find_structure(model, batches[0], {}), find_layers(model), batches[:2], CPU)
    list(walk.units()[0].run())


@pytest.mark.usefixtures("small")
def test_learning_that_does_not_fit_is_refused_before_the_first_pass() -> None:
    model, learning = Wide(), {"method": "jlcm", "steps": 2, "batch": 1}
    with pytest.raises(
        ConfigError,
        match=r"learning 2 factors of 32,768 weights end to end needs 3\.4 MB of .*steps=0.*candidates.*straight-through.*skip",
    ):
        edgecomp.compress(model, {"version": 1, "passes": [*QUICK, {**learning, "candidates": 64}]}, [X])
    assert model.runs <= 3  # for the names of its outputs, and for its blocks
    positions = {**learning, "map_gradient": "straight-through"}
    edgecomp.compress(model, {"version": 1, "passes": [*QUICK, positions]}, [X])


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 4 EiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_memory_that_ends_is_not_called_a_wrong_input(error: Exception) -> None:
    class Large(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise error

    with pytest.raises(CalibrationError, match=r"fit into memory while it runs, but takes more on float32 \[1\]: give smaller"):
        calibration.run_module(Large(), [torch.ones(1)])
