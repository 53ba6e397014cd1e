"""What this machine can run: packages, processor, kernel variants, and whether ONNX Runtime computes rightly with our library.

Loads neither torch nor onnx: what is installed is read from the packages' metadata.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np

import edgecomp
from edgecomp import native
from edgecomp.devices import open_device
from edgecomp.devices.session import Session
from edgecomp.errors import EdgecompError, RuntimeUnavailableError
from edgecomp.exported.node_model import node_model
from edgecomp.exported.session import import_onnxruntime, runtime_errors
from edgecomp.formats import lut
from edgecomp.ops import LUT_CONV2D, LUT_GATHER, LUT_MATMUL, Operator
from edgecomp.tensor import Factor

# Extras in the order in which they are shown; the others are for developers.
EXTRAS = ("torch", "transformers", "onnx", "executorch", "bench", "report")
_VERB_EXTRAS = {
    "compress": "torch",
    "export": "onnx",
    "export --target executorch": "executorch",
    "verify": "onnx",
    "bench": "bench",
    "report": "report",
}
# What the kernels can use, by the names that Linux gives them.
_FEATURES = (
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512vbmi",
    "avx_vnni",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)


@dataclass(frozen=True)
class Package:
    """A package that extras ask for; `version` is None where it is missing."""

    name: str
    wanted: str
    extras: tuple[str, ...]
    version: str | None


@dataclass(frozen=True)
class Variant:
    """Kernels for one instruction set."""

    name: str
    available: bool
    selected: bool


@dataclass(frozen=True)
class NodeRun:
    """One operator in ONNX Runtime: the largest difference to numpy's result, relative to the largest output, or what failed."""

    operator: str
    relative_difference: float | None
    problem: str | None


@dataclass(frozen=True)
class Diagnosis:
    """What was found; `problems` is empty where the base of edgecomp works."""

    python: str
    edgecomp: str
    system: str
    cpu_model: str | None
    cpu_features: tuple[str, ...]
    packages: tuple[Package, ...]
    verbs: Mapping[str, str]
    library: str | None
    variants: tuple[Variant, ...]
    nodes: tuple[NodeRun, ...]
    executorch_library: str
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The diagnosis as JSON values."""
        return {"kind": "doctor", "schema_version": 1, **asdict(self)}

    def to_text(self) -> str:
        """The diagnosis as lines."""
        return "\n".join([*self._lines(), ""])

    def _lines(self) -> Iterator[str]:
        yield f"edgecomp {self.edgecomp}, Python {self.python}, {self.system}"
        yield f"processor: {self.cpu_model or 'unknown'} ({' '.join(self.cpu_features) or 'no features that kernels use'})"
        yield f"kernel library: {self.library or 'missing'}"
        for variant in self.variants:
            state = "selected" if variant.selected else "available" if variant.available else "not for this processor"
            yield f"  {variant.name}: {state}"
        if not self.nodes:
            yield f"ONNX Runtime: not installed: {_install('bench')}"
        for node in self.nodes:
            yield f"  {node.operator} in ONNX Runtime: {node.problem or f'correct (difference {node.relative_difference:.1e})'}"
        yield f"ExecuTorch library: {self.executorch_library}"
        yield "packages:"
        for package in self.packages:
            yield f"  {package.name}{package.wanted}: {package.version or f'missing: {_install(package.extras[0])}'}"
        yield "commands:"
        for verb, state in self.verbs.items():
            yield f"  {verb}: {state}"


def diagnose() -> Diagnosis:
    """Look at everything; what is wrong is named in `problems`, not raised."""
    packages = _packages()
    problems: list[str] = []
    machine = _machine(problems)
    library, variants = _kernels(problems)
    nodes: tuple[NodeRun, ...] = ()
    if library is not None and _version("onnxruntime") is not None:
        nodes = tuple(_run_nodes(library))
        problems += [f"{node.operator}: {node.problem}" for node in nodes if node.problem]
    return Diagnosis(
        python=platform.python_version(),
        edgecomp=edgecomp.__version__,
        system=f"{machine.get('system', platform.system())}, {platform.machine()}",
        cpu_model=machine.get("cpu_model"),
        cpu_features=kernel_features(machine),
        packages=packages,
        verbs={verb: _verb_state(extra, packages) for verb, extra in _VERB_EXTRAS.items()},
        library=library,
        variants=variants,
        nodes=nodes,
        executorch_library=_executorch_library(),
        problems=tuple(problems),
    )


def raise_on_problems(diagnosis: Diagnosis) -> None:
    """End a diagnosis that found the base not to work.

    Raises:
        RuntimeUnavailableError: naming each problem.

    """
    if diagnosis.problems:
        raise RuntimeUnavailableError("; ".join(diagnosis.problems))


def kernel_features(machine: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a machine's processor features those that kernels can use."""
    return tuple(name for name in _FEATURES if name in machine.get("cpu_features", ()))


def _machine(problems: list[str]) -> Mapping[str, Any]:
    """What the measuring program says of this machine, as far as it runs."""
    try:
        with open_device("local") as device:
            machine: Mapping[str, Any] = Session(device).machine()["machine"]
            return machine
    except EdgecompError as error:
        problems.append(str(error))
        return {}


def _install(extra: str) -> str:
    return f"pip install 'edgecomp[{extra}]'"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _packages() -> tuple[Package, ...]:
    """The packages of our extras, from edgecomp's own metadata.

    Raises:
        RuntimeUnavailableError: edgecomp runs without being installed.

    """
    try:
        lines = metadata.requires("edgecomp") or []
    except metadata.PackageNotFoundError as error:
        raise RuntimeUnavailableError("edgecomp must be installed, not run from a checkout: pip install .") from error
    wanted: dict[str, str] = {}
    direct: dict[str, list[str]] = {extra: [] for extra in EXTRAS}
    nested: dict[str, list[str]] = {extra: [] for extra in EXTRAS}
    for line in lines:
        match = re.fullmatch(r"([\w.-]+)(?:\[([\w,]+)\])?([^;]*); extra == .(\w+).", line)
        if match is None or match[4] not in EXTRAS:
            continue
        if match[1] == "edgecomp":
            nested[match[4]] += match[2].split(",")
        else:
            direct[match[4]].append(match[1])
            wanted.setdefault(match[1], match[3].strip())

    def asks(extra: str, name: str) -> bool:
        return name in direct[extra] or any(asks(other, name) for other in nested[extra])

    return tuple(
        Package(name, versions, tuple(extra for extra in EXTRAS if asks(extra, name)), _version(name))
        for name, versions in wanted.items()
    )


def _verb_state(extra: str, packages: Sequence[Package]) -> str:
    missing = [package.name for package in packages if extra in package.extras and package.version is None]
    return f"needs {', '.join(missing)}: {_install(extra)}" if missing else "ready"


def _kernels(problems: list[str]) -> tuple[str | None, tuple[Variant, ...]]:
    """Path of the library, and its variants, as far as it loads."""
    try:
        library = native.get_library_path()
        found = native.variants()
    except RuntimeUnavailableError as error:
        problems.append(str(error))
        return None, ()
    selected = None
    try:
        selected = native.selected_variant()
    except RuntimeUnavailableError as error:  # EDGECOMP_FORCE_ISA
        problems.append(str(error))
    return library, tuple(Variant(variant.name, variant.available, variant.name == selected) for variant in found)


def _executorch_library() -> str:
    """Path of the library of our operators for ExecuTorch, or why there is none: ExecuTorch is optional, so that is no problem."""
    try:
        return native.get_library_path("executorch")
    except RuntimeUnavailableError as error:
        return str(error)


def _run_nodes(library: str) -> Iterator[NodeRun]:
    """Run each operator on a factor of 4 bits. A 1 x 1 convolution is a product for each pixel, and exact for pixels on a grid."""
    rng = np.random.default_rng(0)
    n, k = 32, 64
    factor = lut.pack(
        rng.integers(0, 16, (n, k)).astype(np.uint8),
        np.arange(-120, 121, 16, dtype=np.int8)[None],
        rng.integers(-127, 128, (n, k // 32)).astype(np.int8),
        rng.uniform(0.5, 1, n).astype(np.float32) / 1000,
        bits=4,
        block_size=32,
    )
    x = rng.standard_normal((5, k)).astype(np.float32)
    product = lut.matmul(x, factor, compute="int8")
    indices = np.array([3, -1, 0])
    conv = {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1], "group": 1, "compute": "int8"}
    yield _run_node(library, LUT_MATMUL, factor, x, product, {"compute": "int8"})
    yield _run_node(library, LUT_GATHER, factor, indices, lut.unpack(factor)[indices], {})
    pixels = rng.integers(-128, 128, (5, k)).astype(np.float32)
    pixels[0, :2] = -128, 127
    image, convolved = (array.T[None, :, :, None].copy() for array in (pixels, lut.matmul(pixels, factor, compute="float")))
    yield _run_node(library, LUT_CONV2D, factor, image, convolved, conv)


def _run_node(
    library: str, operator: Operator, factor: Factor, x: np.ndarray, expected: np.ndarray, attributes: Mapping[str, Any]
) -> NodeRun:
    name = operator.onnx_name
    try:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 4  # what is wrong is reported here
        options.register_custom_ops_library(library)
        model = node_model(operator, factor, x, expected.shape, attributes)
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        (y,) = session.run(None, {operator.inputs[0].name: x})
    except EdgecompError as error:
        return NodeRun(name, None, str(error))
    except runtime_errors() as error:
        return NodeRun(name, None, f"ONNX Runtime must run it with our library, but says: {str(error).strip().splitlines()[0]}")
    difference = float(np.abs(y - expected).max() / np.abs(expected).max())
    problem = None if difference < 1e-5 else f"must compute what the numpy reference does, but differs by {difference:.1e}"
    return NodeRun(name, difference, problem)
