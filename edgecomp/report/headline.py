"""The first screen: how small, how good, how fast, how much memory and energy, beside the original and the best stock twin.

The subject is the first artifact that calls operators of ours (or that requirements name), on the first device. The original is the
stock file whose outputs are the reference's but for rounding. Its best stock twin is, of the other stock files, the one that is
closest to the original, or the smallest where nothing was verified; where yet another is better in a tile's own figure, it stands
there too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from edgecomp.acceptance import Requirements, Verdict
from edgecomp.bench.record import MEBI, Record
from edgecomp.report.comparison import p50_ratio
from edgecomp.report.run_folder import Quality, Runs, quality_of
from edgecomp.verify.result import VerifyResult, bracketed

_ROUNDING = 1e-3  # relative error of an artifact that is the original in float32 or float16

# Which tile a required figure belongs to, by the figure's first word.
_TILES = {
    "bytes": "Size",
    **dict.fromkeys(("quality", "worst", "perturbed", "flips", "cosine", "perplexity"), "Quality"),
    **dict.fromkeys(("p50", "p90", "p99", "load"), "Speed"),
    **dict.fromkeys(("peak", "growth"), "Memory"),
    "joules": "Energy",
}


@dataclass(frozen=True)
class Tile:
    """One figure of the subject.

    Args:
        title: what it answers.
        value: with its unit; "not measured" where there is none.
        lines: what it is against something else, as (what, how much).
        caveats: what is to be known before it is quoted.
        outcome: of the requirements on it; "" without any.

    """

    title: str
    value: str
    lines: tuple[tuple[str, str], ...]
    caveats: tuple[str, ...]
    outcome: str = ""

    @property
    def measured(self) -> bool:
        """Whether there is a figure."""
        return self.value != _NOT_MEASURED


@dataclass(frozen=True)
class Headline:
    """What the tiles are of, and the tiles."""

    subject: str
    peers: tuple[tuple[str, str], ...]
    tiles: tuple[Tile, ...]


_NOT_MEASURED = "not measured"
TWIN = "best stock twin"


@dataclass(frozen=True)
class _Peer:
    """An artifact that the subject is held against."""

    role: str
    record: Record
    quality: Quality | None
    result: VerifyResult | None


def headline(runs: Runs, requirements: Requirements | None, verdict: Verdict | None) -> Headline | None:
    """The first screen; None without a benchmark."""
    subject = _subject(runs.records, requirements)
    if subject is None:
        return None
    stock = [_peer("", runs, record) for record in runs.records if _comparable(record, subject)]
    original = min((peer for peer in stock if _relative(peer) <= _ROUNDING), key=_relative, default=None)
    stock = [peer for peer in stock if peer is not original]
    twin = min(stock, key=_distance, default=None)
    peers = [
        *([] if original is None else [replace(original, role="original")]),
        *([] if twin is None else [replace(twin, role=TWIN)]),
    ]
    others = [record for record in runs.records if record.artifact == subject.artifact and record.device != subject.device]
    outcomes = {} if verdict is None else _outcomes(verdict)
    tiles = (
        _size(runs, subject, [*peers, *_better(stock, twin, _bytes, "smallest stock file")]),
        _quality(_peer("", runs, subject), peers),
        _speed(subject, [*peers, *_better(stock, twin, _p50, "fastest stock file")], others),
        _memory(subject, [*peers, *_better(stock, twin, _peak, "stock file of least memory")], others),
        _energy(subject, [*peers, *_better(stock, twin, _joules, "stock file of least energy")], others),
    )
    return Headline(
        subject.label,
        tuple((peer.role, peer.record.artifact.name) for peer in peers),
        tuple(replace(tile, outcome=outcomes.get(tile.title, "")) for tile in tiles),
    )


def _subject(records: Sequence[Record], requirements: Requirements | None) -> Record | None:
    named = None if requirements is None else requirements.artifact
    found = [record for record in records if named is not None and fnmatchcase(record.artifact.name, named)]
    found = found or [record for record in records if record.artifact.uses_edgecomp] or list(records)
    return next((record for record in found if record.validity.valid), next(iter(found), None))


def _comparable(record: Record, subject: Record) -> bool:
    return record.device == subject.device and not record.artifact.uses_edgecomp and record.artifact != subject.artifact


def _peer(role: str, runs: Runs, record: Record) -> _Peer:
    result = runs.verification_of(record)
    return _Peer(role, record, None if result is None else quality_of(result), result)


def _relative(peer: _Peer) -> float:
    relative = None if peer.quality is None else peer.quality.relative
    return float("inf") if relative is None else relative


def _distance(peer: _Peer) -> tuple[float, float]:
    quality = peer.quality
    bad = float("inf")
    if quality is not None and quality.perplexity is not None:
        bad = quality.perplexity
    elif quality is not None and quality.cosine is not None:
        bad = 1 - quality.cosine
    return bad, peer.record.artifact.bytes


def _better(stock: Sequence[_Peer], twin: _Peer | None, figure: Callable[[Record], float | None], role: str) -> list[_Peer]:
    """The stock file that is better than the twin in a figure; none where the twin is the best."""
    measured = [(value, peer) for peer in stock if (value := figure(peer.record)) is not None]
    least = min(measured, key=lambda pair: pair[0], default=None)
    return [] if least is None or least[1] is twin else [replace(least[1], role=role)]


def _outcomes(verdict: Verdict) -> dict[str, str]:
    """The worst outcome of each tile's requirements."""
    found: dict[str, str] = {}
    for outcome in ("passed", "not judged", "failed"):
        for line in verdict.lines:
            if line.outcome == outcome:
                found[_TILES[line.requirement.replace("_", " ").split(" ")[0]]] = outcome
    return found


def ratio(ours: float, theirs: float, better: str, worse: str) -> str:
    """Such as `3.95x faster`, of figures where less is better."""
    if ours <= 0 or theirs <= 0:
        return "nothing to compare"
    times = theirs / ours
    return f"{times:.2f}x {better}" if times >= 1 else f"{1 / times:.2f}x {worse}"


def _size(runs: Runs, subject: Record, peers: Sequence[_Peer]) -> Tile:
    size, inspection = subject.artifact.bytes, runs.inspection_of(subject)
    lines, caveats = [], ["all files as shipped, the graph included"]
    if inspection is None:
        caveats.append("parameters are not known without inspect*.json")
    else:
        parameters = inspection.size.parameters
        for name, width in (("float32", 4), ("16 bits", 2)):
            lines.append((f"than {name}", f"{ratio(size, width * parameters, 'smaller', 'larger')}, {_mib(width * parameters)}"))
        caveats.append(f"{8 * size / parameters:.2f} bits a weight, {parameters:,} parameters")
    lines += _lines(
        [peer for peer in peers if inspection is None or peer.role != "original"],
        _bytes,
        _mib,
        lambda record: ratio(size, record.artifact.bytes, "smaller", "larger"),
    )
    return Tile("Size", _mib(size), tuple(lines), tuple(caveats))


def _quality(subject: _Peer, peers: Sequence[_Peer]) -> Tile:
    judgement = None if subject.result is None else subject.result.judgement
    quality = subject.quality
    if judgement is not None and judgement.overall.value is not None:
        return _judged(subject, peers)
    if quality is not None and quality.perplexity is not None:
        lines = [] if quality.reference_perplexity is None else [("original", f"{quality.reference_perplexity:.2f}")]
        told = ((peer, peer.quality.perplexity) for peer in peers if peer.quality is not None and peer.role != "original")
        lines += [(f"{peer.role} {peer.record.artifact.name}", f"{value:.2f}") for peer, value in told if value is not None]
        return Tile("Quality", f"perplexity {quality.perplexity:.2f}", tuple(lines), ("lower is better",))
    if quality is not None and quality.cosine is not None:
        told = ((peer, peer.quality.cosine) for peer in peers if peer.quality is not None and peer.role != "original")
        lines = [(f"{peer.role} {peer.record.artifact.name}", f"{value:.4f}") for peer, value in told if value is not None]
        caveats = (
            f"mean over {quality.cosine_of}, to the original's outputs, whose own is 1",
            "how close, and not how good: that takes verify --labels or --metric",
        )
        return Tile("Quality", f"cosine {quality.cosine:.4f}", tuple(lines), caveats)
    return Tile("Quality", _NOT_MEASURED, (), ("edgecomp verify --json into verify.json",))


def _judged(subject: _Peer, peers: Sequence[_Peer]) -> Tile:
    assert subject.result is not None
    judgement = subject.result.judgement
    assert judgement is not None
    overall = judgement.overall
    lines = []
    if overall.original is not None and overall.difference is not None:
        between = bracketed(overall.difference_low, overall.difference_high, sign="+")
        lines.append(("original", f"{overall.original:.4f}, a difference of {overall.difference:+.4f}{between}"))
    if overall.flips is not None:
        flips = overall.flips
        lines.append(("flips", f"{flips.to_wrong} right to wrong, {flips.to_right} back, of {flips.answers:,}"))
    worst = judgement.worst_slice
    if worst is not None and worst.difference is not None:
        lines.append((f"worst slice, {worst.name}", f"{worst.value:.4f}, a difference of {worst.difference:+.4f}"))
    for score in judgement.perturbations:
        if score.difference is not None:
            lines.append((score.name, f"{score.difference:+.4f} beyond the original's own loss"))
    for peer in peers:
        other = None if peer.result is None else peer.result.judgement
        if peer.role != "original" and other is not None and other.metric == judgement.metric and other.overall.value is not None:
            lines.append((f"{peer.role} {peer.record.artifact.name}", f"{other.overall.value:.4f}"))
    few = () if overall.judged else (f"! {overall.examples} examples are too few to judge",)
    interval = bracketed(overall.low, overall.high)
    caveats = (*few, f"{overall.examples:,} examples{f'; 95 % within{interval}' if interval else ''}")
    return Tile("Quality", f"{judgement.metric} {overall.value:.4f}", tuple(lines), caveats)


def _speed(subject: Record, peers: Sequence[_Peer], others: Sequence[Record]) -> Tile:
    own = _p50(subject)
    if own is None:
        return Tile("Speed", _NOT_MEASURED, (), (_why_no_times(subject),))

    def against(record: Record) -> str:
        theirs = _p50(record)
        assert theirs is not None  # of those that are told
        low, high = p50_ratio(record, subject)
        word = ratio(own, theirs, "faster", "slower")
        return f"{word} [{low:.2f}, {high:.2f}]" if theirs >= own else word

    assert subject.summary is not None
    assert subject.summary.latency is not None
    lines = [("p90", _ms(subject.summary.latency.p90_ns)), *_lines(peers, _p50, _ms, against), *_elsewhere(others, _p50, _ms)]
    threads = subject.options["threads"]
    how = f"{subject.test}, {threads} thread{'' if threads == 1 else 's'}, {subject.backend}"
    return Tile("Speed", f"{_ms(own)} p50", tuple(lines), (*_invalid(subject, peers), how))


def _memory(subject: Record, peers: Sequence[_Peer], others: Sequence[Record]) -> Tile:
    own = _peak(subject)
    if own is None:
        return Tile("Memory", _NOT_MEASURED, (), (_why_no_times(subject),))
    assert subject.summary is not None
    assert subject.summary.above_empty_session is not None
    lines = [
        ("anonymous", _mib(subject.summary.above_empty_session.anonymous_bytes)),
        *_lines(peers, _peak, _mib, lambda record: ratio(own, _peak(record) or 0, "smaller", "larger")),
        *_elsewhere(others, _peak, _mib),
    ]
    return Tile("Memory", f"{_mib(own)} peak", tuple(lines), (*_invalid(subject, peers), "resident, above an empty session"))


def _energy(subject: Record, peers: Sequence[_Peer], others: Sequence[Record]) -> Tile:
    energy = subject.energy
    if energy is None:
        return Tile("Energy", _NOT_MEASURED, (), ("edgecomp bench --energy, where there is a meter",))
    if energy.joules is None:
        return Tile("Energy", _NOT_MEASURED, (), (f"! refused: {energy.refusal}",))
    own = energy.joules
    lines = [
        *_lines(peers, _joules, _mj, lambda record: ratio(own, _joules(record) or 0, "less", "more")),
        *_elsewhere(others, _joules, _mj),
    ]
    step = "" if energy.resolution_joules is None else f", resolved to {_mj(energy.resolution_joules)}"
    return Tile("Energy", f"{_mj(own)} each", tuple(lines), (f"an inference above idle, by {energy.source}{step}",))


def _lines(
    peers: Sequence[_Peer],
    figure: Callable[[Record], float | None],
    text: Callable[[float], str],
    compared: Callable[[Record], str],
) -> list[tuple[str, str]]:
    found = []
    for peer in peers:
        value = figure(peer.record)
        if value is not None:
            found.append((f"{peer.role} {peer.record.artifact.name}", f"{compared(peer.record)}, {text(value)}"))
    return found


def _elsewhere(
    others: Sequence[Record], figure: Callable[[Record], float | None], text: Callable[[float], str]
) -> list[tuple[str, str]]:
    values = [(record.device, figure(record)) for record in others]
    return [(f"on {device}", text(value)) for device, value in values if value is not None]


def _invalid(subject: Record, peers: Sequence[_Peer]) -> tuple[str, ...]:
    """Doubts that go with every figure of a record."""
    records = [subject, *(peer.record for peer in peers)]
    return tuple(f"! {record.artifact.name}: {record.validity.reasons[0]}" for record in records if record.validity.reasons)


def _why_no_times(record: Record) -> str:
    if record.environment is not None and record.environment.emulation != "no":
        return "emulated: times and memory say nothing"
    return f"! {record.failure}" if record.failure else "the record has none"


def _bytes(record: Record) -> int:
    return record.artifact.bytes


def _p50(record: Record) -> int | None:
    return None if record.summary is None or record.summary.latency is None else record.summary.latency.p50_ns


def _peak(record: Record) -> int | None:
    above = None if record.summary is None else record.summary.above_empty_session
    return None if above is None else above.peak_resident_bytes


def _joules(record: Record) -> float | None:
    return None if record.energy is None else record.energy.joules


def _mib(value: float) -> str:
    return f"{value / MEBI:.2f} MiB"


def _ms(value: float) -> str:
    return f"{value / 1e6:.3g} ms" if value < 1e9 else f"{value / 1e6:,.0f} ms"


def _mj(value: float) -> str:
    return f"{1000 * value:.3g} mJ"
