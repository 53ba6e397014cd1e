"""What to measure, and how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgecomp.errors import ConfigError


@dataclass(frozen=True)
class BenchOptions:
    """Options of a benchmark; the command line's flags have the same names.

    Args:
        threads: intra-op threads; inter-op is always 1.
        batch: value of dynamic batch sizes.
        sequence: value of dynamic sequence lengths.
        sizes: values of other dynamic sizes, by their name in the model.
        inputs: `.npz` with an array for each input; without it inputs are made, see `edgecomp.exported.inputs`.
        token_ids: made token ids are below this.
        seed: of the made inputs.
        library: `auto` (ours, if the model has nodes of ours), `none`, or the path of a custom-op library.
        rounds: fresh processes per artifact; with several artifacts they alternate, so that drift hits all alike.
        warmup: inferences after the first that are not counted.
        min_iterations: a round takes at least so many samples,
        min_duration_s: and at least so many seconds,
        max_duration_s: but ends after so many seconds, which makes the record invalid if the minimum was not reached.
        max_spread: bound of (p90 - p10) / p50 of all samples, and of (slowest - fastest) / fastest of the rounds' p50.
        cpus: processors to run on; empty for all.
        max_start_celsius: a round starts when no thermal zone is hotter,
        cooldown_s: but waits for that so many seconds at most, and then makes the record invalid.
        max_frequency_drop: bound of the part by which the processor's frequency falls during a round.
        max_output_difference: bound of the outputs' relative difference to those of the first device: processors add in different
            orders, and where activations are rounded to int8 a last digit decides between two values.
        timeout_s: after so many seconds a round is given up.
        count_instructions: count the instructions of an inference, on devices that are emulated.
        endure_s: run one session for so many seconds after the rounds; 0 for not at all.
        interval_s: of such a run, what is told of each part.
        sessions: open, run once and close so many sessions after the rounds; 0 for none.
        energy_s: measure energy for so many seconds after the rounds, and idle power as long before, up to ten; 0 for not at all.
        time_operators: time each operator, in a process after the rounds, on devices that are not emulated.
        prompt_tokens: tests of a language model's folder: how many tokens are given to it at once,
        generate_tokens: and how many one after the other,
        depths: each behind so many that its cache holds.
        repetitions: of each such test in a round, in the place of `min_iterations` and `min_duration_s`.

    Raises:
        ConfigError: a value is out of range.

    """

    threads: int = 1
    batch: int = 1
    sequence: int = 128
    sizes: Mapping[str, int] = field(default_factory=dict)
    inputs: Path | None = None
    token_ids: int = 100
    seed: int = 0
    library: str = "auto"
    rounds: int = 3
    warmup: int = 5
    min_iterations: int = 50
    min_duration_s: float = 1.0
    max_duration_s: float = 60.0
    max_spread: float = 0.5
    cpus: tuple[int, ...] = ()
    max_start_celsius: float = 70.0
    cooldown_s: float = 120.0
    max_frequency_drop: float = 0.1
    max_output_difference: float = 0.05
    timeout_s: float = 600.0
    count_instructions: bool = False
    time_operators: bool = False
    endure_s: float = 0.0
    interval_s: float = 60.0
    sessions: int = 0
    energy_s: float = 0.0
    prompt_tokens: tuple[int, ...] = (512,)
    generate_tokens: tuple[int, ...] = (128,)
    depths: tuple[int, ...] = (0,)
    repetitions: int = 5

    def __post_init__(self) -> None:
        least: dict[str, float] = {"threads": 1, "batch": 1, "sequence": 1, "token_ids": 2, "rounds": 1, "warmup": 0}
        least |= {"min_iterations": 1, "repetitions": 1}
        least |= {"min_duration_s": 0, "max_spread": 0, "cooldown_s": 0, "max_frequency_drop": 0, "max_output_difference": 0}
        least |= {"timeout_s": 1, "endure_s": 0, "interval_s": 0.001, "sessions": 0, "energy_s": 0}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name} must be at least {minimum}, got {getattr(self, name)}")
        for name, value in self.sizes.items():
            if value < 0:
                raise ConfigError(f"the size {name} must be at least 0, got {value}")
        if self.max_duration_s < self.min_duration_s:
            raise ConfigError(f"max_duration_s must be at least min_duration_s ({self.min_duration_s}), got {self.max_duration_s}")
        if self.inputs is not None and not self.inputs.is_file():
            raise ConfigError(f"no input file at {self.inputs}: `inputs` must name an .npz with one array for each input")
