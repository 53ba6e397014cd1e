"""Golden data: what an artifact computed where it was exported, beside it, and the test that repeats it on any device.

`model.onnx.golden.json` holds the digests of the artifact's files, some inputs, and of each output some values at even distances,
so that it costs under 1 % of a model of a megabyte. Inputs that were made up are made again, and held to their digest.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from edgecomp.bench.job import Job
from edgecomp.bench.options import BenchOptions
from edgecomp.bench.stats import relative_difference
from edgecomp.bounded import read_json, require_unpackable
from edgecomp.devices import open_device
from edgecomp.devices.session import Session
from edgecomp.errors import CheckpointError, ConfigError, ModelError, VerificationError, first_line
from edgecomp.exported.executorch_file import ExecutorchFile
from edgecomp.exported.files import hash_files
from edgecomp.exported.inputs import LARGEST_INPUT
from edgecomp.exported.library import resolve_library
from edgecomp.exported.onnx_file import OnnxFile
from edgecomp.exported.read import read_exported
from edgecomp.files import replace_file
from edgecomp.identity import METADATA, Identity, digest_of_json, find_identity

SUFFIX = ".golden.json"
TOLERANCE = BenchOptions.max_output_difference  # that of outputs of other devices, whose reasons are the same
_SEQUENCE = 16  # tokens of inputs that are made up
_MOST_SAMPLES = 1000
_MOST_VALUES, _LEAST_VALUES = 256, 8  # kept of an output
_PART = 0.005  # of the artifact's bytes, for values
_BASE64 = 4 / 3


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Output(_Strict):
    """Values of an output: every `step`-th of it in C order, as float32 in base64."""

    shape: list[int] = Field(max_length=16)
    step: int = Field(gt=0)
    values: str


class Sample(_Strict):
    """One inference. Inputs are made of `seed`, or are here: dtype, shape and bytes, packed by zlib, in base64."""

    seed: int
    inputs_sha256: str
    inputs: dict[str, tuple[str, list[int], str]] | None
    outputs: dict[str, Output]


class File(_Strict):
    """A file of the artifact."""

    name: str
    bytes: int
    sha256: str


class Golden(_Strict):
    """The file's contents; `digest` is of all the rest."""

    kind: str
    schema_version: int = Field(ge=1, le=1)
    identity: str | None
    computed_by: str
    files: list[File] = Field(min_length=1)
    sizes: dict[str, int]
    samples: list[Sample] = Field(min_length=1, max_length=_MOST_SAMPLES)
    digest: str


@dataclass(frozen=True)
class SelfTest:
    """What a self-test found.

    Args:
        artifact: file name.
        device: where it ran.
        identity: of the artifact; None for one of another tool, or of an edgecomp before there were identities.
        computed_by: what had computed the golden outputs.
        differences: of each sample's outputs, norm of the difference by norm of the golden; of the worst output.
        tolerance: the bound of these.

    """

    artifact: str
    device: str
    identity: Identity | None
    computed_by: str
    differences: tuple[float, ...]
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether every sample is within the tolerance; NaN is not."""
        return all(difference <= self.tolerance for difference in self.differences)

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {"kind": "selftest", "schema_version": 1, **asdict(self), "passed": self.passed}

    def to_text(self) -> str:
        """The result as lines."""
        worst = max(self.differences, default=0.0)
        lines = [] if self.identity is None else [f"id {self.identity.id}, by edgecomp {self.identity.edgecomp}"]
        same = sum(difference == 0 for difference in self.differences)
        lines.append(
            f"{'passed' if self.passed else 'FAILED'}: {self.artifact} on {self.device}, {len(self.differences)} golden inputs, "
            f"{same} with the very outputs, largest difference {worst:.2e} of {self.tolerance} ({self.computed_by})"
        )
        return "\n".join(lines) + "\n"


def golden_path(artifact: Path) -> Path:
    """Where an artifact's golden data lies."""
    return artifact.with_name(artifact.name + SUFFIX)


def write_golden(
    artifact: Path, count: int, *, inputs: Path | None = None, sizes: Mapping[str, int] | None = None, overwrite: bool = False
) -> Path:
    """Run an artifact here and write its golden data beside it.

    Args:
        artifact: the exported model.
        count: how many inputs.
        inputs: `.npz` with an array for each input whose first axis counts them; by default they are made up.
        sizes: of made-up inputs, of dynamic sizes that are neither a batch nor a sequence.
        overwrite: replace a file that exists.

    Raises:
        ConfigError: a dynamic size is not known, or the inputs do not fit.
        EdgecompError: the artifact does not run here.

    """
    if not 1 <= count <= _MOST_SAMPLES:
        raise ConfigError(f"golden inputs must be 1 to {_MOST_SAMPLES}, got {count}")
    model, sizes = read_exported(artifact), dict(sizes or {})
    given = None if inputs is None else _given(inputs, count)
    total = sum(path.stat().st_size for path in model.files)
    computed_by, runs = "", []
    with _running(model, "local", None, sizes) as run:
        for seed in range(count if given is None else len(given)):
            fed, outputs, computed_by = run(seed, None if given is None else given[seed])
            runs.append((seed, fed, outputs))
    kept = int(total * _PART / _BASE64 / 4 / max(sum(len(outputs) for _, _, outputs in runs), 1))
    samples = [
        Sample(
            seed=seed,
            inputs_sha256=_digest(fed),
            inputs=None if given is None else {name: _packed(array) for name, array in fed.items()},
            outputs={name: _sampled(array, min(max(kept, _LEAST_VALUES), _MOST_VALUES)) for name, array in outputs.items()},
        )
        for seed, fed, outputs in runs
    ]
    identity = _identity(model)
    content = {
        "kind": "golden",
        "schema_version": 1,
        "identity": None if identity is None else str(identity),
        "computed_by": computed_by,
        "files": [asdict(file) for file in hash_files(model)],
        "sizes": sizes,
        "samples": [sample.model_dump(mode="json") for sample in samples],
    }
    path = golden_path(artifact)
    with replace_file(path, overwrite=overwrite) as temporary:
        text = json.dumps(content | {"digest": digest_of_json(content)}, separators=(",", ":"))
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def selftest(artifact: Path, *, device: str = "local", bundle: Path | None = None) -> SelfTest:
    """Hold an artifact to its golden data: its files by their digests, then its outputs on a device.

    Raises:
        ModelError: no artifact, or no golden data beside it.
        CheckpointError: a file is not as it was exported, or the golden data is damaged.
        DeviceError: the device fails.

    """
    model = read_exported(artifact)
    golden = _read(golden_path(artifact))
    _check_files(model, golden)
    differences = []
    with _running(model, device, bundle, golden.sizes) as run:
        for sample in golden.samples:
            fed, outputs, _ = run(sample.seed, None if sample.inputs is None else _unpacked(sample.inputs, artifact))
            if _digest(fed) != sample.inputs_sha256:
                raise CheckpointError(
                    f"{golden_path(artifact)} must give the inputs that were run, and this edgecomp makes others of it"
                )
            differences.append(_difference(outputs, sample.outputs))
    return SelfTest(artifact.name, device, _identity(model), golden.computed_by, tuple(differences), TOLERANCE)


def raise_on_difference(result: SelfTest) -> None:
    """End a self-test whose outputs are others.

    Raises:
        VerificationError: with the largest difference.

    """
    if not result.passed:
        raise VerificationError(
            f"{result.artifact} must compute on {result.device} what it did where it was exported, within {result.tolerance}, and "
            f"differs by {max(result.differences):.3e}"
        )


_Run = Callable[[int, Mapping[str, np.ndarray] | None], tuple[Mapping[str, np.ndarray], dict[str, np.ndarray], str]]


@contextlib.contextmanager
def _running(model: OnnxFile | ExecutorchFile, device: str, bundle: Path | None, sizes: Mapping[str, int]) -> Iterator[_Run]:
    """Runs a seed's inputs, or those given, on a device: gives what ran, the outputs, and what computed them."""
    options = BenchOptions(sequence=_SEQUENCE, sizes=sizes, rounds=1, warmup=0, min_iterations=1, min_duration_s=0, cooldown_s=0)
    library = resolve_library(options.library, model)
    with open_device(device) as opened, tempfile.TemporaryDirectory(prefix="edgecomp-") as folder:
        session = Session(opened, bundle)

        def run(seed: int, inputs: Mapping[str, np.ndarray] | None) -> tuple[Mapping[str, np.ndarray], dict[str, np.ndarray], str]:
            scratch = Path(folder, str(seed))
            scratch.mkdir()
            chosen = replace(options, seed=seed)
            if inputs is not None:
                with (scratch / "inputs.npz").open("wb") as file:
                    np.savez(file, allow_pickle=False, **inputs)
                chosen = replace(chosen, inputs=scratch / "inputs.npz")
            job = Job(session, model, library, chosen, scratch)
            done = job.run_round()
            measured = done.measurement
            kernels = measured.kernels.get("lut_matmul")
            runtime = f"{measured.runtime} {measured.versions.get(measured.runtime, '')}".strip()
            return job.inputs, job.pull_outputs(done), runtime if kernels is None else f"{runtime}, {kernels}"

        yield run


def _given(path: Path, count: int) -> list[dict[str, np.ndarray]]:
    try:
        require_unpackable(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        number = min(count, *(len(array) for array in arrays.values()))
        return [{name: array[i : i + 1] for name, array in arrays.items()} for i in range(number)]
    except Exception as error:  # numpy, zipfile and the tokenizer of numpy's headers raise errors of many unrelated classes
        raise ConfigError(f"{path} must be an .npz with an array for each input, whose first axis counts: {error}") from error


def _sampled(array: np.ndarray, most: int) -> Output:
    flat = np.asarray(array).reshape(-1)
    step = max(-(-flat.size // most), 1)
    values = np.ascontiguousarray(flat[::step], "<f4")
    return Output(shape=list(array.shape), step=step, values=base64.b64encode(values.tobytes()).decode("ascii"))


def _difference(outputs: Mapping[str, np.ndarray], golden: Mapping[str, Output]) -> float:
    """Of the worst output; infinite where one is missing or has another shape."""
    worst = 0.0
    for name, expected in golden.items():
        array = outputs.get(name)
        if array is None or list(array.shape) != expected.shape:
            return float("inf")
        known = np.frombuffer(base64.b64decode(expected.values), "<f4")
        got = np.asarray(array).reshape(-1)[:: expected.step].astype("<f4")
        if not np.array_equal(np.isfinite(got), np.isfinite(known)):
            return float("inf")
        worst = max(worst, relative_difference(got[np.isfinite(got)], known[np.isfinite(known)]))
    return worst


def _packed(array: np.ndarray) -> tuple[str, list[int], str]:
    packed = zlib.compress(np.ascontiguousarray(array).tobytes(), 9)
    return array.dtype.name, list(array.shape), base64.b64encode(packed).decode("ascii")


def _unpacked(inputs: Mapping[str, tuple[str, list[int], str]], path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    for name, (dtype, shape, data) in inputs.items():
        try:
            size = int(np.prod(shape, dtype=float)) * np.dtype(dtype).itemsize
            if np.dtype(dtype).kind not in "biuf" or min(shape, default=1) < 0 or size > LARGEST_INPUT:
                raise ValueError(f"{dtype} {shape}")
            content = zlib.decompressobj().decompress(base64.b64decode(data), size + 1)
            arrays[name] = np.frombuffer(content, dtype).reshape(shape)
        except (ValueError, TypeError, zlib.error, OverflowError) as error:
            raise CheckpointError(f"{golden_path(path)} must hold the input {name} as numbers: {error}") from error
    return arrays


def _digest(inputs: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(inputs):
        array = np.ascontiguousarray(inputs[name])
        digest.update(f" {name} {array.dtype} {list(array.shape)} ".encode() + array.tobytes())
    return digest.hexdigest()


def _identity(model: OnnxFile | ExecutorchFile) -> Identity | None:
    text = model.metadata.get(METADATA) if isinstance(model, OnnxFile) else model.manifest.get("identity")
    return find_identity(str(text).encode()) if text is not None else None


def _read(path: Path) -> Golden:
    if not path.is_file():
        raise ModelError(
            f"no golden data at {path}: `edgecomp export --golden 8` writes it beside the model; copy it with the model"
        )
    try:
        content = read_json(path)
        golden = Golden.model_validate_json(json.dumps(content))
    except (OSError, ValueError) as error:  # pydantic's error is a ValueError
        raise CheckpointError(f"{path} must be golden data as it was written: {first_line(error)}; copy it again") from error
    if golden.digest != digest_of_json({key: value for key, value in content.items() if key != "digest"}):
        raise CheckpointError(f"{path} must be as it was written, but its digest differs: copy it again")
    return golden


def _check_files(model: OnnxFile | ExecutorchFile, golden: Golden) -> None:
    written = {file.name: file.sha256 for file in golden.files}
    for file in hash_files(model):
        if written.get(file.name) != file.sha256:
            raise CheckpointError(
                f"{file.name} must be as it was exported, but its sha256 differs from that in the golden data: it was damaged, or "
                "changed by a tool; copy it again, or export anew"
            )
    if len(written) != len(model.files):
        raise CheckpointError(f"{model.path} must have the files {', '.join(written)}, as it was exported")
