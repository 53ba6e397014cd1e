"""The C++ library that fits `lut` factors, through ctypes, on numpy arrays and as many threads as are asked for.

It is for the machine that compresses: no device bundle has it. Neither torch nor onnx is needed. The functions compute what
`edgecomp.fitting.tile_fit` does in PyTorch, equal to the bit on every processor and for any number of threads, and
`edgecomp.fitting.compensation`, within rounding.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecomp.errors import RuntimeUnavailableError
from edgecomp.formats import lut

ABI_VERSION = 2
_LIBRARY = Path(__file__).parents[1] / "lib" / "libedgecomp_fitting.so"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Settings:
    """How rows are fitted.

    Args:
        scale: a power of two that weights are multiplied by, so that the largest is near 1.
        importance: float32 `[padded K]`, of a column's errors; 0 for a column that is not real.
        block_size: columns that share a scale.
        bits: width of a code.
        largest_entry: magnitude that codebook entries may have.
        threads: of the processor.

    """

    scale: float
    importance: Floats
    block_size: int
    bits: int
    largest_entry: int
    threads: int


@dataclass(frozen=True)
class PackedRows:
    """Rows as a `lut` factor holds them (lut.md), and sums over their real weights.

    Args:
        codes: uint8 `[T, S, P, 16, 4]`.
        scales: int8 `[T, blocks, 16]`.
        row_scale: float32 `[T, 16]`.
        squares: float64 `[4]`: of differences and of weights times `scale`, plain, then as weighted.

    """

    codes: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.int8]
    row_scale: Floats
    squares: npt.NDArray[np.float64]

    def arrays(self) -> list[npt.NDArray[Any]]:
        """In the order of `ecf_fit`."""
        return [self.codes, self.scales, self.row_scale, self.squares]

    def tiles(self, first: int, count: int) -> PackedRows:
        """Some of the tiles, in place, and sums of their own."""
        part = slice(first, first + count)
        return PackedRows(self.codes[part], self.scales[part], self.row_scale[part], np.empty(4, np.float64))


def empty_rows(n: int, k: int, bits: int, block_size: int) -> PackedRows:
    """Room for `n` rows.

    Raises:
        FormatError: a number breaks a rule of lut.md.

    """
    sizes = lut.lut_sizes(n, k, bits, block_size)
    return PackedRows(
        np.empty((sizes.tiles, sizes.spans, sizes.planes, lut.TILE_ROWS, 4), np.uint8),
        np.empty((sizes.tiles, sizes.blocks, lut.TILE_ROWS), np.int8),
        np.empty((sizes.tiles, lut.TILE_ROWS), np.float32),
        np.empty(4, np.float64),
    )


@dataclass(frozen=True)
class HessianPanels:
    """A Hessian and its factor R, upper triangular with `H = R Rᵀ`, as the library reads them: float32 `[K / 8, K, 8]`."""

    hessian: Floats
    factor: Floats


class _Rows(ctypes.Structure):
    """`ecf_rows`."""

    _fields_ = (
        ("weights", ctypes.c_void_p),
        ("n", ctypes.c_int64),
        ("k", ctypes.c_int64),
        ("scale", ctypes.c_float),
        ("importance", ctypes.c_void_p),
        ("block_size", ctypes.c_int64),
        ("bits", ctypes.c_int32),
        ("largest_entry", ctypes.c_int32),
        ("threads", ctypes.c_int32),
    )


class _Hessian(ctypes.Structure):
    """`ecf_hessian`."""

    _fields_ = (("panels", ctypes.c_void_p), ("factor_panels", ctypes.c_void_p))


class _Fit(ctypes.Structure):
    """`ecf_fit`."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("codes", "scales", "row_scale", "squares"))


def variant() -> str:
    """Name of the instruction set that fits: `avx512`, `avx2` or `ref`.

    Raises:
        RuntimeUnavailableError: the library is missing, or EDGECOMP_FORCE_ISA is unknown or cannot run on this CPU.

    """
    return _variant(_library())


def fit_codebook(rows: Floats, settings: Settings, refits: int) -> Floats:
    """The codebook of rows float32 `[n, K]`: ascending integers, float32 `[2**bits]`, 255 for 8 bits.

    Raises:
        RuntimeUnavailableError: the library is missing, or EDGECOMP_FORCE_ISA is wrong.
        MemoryError: the rows do not fit into memory a second time.

    """
    codebook = np.empty(255 if settings.bits == 8 else 2**settings.bits, np.float32)
    native = _native(rows, settings)
    _check(_library().ecf_fit_codebook(ctypes.byref(native), ctypes.c_int64(refits), _pointer(codebook)))
    return codebook


def kmeans(mass: npt.NDArray[np.int64], points: npt.NDArray[np.float64], clusters: int) -> npt.NDArray[np.float64]:
    """`edgecomp.fitting.kmeans.kmeans_1d` of 255 ascending points, to the bit, in a fiftieth of the time: float64 `[clusters]`.

    Raises:
        RuntimeUnavailableError: the library is missing, or EDGECOMP_FORCE_ISA is wrong.
        MemoryError: there is no memory of half a megabyte.

    """
    for array, kind in ((mass, np.int64), (points, np.float64)):
        if array.shape != (255,) or array.dtype != kind or not array.flags.c_contiguous:
            raise TypeError(f"mass and points must be C-contiguous int64 and float64 [255], got {array.dtype} {array.shape}")
    centres = np.empty(clusters, np.float64)
    _check(_library().ecf_kmeans(_pointer(mass), _pointer(points), ctypes.c_int32(clusters), _pointer(centres)))
    return centres


def fit_rows(rows: Floats, settings: Settings, codebook: Floats, out: PackedRows, hessian: HessianPanels | None = None) -> None:
    """Codes and scales of rows float32 `[n, K]` into `out`, given the codebook; fitted to the Hessian if there is one.

    Raises:
        RuntimeUnavailableError: the library is missing, or EDGECOMP_FORCE_ISA is wrong.
        MemoryError: a thread's few rows do not fit into memory.

    """
    (n, k), arrays = rows.shape, out.arrays()
    for array, like in zip(arrays, empty_rows(n, k, settings.bits, settings.block_size).arrays(), strict=True):
        if array.shape != like.shape or array.dtype != like.dtype or not array.flags.c_contiguous:
            raise TypeError(f"out must have a C-contiguous {like.dtype} {like.shape}, got {array.dtype} {array.shape}")
    native = _native(rows, settings)
    panels = None if hessian is None else ctypes.byref(_Hessian(_pointer(hessian.hessian), _pointer(hessian.factor)))
    codebook = np.ascontiguousarray(codebook, np.float32)
    fit = _Fit(*map(_pointer, arrays))
    _check(_library().ecf_fit_rows(ctypes.byref(native), _pointer(codebook), panels, ctypes.byref(fit)))


def pack_panels(matrix: Floats) -> Floats:
    """A square float32 matrix `[K, K]`, K a multiple of 32, as panels `[K / 8, K, 8]`."""
    matrix = np.ascontiguousarray(matrix, np.float32)
    panels = np.empty((len(matrix) // 8, len(matrix), 8), np.float32)
    _library().ecf_pack_panels(_pointer(matrix), ctypes.c_int64(len(matrix)), _pointer(panels))
    return panels


def pack_factor(factor: npt.NDArray[np.float64]) -> Floats:
    """The factor R of a Hessian as panels `[K / 8, K, 8]`, where `H = R Rᵀ`; what lies below its diagonal's panels is not set.

    Args:
        factor: float64 `[K, K]`, K a multiple of 32: Lᵀ, where `L Lᵀ` is H with rows and columns in reverse order.

    """
    if not factor.flags.c_contiguous or factor.dtype != np.float64:
        raise TypeError(f"the factor must be C-contiguous float64, got {factor.dtype}, strides {factor.strides}")
    panels = np.empty((len(factor) // 8, len(factor), 8), np.float32)
    _library().ecf_pack_factor(_pointer(factor), ctypes.c_int64(len(factor)), _pointer(panels))
    return panels


@cache
def _library() -> ctypes.CDLL:
    if not _LIBRARY.is_file():
        raise RuntimeUnavailableError(
            f"the fitting library must be installed with the package, found none at {_LIBRARY}; "
            "install a wheel, or build one with `pip wheel .` (needs a C++17 compiler)"
        )
    try:
        lib = ctypes.CDLL(str(_LIBRARY))
    except OSError as error:
        raise RuntimeUnavailableError(f"the fitting library must load on this machine, got: {error}") from error
    if lib.ecf_abi_version() != ABI_VERSION:
        raise RuntimeUnavailableError(
            f"{_LIBRARY} must have ABI version {ABI_VERSION}, got {lib.ecf_abi_version()}; reinstall edgecomp"
        )
    lib.ecf_variant.restype = ctypes.c_char_p
    _variant(lib)
    return lib


def _variant(lib: ctypes.CDLL) -> str:
    name: bytes | None = lib.ecf_variant()
    if name is None:
        forced = os.environ.get("EDGECOMP_FORCE_ISA", "")
        raise RuntimeUnavailableError(f"EDGECOMP_FORCE_ISA must name an instruction set of this CPU, got {forced}")
    return name.decode()


def _native(rows: Floats, settings: Settings) -> _Rows:
    """The rows as the C struct. It borrows the arrays: keep them for as long as it."""
    n, k = rows.shape
    lut.lut_sizes(n, k, settings.bits, settings.block_size)
    if not rows.flags.c_contiguous or rows.dtype != np.float32:
        raise TypeError(f"rows must be C-contiguous float32, got {rows.dtype}, strides {rows.strides}")
    if settings.importance.shape != (lut.round_up(k, lut.SPAN_COLUMNS),) or settings.importance.dtype != np.float32:
        raise TypeError(f"importance must be float32 of the padded K, got {settings.importance.dtype} {settings.importance.shape}")
    weighting = _pointer(settings.importance)
    numbers = (settings.block_size, settings.bits, settings.largest_entry, settings.threads)
    return _Rows(_pointer(rows), n, k, settings.scale, weighting, *numbers)


def _check(status: int) -> None:
    if status != 0:
        raise MemoryError("the fit needs more memory than there is: fewer threads need less")


def _pointer(array: npt.NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
