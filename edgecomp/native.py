"""The C++ kernels through ctypes: the same library that ONNX Runtime loads, run on numpy arrays, on one thread.

Neither torch nor onnx is needed. The operators compute what lut.md says under "Compute" and "Convolution".
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgecomp.errors import ConfigError, EdgecompError, FormatError, RuntimeUnavailableError
from edgecomp.ops import DTYPES, LUT_CONV2D, LUT_GATHER, LUT_MATMUL, LUT_NARROW_CONV2D, Operator
from edgecomp.tensor import Compute, ConvParams, Factor

ABI_VERSION = 2
_FOLDER = Path(__file__).parent / "lib"
_LIBRARY = _FOLDER / "libedgecomp_onnxruntime.so"
_EXECUTORCH_LIBRARY = _FOLDER / "libedgecomp_executorch.so"
_EXECUTORCH_VERSION = _FOLDER / "executorch-version.txt"
_REBUILD = "install edgecomp again with `pip install --no-build-isolation` where ExecuTorch is installed (README.md, Install)"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Variant:
    """Kernels for one instruction set: its name in EDGECOMP_FORCE_ISA, and whether this CPU can run it."""

    name: str
    available: bool


class _Tensor(ctypes.Structure):
    """`ec_tensor`."""

    _fields_ = (("type", ctypes.c_int), ("rank", ctypes.c_int32), ("dims", ctypes.c_void_p), ("data", ctypes.c_void_p))


_Output = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64), ctypes.c_int32)
_Temporary = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class _Call(ctypes.Structure):
    """`ec_op_call`, whose size the library compares with its own."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("op", ctypes.c_char_p),
        ("inputs", ctypes.POINTER(_Tensor)),
        ("input_count", ctypes.c_size_t),
        ("attributes", ctypes.POINTER(ctypes.c_int64)),
        ("attribute_count", ctypes.c_size_t),
        ("parallel", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
        ("output", _Output),
        ("temporary", _Temporary),
        ("message", ctypes.c_char_p),
        ("message_bytes", ctypes.c_size_t),
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

    Kernels that an operator has besides follow its name, as in `lut_conv2d_float` and `lut_conv2d_float_grouped`.

    Raises:
        RuntimeUnavailableError: the library is missing, or EDGECOMP_FORCE_ISA is unknown or cannot run on this CPU.

    """
    chosen: dict[str, str] = {}
    while kernel := _library().ec_kernel_name(len(chosen)):
        name = ctypes.c_char_p()
        _check(_library().ec_variant_of(kernel, ctypes.byref(name)))
        chosen[kernel.decode()] = (name.value or b"").decode()
    return chosen


def run(operator: Operator, first: np.ndarray, factor: Factor | None, /, **others: Any) -> np.ndarray:
    """Run an operator of the table by its kernels, on one thread.

    Args:
        operator: of `edgecomp.ops.OPERATORS`.
        first: its first input.
        factor: of the operator's format; None for operators that take none.
        others: the inputs behind the factor's arrays (absent: None or left out) and the attributes behind the factor's, by name.

    Returns:
        The output, of the type that the table says.

    Raises:
        FormatError: the factor breaks a rule of its format's specification.
        EdgecompError: another input or an attribute is not what the operator demands.
        RuntimeUnavailableError: the library is missing, or EDGECOMP_FORCE_ISA is wrong.

    """
    known: dict[str, Any] = {operator.first.name: first, **others}
    if factor is not None:
        known |= {"N": factor.shape[0], "K": factor.shape[1], **factor.attributes, **factor.arrays}
    arrays = [known.get(declared.name) for declared in operator.inputs]
    arrays = [None if array is None else np.asarray(array, order="C") for array in arrays]
    tensors = (_Tensor * len(arrays))(*map(_tensor, arrays))
    attributes = _integers(operator, known)
    results: list[np.ndarray] = []

    def output(_context: int, dims: Any, rank: int) -> int:
        results.append(np.empty(dims[:rank], operator.output.dtype))
        return _address(results[-1])

    def temporary(_context: int, size: int) -> int:
        temporaries.append(np.empty(size, np.uint8))
        return _address(temporaries[-1])

    temporaries: list[np.ndarray] = []
    message = ctypes.create_string_buffer(1024)
    call = _Call(
        size=ctypes.sizeof(_Call),
        op=operator.name.encode(),
        inputs=tensors,
        input_count=len(tensors),
        attributes=(ctypes.c_int64 * len(attributes))(*attributes),
        attribute_count=len(attributes),
        output=_Output(output),
        temporary=_Temporary(temporary),
        message=ctypes.cast(message, ctypes.c_char_p),
        message_bytes=len(message),
    )
    _check(_library().ec_op_run(ctypes.byref(call)), message.value.decode())
    return results[0]


def lut_matmul(
    x: Floats,
    factor: Factor,
    *,
    compute: Compute,
    bias: Floats | None = None,
    addend: Floats | None = None,
    activation: str = "none",
    gated: bool = False,
) -> Floats:
    """`y = activation(z)` of `z[..., n] = sum_k x[..., k] w[n, k] + bias[n] + addend[..., n]`.

    Args:
        x: float32 `[..., K]`.
        factor: a `lut` factor of shape `(N, K)`.
        compute: `int8` quantises x per block on the fly, `float` does not.
        bias: float32 `[N]`.
        addend: float32 `[..., N]`.
        activation: of `edgecomp.ops.ACTIVATIONS`.
        gated: gives `activation(z[..., :N/2]) * z[..., N/2:]`.

    Returns:
        float32 `[..., N]`, or `[..., N/2]`.

    Raises:
        FormatError, EdgecompError, RuntimeUnavailableError: as `run`.

    """
    others = {"bias": _optional_floats(bias), "addend": _optional_floats(addend)}
    return run(LUT_MATMUL, _floats(x), factor, **others, compute=compute, activation=activation, gated=int(gated))


def lut_gather(indices: npt.NDArray[np.int64], factor: Factor) -> Floats:
    """`y[..., :] = w[indices[...], :]`; negative indices count from the end.

    Args:
        indices: int64 of any shape, in [-N, N).
        factor: a `lut` factor of shape `(N, K)`.

    Returns:
        float32 `[..., K]`.

    Raises:
        FormatError, EdgecompError, RuntimeUnavailableError: as `run`; an index out of range is an EdgecompError.

    """
    return run(LUT_GATHER, np.asarray(indices, np.int64, order="C"), factor)


def lut_conv2d(
    x: Floats,
    factor: Factor,
    conv: ConvParams,
    *,
    compute: Compute,
    bias: Floats | None = None,
    addend: Floats | None = None,
    activation: str = "none",
) -> Floats:
    """Two-dimensional convolution by a factor with columns (kernel row, kernel column, channel padded to 32).

    Args:
        x: float32 `[batch, in_channels, height, width]`.
        factor: a `lut` factor of shape `(out_channels, kernel_h * kernel_w * ceil32(in_channels / groups))`.
        conv: the geometry.
        compute: `int8` (images on a grid each, lut.md "Convolution") or `float`.
        bias: float32 `[out_channels]`.
        addend: of the output's shape, added before the activation.
        activation: of `edgecomp.ops.ACTIVATIONS`.

    Returns:
        float32 `[batch, out_channels, out_height, out_width]`.

    Raises:
        FormatError, EdgecompError, RuntimeUnavailableError: as `run`.

    """
    others = {"bias": _optional_floats(bias), "addend": _optional_floats(addend)}
    return run(LUT_CONV2D, _floats(x), factor, **others, **conv.attributes, compute=compute, activation=activation)


def lut_narrow_conv2d(
    x: Floats,
    factor: Factor,
    conv: ConvParams,
    *,
    compute: Compute,
    bias: Floats | None = None,
    addend: Floats | None = None,
    activation: str = "none",
) -> Floats:
    """Two-dimensional convolution by a factor with columns (kernel row, kernel column, channel of the group).

    Args:
        x: float32 `[batch, in_channels, height, width]`.
        factor: a `lut_narrow` factor of shape `(out_channels, kernel_h * kernel_w * in_channels / groups)`.
        conv: the geometry.
        compute: as for `lut_conv2d`; convolutions of several groups compute in float.
        bias: float32 `[out_channels]`.
        addend: float32, of the output's shape.
        activation: of `edgecomp.ops.ACTIVATIONS`.

    Returns:
        float32 `[batch, out_channels, out_height, out_width]`.

    Raises:
        FormatError, EdgecompError, RuntimeUnavailableError: as `run`.

    """
    others = {"bias": _optional_floats(bias), "addend": _optional_floats(addend)}
    return run(LUT_NARROW_CONV2D, _floats(x), factor, **others, **conv.attributes, compute=compute, activation=activation)


@cache
def _library() -> ctypes.CDLL:
    path = get_library_path()
    try:
        lib = ctypes.CDLL(path)
    except OSError as error:
        raise RuntimeUnavailableError(f"the kernel library must load on this machine, got: {error}") from error
    if lib.ec_abi_version() != ABI_VERSION:
        raise RuntimeUnavailableError(f"{path} must have ABI version {ABI_VERSION}, got {lib.ec_abi_version()}; reinstall edgecomp")
    for name in ("ec_status_message", "ec_status_kind", "ec_variant_name", "ec_kernel_name"):
        getattr(lib, name).restype = ctypes.c_char_p
    return lib


def _check(status: int, message: str = "") -> None:
    """Raise the error that a status stands for, with the message of a call or the status's own."""
    lib = _library()
    kind = lib.ec_status_kind(status).decode()
    message = message or lib.ec_status_message(status).decode()
    match kind:
        case "ok":
            return
        case "variant":
            raise RuntimeUnavailableError(
                f"{message.partition('; got ')[0]}; got EDGECOMP_FORCE_ISA={os.environ.get('EDGECOMP_FORCE_ISA', '')}, "
                f"available: {', '.join(v.name for v in variants() if v.available)}"
            )
        case "factor":
            raise FormatError(message)
        case _:
            raise EdgecompError(message)


def _tensor(array: np.ndarray | None) -> _Tensor:
    """A view that borrows the array."""
    if array is None:
        return _Tensor(type=0)
    # As the enumeration ec_type: none, the types of the table, and others.
    kind = 1 + (DTYPES.index(array.dtype.name) if array.dtype.name in DTYPES else len(DTYPES))
    dims = (ctypes.c_int64 * max(array.ndim, 1))(*array.shape)
    tensor = _Tensor(kind, array.ndim, ctypes.cast(dims, ctypes.c_void_p), ctypes.c_void_p(_address(array)))
    tensor.kept = dims
    return tensor


def _integers(operator: Operator, values: Mapping[str, Any]) -> list[int]:
    """The values of an operator's attributes, one after the other: of a choice its number, of a float the bits."""
    integers: list[int] = []
    for declared in operator.attributes:
        value = values[declared.name]
        if declared.type == "string":
            if value not in declared.choices:
                raise EdgecompError(f"{declared.name} must be one of {', '.join(declared.choices)}, got {value!r}")
            integers.append(declared.choices.index(value))
        elif declared.type == "ints":
            integers += value
        elif declared.type == "float":
            integers.append(int(np.float32(value).view(np.int32)))
        else:
            integers.append(value)
    return integers


def _floats(array: Floats) -> Floats:
    return np.ascontiguousarray(array, np.float32)


def _optional_floats(array: Floats | None) -> Floats | None:
    return None if array is None else _floats(array)


def _address(array: np.ndarray) -> int:
    return int(array.ctypes.data)
