"""The C++ library's fit against PyTorch's: the same bits for every instruction set and any number of threads."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from edgecomp import native
from edgecomp.errors import RuntimeUnavailableError
from edgecomp.fitting import lut_fit, native_fit
from edgecomp.fitting.kmeans import kmeans_1d
from edgecomp.tensor import Factor

# N, K, block size, largest entry; matrices have a row of zeros, a block of zeros, an outlier, and ties.
CASES = [(40, 96, 32, 127), (17, 33, 64, 127), (100, 256, 128, 31), (5, 7, 32, 63)]


def case(n: int, k: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    matrix = torch.randn(n, k, generator=generator)
    matrix[n // 2] = 0
    matrix[0, :32] = 0
    matrix[1, 1] = 40
    matrix[2] = matrix[2].round()
    return matrix, torch.rand(k, generator=generator) ** 4


def fitted(bits: int, threads: int = 2) -> list[Factor]:
    torch.set_num_threads(threads)
    settings = [{"bits": bits, "block_size": block_size, "refits": 7, "largest_entry": most} for _, _, block_size, most in CASES]
    fits = [lut_fit.fit_lut(*case(n, k), **s) for (n, k, _, _), s in zip(CASES, settings, strict=True)]
    return [fit.factor for fit in fits]


def digest(factors: list[Factor]) -> str:
    content = hashlib.sha256()
    for factor in factors:
        for name, array in sorted(factor.arrays.items()):
            content.update(name.encode() + array.tobytes())
    return content.hexdigest()


@pytest.mark.parametrize("bits", range(1, 9))
def test_pytorch_and_the_library_fit_alike_to_the_bit(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = digest(fitted(bits))
    monkeypatch.setattr(lut_fit, "_NativeFitter", lut_fit._TorchFitter)
    assert digest(fitted(bits)) == expected


WORKER = """
import json, sys
sys.path.append(sys.argv[1])
import test_tile_fit as t
print(json.dumps([t.digest(t.fitted(bits, 1)) for bits in range(1, 9)]))
"""


def test_instruction_sets_and_threads_fit_alike_to_the_bit() -> None:
    expected = [digest(fitted(bits, threads=3)) for bits in range(1, 9)]
    sets = [v.name for v in native.variants() if v.available and v.name in ("avx512_vnni", "avx2", "neon", "ref")]
    assert "ref" in sets
    for name in sets:
        environment = os.environ | {"EDGECOMP_FORCE_ISA": name}
        command = [sys.executable, "-P", "-c", WORKER, str(Path(__file__).parent)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert json.loads(result.stdout) == expected, name


@pytest.mark.parametrize(("bits", "most"), [(4, 0.0804), (3, 0.1678), (2, 0.3446)])
def test_rounds_go_on_to_where_codebook_and_steps_suit_each_other(bits: int, most: float) -> None:
    """Bounds are just above what is reached; the code before the library ended at 0.0811, 0.1679 and 0.3448."""
    tails = np.random.default_rng(0).standard_t(5, (192, 576)).astype(np.float32)
    assert lut_fit.fit_lut(torch.from_numpy(tails), None, bits=bits, block_size=32, refits=8).relative_error < most


@pytest.mark.parametrize("clusters", [1, 2, 8, 64, 128])
@pytest.mark.parametrize("kind", ["all", "few", "one", "none"])
def test_k_means_are_those_in_python_to_the_bit(clusters: int, kind: str) -> None:
    rng = np.random.default_rng(clusters)
    mass = (2.0**20 * rng.standard_exponential(255)).astype(np.int64)
    kept = {"all": 255, "few": 5, "one": 1, "none": 0}[kind]
    mass[rng.permutation(255)[kept:]] = 0
    points = np.arange(-127, 128, dtype=np.float64)
    points[[0, -1]] += -31.4, 2.7
    expected = kmeans_1d(points, mass.astype(np.float64), clusters)
    np.testing.assert_array_equal(native_fit.kmeans(mass, points, clusters), expected)


def test_an_unknown_instruction_set_is_refused() -> None:
    environment = os.environ | {"EDGECOMP_FORCE_ISA": "mmx"}
    program = "from edgecomp.fitting import native_fit; print(native_fit.variant())"
    result = subprocess.run([sys.executable, "-P", "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert RuntimeUnavailableError.__name__ in result.stderr
    assert "EDGECOMP_FORCE_ISA must name an instruction set of this CPU, got mmx" in result.stderr


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_librarys_errors_under_a_hessian_are_as_small_as_pytorchs(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(100, 160, generator=generator)
    inputs = torch.randn(640, 40, generator=generator) @ torch.randn(40, 160, generator=generator)
    inputs += 0.3 * torch.randn(640, 160, generator=generator)
    hessian = inputs.T @ inputs / len(inputs)
    ours = lut_fit.fit_lut(matrix, hessian, bits=bits, block_size=32, refits=4)
    monkeypatch.setattr(lut_fit, "_NativeFitter", lut_fit._TorchFitter)
    reference = lut_fit.fit_lut(matrix, hessian, bits=bits, block_size=32, refits=4)
    assert ours.weighted_error == pytest.approx(reference.weighted_error, rel=0.02)
    assert ours.relative_error == pytest.approx(reference.relative_error, rel=0.05)


def test_chunks_of_rows_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = digest(fitted(3))
    monkeypatch.setattr(lut_fit, "_CHUNK_WEIGHTS", 1)
    assert digest(fitted(3)) == expected
