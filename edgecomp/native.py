"""The C++ kernels through ctypes: the same library that ONNX Runtime loads, run on numpy arrays, on one thread.

Neither torch nor onnx is needed. The operators compute what lut.md says under "Compute" and "Convolution".
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgecomp.errors import ConfigError, EdgecompError, FormatError, RuntimeUnavailableError
from edgecomp.tensor import Compute, ConvParams, Factor

ABI_VERSION = 1
_FOLDER = Path(__file__).parent / "lib"
_LIBRARY = _FOLDER / "libedgecomp_onnxruntime.so"
_EXECUTORCH_LIBRARY = _FOLDER / "libedgecomp_executorch.so"
_EXECUTORCH_VERSION = _FOLDER / "executorch-version.txt"
_REBUILD = "install edgecomp again with `pip install --no-build-isolation` where ExecuTorch is installed (README.md, Install)"
_OPERATORS = ("lut_matmul", "lut_gather", "lut_conv2d", "lut_conv2d_grouped")  # that ec_variant_of knows
_COMPUTE: dict[Compute, int] = {"float": 0, "int8": 1}

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Variant:
    """Kernels for one instruction set: its name in EDGECOMP_FORCE_ISA, and whether this CPU can run it."""

    name: str
    available: bool


class _LutFactor(ctypes.Structure):
    """`ec_lut_factor`."""

    _fields_ = (
        ("n", ctypes.c_int64),
        ("k", ctypes.c_int64),
        ("bits", ctypes.c_int32),
        ("block_size", ctypes.c_int64),
        ("tiles", ctypes.c_int64),
        ("books", ctypes.c_int64),
        ("codes", ctypes.c_void_p),
        ("codebooks", ctypes.c_void_p),
        ("tile_book", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("row_scale", ctypes.c_void_p),
        ("row_index", ctypes.c_void_p),
    )


class _Conv2d(ctypes.Structure):
    """`ec_conv2d`."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            *("batch", "in_channels", "height", "width"),
            *("kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w"),
            *("pad_top", "pad_left", "pad_bottom", "pad_right", "group"),
        )
    )


def get_library_path(runtime: Literal["onnxruntime", "executorch"] = "onnxruntime") -> str:
    """Path of the library of our operators for a runtime.

    `onnxruntime`: for `SessionOptions.register_custom_ops_library`. `executorch`: for `torch.ops.load_library`, after
    `import executorch.runtime` and before a method is loaded; it registers the operators once, however often it is loaded.

    Raises:
        ConfigError: no such runtime.
        RuntimeUnavailableError: the installed package holds no library for it, or one for another ExecuTorch than is installed.

    """
    if runtime == "onnxruntime":
        if not _LIBRARY.is_file():
            raise RuntimeUnavailableError(
                f"the kernel library must be installed with the package, found none at {_LIBRARY}; "
                "install a wheel, or build one with `pip wheel .` (needs a C++17 compiler)"
            )
        return str(_LIBRARY)
    if runtime != "executorch":
        raise ConfigError(f"the runtimes with a library are onnxruntime and executorch, got {runtime!r}")
    if not _EXECUTORCH_LIBRARY.is_file():
        raise RuntimeUnavailableError(
            f"this edgecomp was built without ExecuTorch, and has no library at {_EXECUTORCH_LIBRARY}: {_REBUILD}"
        )
    _check_executorch(_EXECUTORCH_VERSION.read_text(encoding="utf-8").strip())
    return str(_EXECUTORCH_LIBRARY)


def get_cmake_path() -> str:
    """Folder of the CMake package `edgecomp`, for `find_package`: `cmake -Dedgecomp_DIR=...` (README.md "In an application")."""
    return str(_FOLDER / "cmake" / "edgecomp")


def _check_executorch(built_for: str) -> None:
    """ExecuTorch has no stable C++ interface: a library for another release may crash when it is loaded."""
    try:
        installed = version("executorch").partition("+")[0]
    except PackageNotFoundError as error:
        raise RuntimeUnavailableError(
            f"ExecuTorch is needed and not installed: pip install 'edgecomp[executorch]' (the library here is for {built_for})"
        ) from error
    if installed != built_for:
        raise RuntimeUnavailableError(
            f"the library here was built for ExecuTorch {built_for}, and {installed} is installed: "
            f"install that release, or {_REBUILD}"
        )


def variants() -> list[Variant]:
    """The kernel variants of this build, in order of priority.

    Raises:
        RuntimeUnavailableError: the library is missing or does not load.

    """
    lib = _library()
    names = [lib.ec_variant_name(i).decode() for i in range(lib.ec_variant_count())]
    return [Variant(name, bool(lib.ec_variant_available(i))) for i, name in enumerate(names)]


def selected_variant() -> str:
    """Name of the variant that runs: the first available one, or what EDGECOMP_FORCE_ISA named at the first use.

    Raises:
        RuntimeUnavailableError: the library is missing, or EDGECOMP_FORCE_ISA is unknown or cannot run on this CPU.

    """
    name = ctypes.c_char_p()
    _check(_library().ec_variant_selected(ctypes.byref(name)))
    return (name.value or b"").decode()


def selected_variants() -> dict[str, str]:
    """Name of the variant that each operator's kernels run: a lower one than `selected_variant` where it has none for that.

    Convolutions of several groups, which have kernels of their own, are `lut_conv2d_grouped`.

    Raises:
        RuntimeUnavailableError: the library is missing, or EDGECOMP_FORCE_ISA is unknown or cannot run on this CPU.

    """
    chosen = {}
    for operator in _OPERATORS:
        name = ctypes.c_char_p()
        _check(_library().ec_variant_of(operator.encode(), ctypes.byref(name)))
        chosen[operator] = (name.value or b"").decode()
    return chosen


def lut_matmul(x: Floats, factor: Factor, *, compute: Compute, bias: Floats | None = None) -> Floats:
    """`y[..., n] = sum_k x[..., k] w[n, k] + bias[n]`.

    Args:
        x: float32 `[..., K]`.
        factor: a `lut` factor of shape `(N, K)`.
        compute: `int8` quantises x per block on the fly, `float` does not.
        bias: float32 `[N]`.

    Returns:
        float32 `[..., N]`.

    Raises:
        FormatError: the factor breaks a rule of lut.md.
        EdgecompError: the shape of x or bias does not fit the factor.
        RuntimeUnavailableError: the library is missing, or EDGECOMP_FORCE_ISA is wrong.

    """
    lib, (n, k) = _library(), factor.shape
    if x.ndim < 1 or x.shape[-1] != k:
        raise EdgecompError(f"x must be float32 [..., {k}] for a factor of shape {factor.shape}, got {list(x.shape)}")
    x, bias = _floats(x), _bias(bias, n)
    native, rows = _native(factor), x.size // k
    workspace = _workspace(lib.ec_lut_matmul_workspace_bytes, ctypes.byref(native), ctypes.c_int64(rows), _COMPUTE[compute], None)
    y = np.empty((*x.shape[:-1], n), np.float32)
    arguments = (_pointer(x), ctypes.c_int64(rows), _pointer(bias), _pointer(y), _COMPUTE[compute], None)
    _check(lib.ec_lut_matmul(ctypes.byref(native), *arguments, _pointer(workspace), ctypes.c_size_t(workspace.nbytes)))
    return y


def lut_gather(indices: npt.NDArray[np.int64], factor: Factor) -> Floats:
    """`y[..., :] = w[indices[...], :]`; negative indices count from the end.

    Args:
        indices: int64 of any shape, in [-N, N).
        factor: a `lut` factor of shape `(N, K)`.

    Returns:
        float32 `[..., K]`.

    Raises:
        FormatError: the factor breaks a rule of lut.md.
        EdgecompError: an index is out of range.
        RuntimeUnavailableError: the library is missing.

    """
    native = _native(factor)
    indices = np.ascontiguousarray(indices, np.int64)
    y = np.empty((*indices.shape, factor.shape[1]), np.float32)
    count = ctypes.c_int64(indices.size)
    _check(_library().ec_lut_gather(ctypes.byref(native), _pointer(indices), count, _pointer(y), None))
    return y


def lut_conv2d(x: Floats, factor: Factor, conv: ConvParams, *, compute: Compute, bias: Floats | None = None) -> Floats:
    """Two-dimensional convolution by a factor with columns (kernel row, kernel column, channel padded to 32).

    Args:
        x: float32 `[batch, in_channels, height, width]`.
        factor: a `lut` factor of shape `(out_channels, kernel_h * kernel_w * ceil32(in_channels / groups))`.
        conv: the geometry.
        compute: as for `lut_matmul`; convolutions of several groups compute in float.
        bias: float32 `[out_channels]`.

    Returns:
        float32 `[batch, out_channels, out_height, out_width]`.

    Raises:
        FormatError: the factor breaks a rule of lut.md.
        EdgecompError: x or the factor does not fit the geometry.
        RuntimeUnavailableError: the library is missing, or EDGECOMP_FORCE_ISA is wrong.

    """
    if x.ndim != 4 or x.shape[1] != conv.in_channels:
        raise EdgecompError(f"x must be float32 [batch, {conv.in_channels}, height, width], got {list(x.shape)}")
    lib, native, x, bias = _library(), _native(factor), _floats(x), _bias(bias, factor.shape[0])
    geometry = _Conv2d(*x.shape, *conv.kernel_size, *conv.stride, *conv.dilation, *conv.padding, conv.groups)
    factor_and_geometry = (ctypes.byref(native), ctypes.byref(geometry))
    height, width = ctypes.c_int64(), ctypes.c_int64()
    _check(lib.ec_conv2d_output_size(ctypes.byref(geometry), ctypes.byref(height), ctypes.byref(width)))
    workspace = _workspace(lib.ec_lut_conv2d_workspace_bytes, *factor_and_geometry, _COMPUTE[compute], None)
    y = np.empty((len(x), factor.shape[0], height.value, width.value), np.float32)
    arguments = (_pointer(x), _pointer(bias), _pointer(y), _COMPUTE[compute], None)
    _check(lib.ec_lut_conv2d(*factor_and_geometry, *arguments, _pointer(workspace), ctypes.c_size_t(workspace.nbytes)))
    return y


@cache
def _library() -> ctypes.CDLL:
    path = get_library_path()
    try:
        lib = ctypes.CDLL(path)
    except OSError as error:
        raise RuntimeUnavailableError(f"the kernel library must load on this machine, got: {error}") from error
    if lib.ec_abi_version() != ABI_VERSION:
        raise RuntimeUnavailableError(f"{path} must have ABI version {ABI_VERSION}, got {lib.ec_abi_version()}; reinstall edgecomp")
    lib.ec_status_message.restype = ctypes.c_char_p
    lib.ec_variant_name.restype = ctypes.c_char_p
    return lib


# Statuses (ec_status) that have an error class of their own.
_FORMAT_STATUSES = frozenset({2, 4, 6, 7, 10, 11, 12})
_ISA_STATUSES = frozenset({14, 15})


def _check(status: int) -> None:
    """Raise the error that a status stands for."""
    if status == 0:
        return
    message = _library().ec_status_message(status).decode()
    if status in _ISA_STATUSES:
        raise RuntimeUnavailableError(
            f"{message}; got EDGECOMP_FORCE_ISA={os.environ.get('EDGECOMP_FORCE_ISA', '')}, "
            f"available: {', '.join(v.name for v in variants() if v.available)}"
        )
    raise (FormatError if status in _FORMAT_STATUSES else EdgecompError)(message)


def _native(factor: Factor) -> _LutFactor:
    """The factor as the C struct, checked. The struct borrows the arrays: keep `factor` for as long as it."""
    arrays = factor.arrays
    for name, array in arrays.items():
        if not array.flags.c_contiguous:
            raise FormatError(f"{name} must be C-contiguous")
    tiles, books = len(arrays["codes"]), len(arrays["codebooks"])
    names = ("codes", "codebooks", "tile_book", "scales", "row_scale", "row_index")
    pointers = (_pointer(arrays.get(name)) for name in names)
    native = _LutFactor(*factor.shape, factor.attributes["bits"], factor.attributes["block_size"], tiles, books, *pointers)
    sizes = (ctypes.c_size_t * len(names))()
    _check(_library().ec_lut_array_bytes(ctypes.byref(native), sizes))
    for name, size in zip(names, sizes, strict=True):
        got = arrays[name].nbytes if name in arrays else 0
        if got != size:
            raise FormatError(
                f"{name} of a lut factor of shape {factor.shape}, {dict(factor.attributes)} must have {size} bytes, got {got}"
            )
    scratch = np.empty(factor.shape[0] if "row_index" in arrays else 0, np.uint8)
    _check(_library().ec_lut_check(ctypes.byref(native), _pointer(scratch)))
    return native


def _floats(array: Floats) -> Floats:
    return np.ascontiguousarray(array, np.float32)


def _bias(bias: Floats | None, n: int) -> Floats | None:
    if bias is None:
        return None
    if bias.shape != (n,):
        raise EdgecompError(f"bias must be float32 [{n}], got {list(bias.shape)}")
    return _floats(bias)


def _pointer(array: npt.NDArray[np.generic] | None) -> ctypes.c_void_p | None:
    return None if array is None else ctypes.c_void_p(array.ctypes.data)


def _workspace(function: ctypes._NamedFuncPointer, *arguments: object) -> npt.NDArray[np.uint8]:
    """A workspace of as many bytes as `function` says."""
    size = ctypes.c_size_t()
    _check(function(*arguments, ctypes.byref(size)))
    return np.empty(size.value, np.uint8)
