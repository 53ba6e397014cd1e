"""What is brought to a device: the measuring program, our library, and the runtime, for one architecture.

For this machine they lie in the installed packages. For another, `edgecomp device-bundle` collects them in a folder, together with
the C library they were linked with, so that they run on devices with an older one (Raspberry Pi OS 11) or another (Android).
"""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import edgecomp
from edgecomp.bounded import LARGEST_CONFIGURATION_BYTES, read_json
from edgecomp.errors import CheckpointError, ConfigError, DeviceError, RuntimeUnavailableError

DESCRIPTION = "bundle.json"
# That bundles are made for.
ARCHITECTURES = ("aarch64",)
# Our operators by the runtime.
LIBRARIES: Mapping[str, str] = {"onnxruntime": "libedgecomp_onnxruntime.so", "executorch": "libedgecomp_executorch.so"}
LOADER = "ld-linux-aarch64.so.1"
# Names of the programs by the suffix of what they run: edgecomp-run-NAME.
RUNNERS: Mapping[str, str] = {".onnx": "onnxruntime", ".ort": "onnxruntime", ".pte": "executorch"}
_ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
_LIB = Path(edgecomp.__file__).parent / "lib"


@dataclass(frozen=True)
class Bundle:
    """Files by their names on the device.

    Args:
        architecture: as `uname -m` says it.
        files: the programs, libraries and, for another machine than this, its C library.

    """

    architecture: str
    files: Mapping[str, Path]

    def runner_for(self, artifact: Path) -> str:
        """Name of the program that runs an artifact.

        Raises:
            ConfigError: there is none for such a file.
            RuntimeUnavailableError: the bundle does not have it.

        """
        name = f"edgecomp-run-{_runtime_of(artifact)}"
        if name not in self.files:
            raise RuntimeUnavailableError(
                f"{name} must be there to run {artifact} on {self.architecture}, and is not: "
                "this edgecomp, or the bundle, was built without it (README.md, Install)"
            )
        return name

    def library_for(self, artifact: Path) -> str:
        """Name of the library of our operators for the artifact's runtime, which the bundle may not have.

        Raises:
            ConfigError: there is no runtime for such a file.

        """
        return LIBRARIES[_runtime_of(artifact)]

    @property
    def runs(self) -> tuple[str, ...]:
        """Suffixes of the artifacts that it has a program for."""
        return tuple(suffix for suffix, name in RUNNERS.items() if f"edgecomp-run-{name}" in self.files)

    @property
    def runtime(self) -> str | None:
        """Name of ONNX Runtime's library."""
        return next((name for name in self.files if name.startswith("libonnxruntime.so")), None)

    @property
    def brings_libc(self) -> bool:
        """Whether programs are started by the bundle's own loader."""
        return LOADER in self.files


def host_bundle() -> Bundle:
    """What is installed on this machine.

    Raises:
        RuntimeUnavailableError: the package has no measuring program (it was built for another system than Linux).

    """
    files = {path.name: path for path in sorted(_LIB.glob("edgecomp-run-*"))}
    if not files:
        raise RuntimeUnavailableError(
            f"the measuring program must be installed with the package, found none in {_LIB}; install a Linux wheel, or build one"
        )
    runtime = _installed_runtime()
    libraries = [_LIB / name for name in LIBRARIES.values()]
    files |= {path.name: path for path in (*libraries, runtime) if path is not None and path.is_file()}
    return Bundle(platform.machine(), files)


def _runtime_of(artifact: Path) -> str:
    if artifact.suffix not in RUNNERS:
        raise ConfigError(f"an artifact must be one of *{', *'.join(RUNNERS)}, got {artifact}")
    return RUNNERS[artifact.suffix]


def _installed_runtime() -> Path | None:
    """ONNX Runtime's library in the installed wheel, found without importing it."""
    found = importlib.util.find_spec("onnxruntime")
    for location in (found.submodule_search_locations or ()) if found is not None else ():
        for path in sorted((Path(location) / "capi").glob("libonnxruntime.so.*")):
            return path
    return None


def default_folder(architecture: str) -> Path:
    """Where `edgecomp device-bundle` writes by default, and `bench` and `doctor` look."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "edgecomp" / "bundles" / f"{edgecomp.__version__}-{architecture}"


def read_bundle(folder: Path) -> Bundle:
    """A bundle that `edgecomp device-bundle` wrote.

    Raises:
        RuntimeUnavailableError: there is none.
        CheckpointError: it is not complete, or of another version of edgecomp.

    """
    description = folder / DESCRIPTION
    if not description.is_file():
        raise RuntimeUnavailableError(
            f"no device bundle in {folder}: `edgecomp device-bundle --arch aarch64` makes one, or give its folder by --bundle"
        )
    try:
        content = read_json(description, LARGEST_CONFIGURATION_BYTES)
        architecture, version, names = content["architecture"], content["edgecomp"], content["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{description} is not a bundle's description ({error}): make the bundle again") from error
    if version != edgecomp.__version__:
        raise CheckpointError(f"the bundle in {folder} is of edgecomp {version}, this is {edgecomp.__version__}: make it again")
    if not isinstance(names, list) or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise CheckpointError(f"{description} must list names of files beside it: make the bundle again")
    files = {name: folder / name for name in names}
    missing = [name for name, path in files.items() if not path.is_file()]
    if missing:
        raise CheckpointError(f"the bundle in {folder} lacks {', '.join(missing)}: make it again")
    for path in files.values():
        found = _machine_of(path)
        if found != _ELF_MACHINES.get(architecture):
            raise CheckpointError(f"{path} must be a program or library for {architecture}, and is not: make the bundle again")
    return Bundle(architecture, files)


def _machine_of(path: Path) -> int | None:
    """The machine that an ELF file is for, by its header; None for another file."""
    with path.open("rb") as file:
        head = file.read(20)
    return int.from_bytes(head[18:20], "little") if head[:4] == b"\x7fELF" else None


def require_machine(library: Path, architecture: str) -> None:
    """Refuse a library that a device of that architecture cannot load.

    Raises:
        RuntimeUnavailableError: it is for another machine, or no library.

    """
    if architecture in _ELF_MACHINES and _machine_of(library) != _ELF_MACHINES[architecture]:
        raise RuntimeUnavailableError(
            f"{library} must be a library for {architecture}, which the device is, and is not: give one that was built for it, or "
            "leave --library out for the bundle's"
        )


def bundle_for(architecture: str, folder: Path | None) -> Bundle:
    """The bundle for a device: the one in `folder` if it fits, else this machine's files if they do, else the default place's.

    Raises:
        RuntimeUnavailableError: there is none.
        CheckpointError: it is not complete.
        ConfigError: `folder` holds one for another architecture.
        DeviceError: none can be made for it.

    """
    here = architecture == platform.machine()
    if not here and folder is None and architecture not in ARCHITECTURES:
        raise DeviceError(
            f"a device must be {' or '.join(ARCHITECTURES)}, as its `uname -m` says it, got {architecture}; a Raspberry Pi 3 or "
            "later is that with a 64-bit system"
        )
    if folder is None and here:
        return host_bundle()
    bundle = read_bundle(folder or default_folder(architecture))
    if bundle.architecture != architecture:
        if here:
            return host_bundle()
        raise ConfigError(f"the device is {architecture}, and the bundle in {folder} is for {bundle.architecture}: give one for it")
    return bundle
