"""A toy format with an operator is exported and runs in ONNX Runtime with our library and without, in ExecuTorch, and through C.

It is added to a copy of the checkout as DESIGN.md says: four files of its own, an entry in the operator table, a line in FORMATS.
Adapters, generator, C interface, build files and exporters stay as they are. What is not the adapters', the table's or its own is
linked from the installed package.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import pytest

from edgecomp import native

CHECKOUT = Path(__file__).resolve().parents[1]
TOY = CHECKOUT / "tests" / "toy_format"
OWN = {  # where the files of its own go, as DESIGN.md names them
    "edgecomp/formats/toy.py": "edgecomp/formats/<format>.py",
    "edgecomp/references/toy.py": "edgecomp/references/<format>.py",
    "exporters/to_onnx/functions/toy_matmul.py": "exporters/to_onnx/functions/<operator>.py",
    "runtimes/ops/toy_ops.cpp": "runtimes/ops/<format>_ops.cpp",
}
REGISTRIES = {"edgecomp/ops.py", "edgecomp/formats/__init__.py"}
GENERATED = {"edgecomp/operators.md", "runtimes/ops/op_table.h", "runtimes/ops/op_table.cpp"}  # by runtimes/ops/generate.py
PARTS = ("edgecomp", "exporters", "runtimes")


def run(*command: str | Path, **environment: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, **environment}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with the toy format."""
    copy = tmp_path_factory.mktemp("checkout")
    for part in PARTS:
        shutil.copytree(CHECKOUT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for path in OWN:
        shutil.copy(TOY / path, copy / path)
    with (copy / "edgecomp" / "ops.py").open("a", encoding="utf-8") as table:
        table.write((TOY / "entry_in_table.txt").read_text(encoding="utf-8"))
    formats = copy / "edgecomp" / "formats" / "__init__.py"
    text = formats.read_text(encoding="utf-8")
    for before, after in (("import dense, lut, lut_narrow", ", toy"), ('    "dense": dense,', '\n    "toy": toy,')):
        assert text.count(before) == 1
        text = text.replace(before, before + after)
    formats.write_text(text, encoding="utf-8")
    run(sys.executable, copy / "runtimes" / "ops" / "generate.py")
    return copy


def build(checkout: Path, adapter: str, options: list[str], libraries: list[str]) -> Path:
    """The library of an adapter with the toy operator beside all others."""
    runtimes = checkout / "runtimes"
    sources = [runtimes / "ops" / "toy_ops.cpp", runtimes / "ops" / "op_table.cpp"]
    sources += sorted((runtimes / "adapters" / adapter).glob("*.cpp"))
    flags = ["-std=c++17", "-O0", "-fPIC", "-fno-exceptions", "-fno-rtti", f"-I{runtimes}", f"-I{runtimes}/include", *options]
    objects = [checkout / f"{adapter}-{source.stem}.o" for source in sources]

    def compile_one(source: Path, to: Path) -> None:
        launcher = [path] if (path := shutil.which("ccache")) else []
        run(*launcher, "c++", *flags, "-c", source, "-o", to)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_one, sources, objects))
    library = checkout / f"libedgecomp_{adapter}.so"
    kernels = Path(native.get_library_path()).parent / "libedgecomp.a"
    run("c++", "-shared", *objects, *libraries, kernels, "-Wl,--no-undefined", "-o", library)
    return library


def executorch_options() -> tuple[list[str], list[str]]:
    """For the compiler and for the linker."""
    package = Path(str(metadata.distribution("executorch").locate_file("executorch")))
    include, libraries = package / "include", package / "lib"
    options = [f"-isystem{include}", f"-isystem{include}/executorch/runtime/core/portable_type/c10"]
    options += ["-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_USE_THREADPOOL", "-DET_EVENT_TRACER_ENABLED"]
    options += [f'-DEDGECOMP_EXECUTORCH_VERSION="{metadata.version("executorch")}"']
    return options, [f"-L{libraries}", "-lexecutorch", "-lexecutorch_threadpool", f"-Wl,-rpath,{libraries}"]


def test_it_is_exported_and_runs_everywhere(checkout: Path, tmp_path: Path) -> None:
    site, folder = tmp_path / "site", Path(native.get_library_path()).parent
    shutil.copytree(checkout / "edgecomp", site / "edgecomp")
    shutil.copytree(checkout / "exporters", site / "edgecomp" / "exporters")
    shutil.copytree(folder, site / "edgecomp" / "lib")
    shutil.copy(build(checkout, "onnxruntime", [], ["-Wl,-u,ec_op_run", "-Wl,-u,ec_kernel_name"]), site / "edgecomp" / "lib")
    shutil.copy(build(checkout, "executorch", *executorch_options()), site / "edgecomp" / "lib")
    paths = (site, CHECKOUT / "tests" / "exporters", CHECKOUT / "tests")
    run(sys.executable, "-P", TOY / "run_toy.py", tmp_path, PYTHONPATH=os.pathsep.join(map(str, paths)))


def test_the_build_finds_its_operators(checkout: Path, tmp_path: Path) -> None:
    options = ("-DEDGECOMP_EXECUTORCH=OFF", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON")
    run("cmake", "-S", checkout / "runtimes", "-B", tmp_path, "-G", "Ninja", *options)
    compiled = json.loads((tmp_path / "compile_commands.json").read_text(encoding="utf-8"))
    assert str(checkout / "runtimes/ops/toy_ops.cpp") in {entry["file"] for entry in compiled}


def test_the_files_that_it_took(checkout: Path) -> None:
    """Those that DESIGN.md lists and no other."""

    def contents(root: Path) -> dict[str, bytes]:
        files = [path for part in PARTS for path in (root / part).rglob("*") if path.is_file() and path.suffix != ".pyc"]
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}

    before, after = contents(CHECKOUT), contents(checkout)
    assert set(after) - set(before) == set(OWN)
    assert {path for path in before if before[path] != after[path]} == REGISTRIES | GENERATED
    (row,) = re.findall(r"^\| a packed format with its operators \|.*$", (CHECKOUT / "DESIGN.md").read_text(encoding="utf-8"), re.M)
    assert set(OWN.values()) | REGISTRIES <= set(re.findall(r"`([^` ]+)`", row))
