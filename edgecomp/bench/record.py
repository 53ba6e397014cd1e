"""The benchmark's record: plain JSON, checked by these models; `Record.model_json_schema()` is its JSON schema.

Bytes and nanoseconds are integers, and every percentile is a sample that was really taken (nearest rank: the smallest sample that
at least p percent of the samples do not exceed).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Literal[1] = 1  # grows when a field changes its meaning or goes


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Memory(_Model):
    """Memory of the measured process at one moment; see `edgecomp.bench.memory.MemoryReading`."""

    anonymous_bytes: int
    file_backed_bytes: int
    artifact_file_backed_bytes: int
    resident_bytes: int
    pss_bytes: int
    peak_resident_bytes: int


class MemoryTrace(_Model):
    """Memory as the process goes on."""

    baseline: Memory = Field(description="runtime imported, no session")
    empty_session: Memory = Field(description="with a session on a model of one Identity node")
    loaded: Memory = Field(description="artifact's session created, the empty one gone")
    first_inference: Memory
    steady: Memory = Field(description="after the last sample")


class Load(_Model):
    """Time to create the session, the library's registration included."""

    cold_ns: int = Field(description="first load of the process")
    warm_ns: int = Field(description="load again in the same process after the samples: files cached, allocator warm")
    page_cache_dropped: bool = Field(description="whether the system was asked to drop the files' pages before the cold load")
    cached_bytes_before_cold: int = Field(description="bytes of the files still cached before the cold load; 0 is truly cold")


class Measurement(_Model):
    """What one process measured: the answer of `edgecomp.bench._worker`, and later of the C++ runner."""

    runtime: str
    versions: dict[str, str]
    kernels: dict[str, str] = Field(description="kernel variant of each operator of our library; empty without it")
    inputs: dict[str, str]
    batch: int
    tokens: int | None = Field(description="tokens of one inference, batch x sequence, where the model takes token ids")
    load: Load
    first_inference_ns: int
    warmup_ns: list[int]
    samples_ns: list[int] = Field(min_length=1)
    duration_ns: int = Field(description="wall time of all samples, the harness's own work included")
    memory: MemoryTrace
    peak_reset: bool = Field(description="whether the high-water mark was reset after the empty session")


class Conditions(_Model):
    """The machine's state; null or empty where it is not readable."""

    temperatures_celsius: dict[str, float]
    frequencies_hz: list[int]
    load_average_1min: float | None


class Round(_Model):
    """One fresh process."""

    started_utc: str
    before: Conditions
    after: Conditions
    measurement: Measurement


class Environment(_Model):
    """The machine and the software around the measurement."""

    cpu_model: str | None
    cpu_features: list[str]
    cpu_count: int
    usable_cpus: int
    memory_bytes: int | None
    governor: str | None
    system: str
    kernel: str
    architecture: str
    libc: str
    edgecomp_version: str
    git_commit: str | None = Field(description="of the edgecomp checkout that ran, with -dirty where files differ from it")


class ArtifactFile(_Model):
    """A file of the artifact."""

    name: str
    bytes: int
    sha256: str


class Artifact(_Model):
    """What was measured."""

    name: str
    bytes: int
    files: list[ArtifactFile]
    uses_edgecomp: bool = Field(description="whether the model has ai.edgecomp nodes")
    library: str | None = Field(description="file name of the registered custom-op library")


class Latency(_Model):
    """Percentiles of all rounds' samples together."""

    count: int
    min_ns: int
    p10_ns: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    max_ns: int
    mean_ns: float
    round_p50_ns: list[int]


class Throughput(_Model):
    """Work per second of inference time."""

    inferences_per_second: float
    items_per_second: float
    item: Literal["token", "input"] = Field(description="token: batch x sequence per inference; input: batch per inference")


class Summary(_Model):
    """Figures derived from the rounds: latency over all samples, everything else the median (nearest rank) of the rounds."""

    latency: Latency
    throughput: Throughput
    cold_load_ns: int
    warm_load_ns: int
    first_inference_ns: int
    steady: Memory
    above_empty_session: Memory = Field(
        description="steady less empty_session of the same process; the peak is less the empty session's resident bytes"
    )


class Validity(_Model):
    """Whether the figures may be quoted, in the manner of MLPerf's validity rules; notes do not make a record invalid."""

    valid: bool
    reasons: list[str]
    notes: list[str]


class Record(_Model):
    """One artifact's benchmark."""

    kind: Literal["bench"] = "bench"
    schema_version: Literal[1] = SCHEMA_VERSION
    created_utc: str
    command: list[str]
    device: str = Field(description="where it ran; `local`, later `ssh://...` and the like")
    options: dict[str, Any]
    artifact: Artifact
    environment: Environment
    rounds: list[Round] = Field(min_length=1)
    summary: Summary
    validity: Validity

    @property
    def test(self) -> str:
        """The test in short: `b1 s128`, or `b1` for a model without tokens."""
        batch, tokens = self.rounds[0].measurement.batch, self.rounds[0].measurement.tokens
        return f"b{batch}" + ("" if tokens is None else f" s{tokens // batch}")

    @property
    def backend(self) -> str:
        """Runtime and kernels in short."""
        measurement = self.rounds[0].measurement
        name = f"{measurement.runtime} {measurement.versions.get(measurement.runtime, '')}".strip()
        return name if self.artifact.library is None else f"{name} + {measurement.kernels.get('lut_matmul', self.artifact.library)}"
