"""The benchmark's record: plain JSON, checked by these models; `Record.model_json_schema()` is its JSON schema.

Bytes and nanoseconds are integers, and every percentile is a sample that was really taken (nearest rank: the smallest sample that
at least p percent of the samples do not exceed).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgecomp.devices.base import Emulation

MEBI = 1024 * 1024
SCHEMA_VERSION: Literal[2] = 2  # grows when a field changes its meaning or goes


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Memory(_Model):
    """Memory of the measured process at one moment.

    Anonymous bytes (heap, stacks, copies of mapped pages) can leave memory only by swapping; file-backed ones are resident pages of
    mapped files, a part of them the artifact's. PSS counts shared pages in proportion. The peak is the high-water mark of resident
    bytes since the last reset.
    """

    anonymous_bytes: int
    file_backed_bytes: int
    artifact_file_backed_bytes: int
    resident_bytes: int
    pss_bytes: int
    peak_resident_bytes: int


class MemoryTrace(_Model):
    """Memory as the process goes on."""

    baseline: Memory = Field(description="runtime loaded, no session")
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


class Output(_Model):
    """An output of the last inference."""

    name: str
    type: str
    sha256: str = Field(description="of its bytes in C order")


class Measurement(_Model):
    """What one process measured; batch and tokens come from the inputs, all else is the runner's answer (runtimes/runner)."""

    runtime: str
    versions: dict[str, str]
    kernels: dict[str, str] = Field(description="kernel variant of each operator of our library; empty without it")
    inputs: dict[str, str]
    outputs: list[Output] = Field(max_length=4096)
    batch: int = Field(gt=0)
    tokens: int | None = Field(description="tokens of one inference, batch x sequence, where the model takes token ids")
    load: Load
    first_inference_ns: int
    warmup_ns: list[int]
    samples_ns: list[Annotated[int, Field(gt=0)]] = Field(min_length=1)
    duration_ns: int = Field(description="time of all samples, the harness's own work included")
    frequency_start_hz: int | None = Field(description="highest of the usable processors, after the warm-up")
    frequency_end_hz: int | None = Field(description="the same after the last sample")
    wall_clock_jump_ns: int = Field(description="by which the wall clock was set during the samples")
    suspended_ns: int = Field(description="for which the machine slept during the samples")
    memory: MemoryTrace
    peak_reset: bool = Field(description="whether the high-water mark was reset after the empty session")
    cache_bytes: int = Field(
        default=0, description="for keys and values of past tokens; 0 without a cache, or where it is not told"
    )


class Conditions(_Model):
    """The machine's state; null or empty where it is not readable."""

    temperatures_celsius: dict[str, float]
    frequencies_hz: list[int]
    throttling: dict[str, int] = Field(description="counts of throttling, and a Raspberry Pi's flags")
    load_average_1min: float | None

    @property
    def hottest_celsius(self) -> float | None:
        """Of all zones."""
        return max(self.temperatures_celsius.values(), default=None)


class Round(_Model):
    """One fresh process."""

    started_utc: str
    cooled_s: float = Field(description="time that the device was given to cool down before")
    before: Conditions
    after: Conditions
    measurement: Measurement
    instructions: int | None = Field(default=None, description="of all samples, where they were counted")


class OperatorTime(_Model):
    """An operator of all nodes of its type."""

    operator: str = Field(description="`LutMatMul`, `aten::add.out`; a delegate's part has the delegate's own name for it")
    nodes: int = Field(description="of this type that ran")
    calls: int = Field(description="in all inferences")
    total_ns: int = Field(description="in all inferences, less what other operators inside it took")


class OperatorTimes(_Model):
    """Time by operator, of a process of its own with the runtime's tracing on: for shares, since tracing takes time itself."""

    inferences: int = Field(gt=0)
    total_ns: int = Field(description="of the inferences; what no operator took is the runtime's")
    operators: list[OperatorTime] = Field(description="the most time first")

    def share(self, operator: OperatorTime) -> float:
        """The part of the inferences' time that an operator took."""
        return operator.total_ns / max(self.total_ns, 1)


class Machine(_Model):
    """The machine that measured."""

    cpu_model: str | None
    cpu_features: list[str]
    cpu_count: int
    usable_cpus: int
    memory_bytes: int | None
    governor: str | None
    board: str | None
    system: str
    kernel: str
    architecture: str
    libc: str


class Environment(Machine):
    """The machine that measured, and the edgecomp that asked it."""

    emulation: Emulation = Field(
        description="`machine`: an emulated processor, its times say nothing; `process`: on the host's kernel, nor does its memory"
    )
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
    uses_edgecomp: bool = Field(description="whether the model has nodes of operators of our library")
    unknown_operators: list[str] = Field(
        default=[], description="operators of our domain that our library does not have, which run by their functions"
    )
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
    """Work per second of inference time: of its mean, and of its median where a language model's tokens are tested."""

    inferences_per_second: float
    items_per_second: float
    item: Literal["token", "input"] = Field(description="token: batch x sequence per inference; input: batch per inference")


class Summary(_Model):
    """Figures derived from the rounds: latency over all samples, everything else the median (nearest rank) of the rounds.

    What an emulator falsifies is null.
    """

    latency: Latency | None
    throughput: Throughput | None
    cold_load_ns: int | None
    warm_load_ns: int | None
    first_inference_ns: int | None
    steady: Memory | None
    above_empty_session: Memory | None = Field(
        description="steady less empty_session of the same process; the peak is less the empty session's resident bytes"
    )
    instructions: int | None = Field(description="of one inference")


class Interval(_Model):
    """A part of a long run, of a minute as a rule."""

    elapsed_ns: int = Field(description="since the run began, at the part's end")
    inferences: Annotated[int, Field(gt=0)]
    p50_ns: int
    p90_ns: int
    max_ns: int
    celsius: float | None = Field(description="of the hottest zone")
    frequency_hz: int | None = Field(description="highest of the usable processors")
    memory: Memory


class Segment(_Model):
    """One process of a long run."""

    started_utc: str
    intervals: list[Interval]
    failure: str | None = Field(default=None, description="why it ended early")


class Endurance(_Model):
    """A long run of one session; of several where a device went down in the middle and the run was resumed."""

    asked_s: float
    interval_s: float
    segments: list[Segment]
    growth_bytes_per_minute: float | None = Field(
        default=None, description="median slope of anonymous bytes over all pairs of intervals of a segment, its first left out"
    )

    @property
    def measured_s(self) -> float:
        """Seconds that were measured, of all segments."""
        return sum(segment.intervals[-1].elapsed_ns / 1e9 for segment in self.segments if segment.intervals)


class SessionMemory(_Model):
    """Memory after so many sessions, none of them open."""

    after_sessions: int
    memory: Memory


class Sessions(_Model):
    """Sessions that were opened, run once and closed, in one process."""

    sessions: Annotated[int, Field(gt=0)]
    duration_ns: int
    memory: list[SessionMemory] = Field(min_length=1)
    growth_bytes: int | None = Field(
        default=None, description="of anonymous memory, by its median slope: the least of all readings' and both halves'"
    )


class Span(_Model):
    """What a meter of energy counted."""

    joules: float
    duration_ns: Annotated[int, Field(gt=0)]
    updates: int = Field(description="how often the meter was seen to change")
    smallest_step: float = Field(description="of a change: joules of a counter, watts of another meter")


class Energy(_Model):
    """Energy of inferences in a process of their own, above the machine's idle power just before."""

    source: str
    counts: bool = Field(description="whether the meter counts joules, or tells watts")
    inferences: Annotated[int, Field(gt=0)]
    idle: Span
    busy: Span
    joules: float | None = Field(default=None, description="of one inference, idle subtracted; null where it is refused")
    resolution_joules: float | None = Field(default=None, description="of one inference: the meter's smallest step by inferences")
    refusal: str | None = Field(default=None, description="why there is no figure")


class Parity(_Model):
    """How the outputs differ from those of the first device, on the same inputs."""

    reference: str
    identical: bool
    relative_difference: float | None = Field(
        description="norm of the difference by norm of the reference, of the worst output; null where it is not finite"
    )


class Validity(_Model):
    """Whether the figures may be quoted, in the manner of MLPerf's validity rules; notes do not make a record invalid."""

    valid: bool
    reasons: list[str]
    notes: list[str]


class TokenTest(_Model):
    """A test of a language model's rate, as llama-bench has it; an inference is one repetition of it."""

    kind: Literal["pp", "tg"] = Field(description="pp: all tokens at once, in parts of 512 at most; tg: one after the other")
    tokens: Annotated[int, Field(gt=0)]
    depth: Annotated[int, Field(ge=0)] = Field(description="tokens that the cache holds before")

    @property
    def name(self) -> str:
        """As llama-bench writes it."""
        return f"{self.kind}{self.tokens}" + (f" @ d{self.depth}" if self.depth else "")


class Record(_Model):
    """One artifact's benchmark on one device; partial where the device failed."""

    kind: Literal["bench"] = "bench"
    schema_version: Literal[2] = SCHEMA_VERSION
    created_utc: str
    command: list[str]
    device: str = Field(description="`local`, or a URL")
    options: dict[str, Any]
    artifact: Artifact
    environment: Environment | None = Field(description="null where the device did not even tell")
    rounds: list[Round] = Field(description="those that were completed")
    summary: Summary | None = Field(description="null where no round was completed")
    parity: Parity | None = None
    operators: OperatorTimes | None = Field(default=None, description="where they were asked for, and the device is not emulated")
    endurance: Endurance | None = Field(default=None, description="where a long run was asked for")
    sessions: Sessions | None = Field(default=None, description="where sessions were to be opened and closed")
    energy: Energy | None = Field(default=None, description="where energy was asked for and the device has a meter")
    token_test: TokenTest | None = Field(default=None, description="of a language model with a cache: what was tested of it")
    failure: str | None = Field(default=None, description="why the record is partial")
    validity: Validity

    @property
    def test(self) -> str:
        """The test in short: `b1 s128`, or `b1` for a model without tokens; `tg128 @ d1024` of one with a cache."""
        if self.token_test is not None:
            return self.token_test.name
        if not self.rounds:
            return "-"
        batch, tokens = self.rounds[0].measurement.batch, self.rounds[0].measurement.tokens
        return f"b{batch}" + ("" if tokens is None else f" s{tokens // batch}")

    @property
    def backend(self) -> str:
        """Runtime and kernels in short."""
        if not self.rounds:
            return "-"
        measurement = self.rounds[0].measurement
        name = f"{measurement.runtime} {measurement.versions.get(measurement.runtime, '')}".strip()
        if self.artifact.library is None:
            return name
        kernels = measurement.kernels if self.artifact.uses_edgecomp else {}
        return f"{name} + {kernels.get('lut_matmul', self.artifact.library)}"

    @property
    def label(self) -> str:
        """The artifact, what is tested of its tokens, and the device where it is not this machine."""
        name = self.artifact.name if self.token_test is None else f"{self.artifact.name} {self.token_test.name}"
        return name if self.device == "local" else f"{name} on {self.device}"
