"""A toy format with an operator runs in ONNX Runtime, in ExecuTorch and through the C interface, from files of its own.

It adds an entry to the operator table and one C++ file; adapters, generator and C interface stay as they are. They are compiled
here with the table that is generated, and linked with the kernels of the installed package.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.library import Library

from edgecomp import native
from edgecomp.errors import FormatError
from edgecomp.exported.node_model import node_model
from edgecomp.tensor import Factor

CHECKOUT = Path(__file__).resolve().parents[1]
RUNTIMES, TOY = CHECKOUT / "runtimes", CHECKOUT / "tests" / "toy_format"
N, K = 5, 7
WEIGHTS = np.random.default_rng(0).integers(-127, 128, (N, K)).astype(np.int8)
X = np.random.default_rng(1).standard_normal((3, K)).astype(np.float32)
EXPECTED = X @ WEIGHTS.T.astype(np.float32)

RUN_PROGRAM = """
import sys, numpy, torch
from executorch.runtime import Runtime
torch.ops.load_library(sys.argv[1])
method = Runtime.get().load_program(sys.argv[2]).load_method("forward")
numpy.save(sys.argv[4], method.execute([torch.from_numpy(numpy.load(sys.argv[3]))])[0].numpy())
"""


def module_of(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModuleType]:
    """A folder with what is generated from the table and the entry, and that table."""
    folder = tmp_path_factory.mktemp("toy")
    table = folder / "ops.py"
    table.write_text(
        (CHECKOUT / "edgecomp" / "ops.py").read_text(encoding="utf-8") + (TOY / "entry.txt").read_text(encoding="utf-8")
    )
    generator = module_of("generate", RUNTIMES / "ops" / "generate.py")
    loaded: ModuleType = generator.load_table(table)
    for name, text in generator.generated(loaded).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder, loaded


def build(folder: Path, adapter: str, options: list[str], libraries: list[str]) -> Path:
    """The library of an adapter with the toy operator beside all others."""
    sources = [TOY / "toy_ops.cpp", folder / "runtimes/ops/op_table.cpp", *sorted((RUNTIMES / "adapters" / adapter).glob("*.cpp"))]
    includes = [folder / "runtimes", folder / "runtimes/include", RUNTIMES, RUNTIMES / "include"]
    flags = ["-std=c++17", "-O0", "-fPIC", "-fno-exceptions", "-fno-rtti", *(f"-I{path}" for path in includes), *options]
    objects = [folder / f"{adapter}-{source.stem}.o" for source in sources]

    def compile_one(source: Path, to: Path) -> None:
        launcher = [path] if (path := shutil.which("ccache")) else []
        subprocess.run([*launcher, "c++", *flags, "-c", str(source), "-o", str(to)], check=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_one, sources, objects))
    library = folder / f"libtoy_{adapter}.so"
    kernels = Path(native.get_library_path()).parent / "libedgecomp.a"
    link = ["c++", "-shared", *map(str, objects), *libraries, str(kernels), "-Wl,--no-undefined", "-o", str(library)]
    subprocess.run(link, check=True)
    return library


@pytest.fixture(scope="module")
def factor() -> Factor:
    return Factor("toy", (N, K), {}, {"weights": WEIGHTS})


def test_in_onnx_runtime_and_through_c(toy: tuple[Path, ModuleType], factor: Factor, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, table = toy
    operator = table.OPERATORS["toy_matmul"]
    library = build(folder, "onnxruntime", [], ["-Wl,-u,ec_op_run"])
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library))
    model = node_model(operator, factor, X, EXPECTED.shape, {})
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": X})[0], EXPECTED, rtol=1e-5, atol=1e-3)

    monkeypatch.setattr(native, "_LIBRARY", library)
    native._library.cache_clear()
    try:
        np.testing.assert_allclose(native.run(operator, X, factor), EXPECTED, rtol=1e-5, atol=1e-3)
        with pytest.raises(FormatError, match=r"weights must be int8 \[N, K\], got \[5, 6\]"):
            native.run(operator, X, Factor("toy", (N, K), {}, {"weights": WEIGHTS[:, :6].copy()}))
        with pytest.raises(FormatError, match=r"weights must be int8 \[N, K\], got float32"):
            native.run(operator, X, Factor("toy", (N, K), {}, {"weights": WEIGHTS.astype(np.float32)}))
    finally:
        native._library.cache_clear()


class ToyLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weights", torch.from_numpy(WEIGHTS))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.edgecomp.toy_matmul(x, self.weights, N=N, K=K)
        return y


def test_in_executorch(toy: tuple[Path, ModuleType], tmp_path: Path) -> None:
    from executorch.exir import to_edge

    folder, table = toy
    operator = table.OPERATORS["toy_matmul"]
    library = Library("edgecomp", "FRAGMENT")
    library.define(operator.torch_schema)
    library.define(operator.executorch_schema)
    torch.library.register_fake(
        operator.torch_name,
        lambda x, weights, *, N, K: x.new_empty([x.shape[0], N]),
        lib=library,
    )
    program = to_edge(torch.export.export(ToyLayer(), (torch.from_numpy(X),))).to_executorch()
    (tmp_path / "toy.pte").write_bytes(program.buffer)
    np.save(tmp_path / "x.npy", X)

    package = Path(str(metadata.distribution("executorch").locate_file("executorch")))
    include, libraries = package / "include", package / "lib"
    options = [f"-isystem{include}", f"-isystem{include}/executorch/runtime/core/portable_type/c10"]
    options += ["-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_USE_THREADPOOL", "-DET_EVENT_TRACER_ENABLED"]
    options += [f'-DEDGECOMP_EXECUTORCH_VERSION="{metadata.version("executorch")}"']
    link = [f"-L{libraries}", "-lexecutorch", "-lexecutorch_threadpool", f"-Wl,-rpath,{libraries}"]
    path = build(folder, "executorch", options, link)
    command = [
        sys.executable,
        "-P",
        "-c",
        RUN_PROGRAM,
        str(path),
        *(str(tmp_path / name) for name in ("toy.pte", "x.npy", "y.npy")),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), EXPECTED, rtol=1e-5, atol=1e-3)


def test_the_files_that_it_took() -> None:
    """Beside its entry in the table: nothing in the adapters, which no format's name is in."""
    assert {path.name for path in TOY.iterdir()} == {"entry.txt", "toy_ops.cpp"}
