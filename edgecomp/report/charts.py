"""The report's charts: plotly figures whose colours read on white and on black."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from edgecomp.bench.record import MEBI, Record
from edgecomp.inspect.result import Inspection
from edgecomp.report.point_names import name_points
from edgecomp.report.run_folder import Quality

INK = "#757a82"  # of what the style sheet does not colour by the scheme: marks, not words
GRID = "rgba(128,128,128,0.25)"
# Of marks: at least 3 to 1 on white and on the page's dark background.
BLUE, ORANGE, GREEN, PURPLE, RED = "#3987c9", "#c67600", "#1a9e77", "#9a6fc0", "#cc5a5a"

# What the arrays of packed formats are for; arrays that are not named here stand for themselves.
_PARTS = {
    "codes": "codes",
    "scales": "scales",
    "row_scale": "scales",
    "codebooks": "codebooks",
    "tile_book": "codebooks",
    "row_index": "permutations",
}

_BAR_PIXELS, _FRAME_PIXELS = 38, 110
_LARGEST_BOX = 2000  # samples of a box


def size_chart(records: Sequence[Record]) -> go.Figure:
    """File bytes of each artifact, once for all devices."""
    artifacts = {tuple(file.sha256 for file in record.artifact.files): record for record in records}
    sizes = [record.artifact.bytes / MEBI for record in artifacts.values()]
    names = _told_apart([record.artifact.name for record in artifacts.values()])
    bars = _bars(names, sizes, "files", BLUE, text=[f"{size:.1f}" for size in sizes])
    return _framed(go.Figure(bars), len(names), "MiB", range=[0, max(sizes) * 1.15])


def latency_chart(records: Sequence[Record]) -> go.Figure | None:
    """The samples of all rounds; None where no record has times."""
    figure = go.Figure()
    for record, label in zip(records, labels(records), strict=True):
        if record.summary is None or record.summary.latency is None:
            continue
        samples = sorted(sample / 1e6 for round_ in record.rounds for sample in round_.measurement.samples_ns)
        # Evenly spaced ranks say what all samples say, and do not make the page grow with the length of a run.
        thinned = samples[:: -(-len(samples) // _LARGEST_BOX)] + samples[-1:]
        figure.add_box(
            x=thinned, name=label, orientation="h", boxpoints="outliers", marker={"color": BLUE, "size": 3}, line_width=1.5
        )
    if not figure.data:
        return None
    figure.update_layout(showlegend=False)
    return _framed(figure, len(figure.data), "ms per inference", rangemode="tozero")


def quality_charts(records: Sequence[Record], qualities: Sequence[Quality | None]) -> dict[str, go.Figure]:
    """Quality against file size and against p50, by `size` and `latency`; left out where nothing was verified, or timed."""
    rows = list(zip(records, labels(records), qualities, strict=True))
    measured = [(*row, row[2].perplexity) for row in rows if row[2] is not None and row[2].perplexity is not None]
    title, better = "perplexity (lower is better)", min
    if not measured:
        measured = [(*row, row[2].cosine) for row in rows if row[2] is not None and row[2].cosine is not None]
        title, better = "cosine to the original", max
    sized = [
        _Point(record.artifact.bytes / MEBI, value, label, record.artifact.uses_edgecomp) for record, label, _, value in measured
    ]
    timed = [
        _Point(record.summary.latency.p50_ns / 1e6, value, label, record.artifact.uses_edgecomp)
        for record, label, _, value in measured
        if record.summary is not None and record.summary.latency is not None
    ]
    found = {"size": (sized, "MiB of files"), "latency": (timed, "p50 ms per inference")}
    return {name: _tradeoff(points, x_title, title, better) for name, (points, x_title) in found.items() if points}


@dataclass(frozen=True)
class _Point:
    """An artifact in a chart of quality against cost; `own` where it has nodes of ours."""

    cost: float
    quality: float
    label: str
    own: bool


def _tradeoff(points: Sequence[_Point], x_title: str, y_title: str, better: Callable[..., float]) -> go.Figure:
    """The points, ours in another colour, and a line through those that no other beats in both."""
    best: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: (point.cost, point.quality if better is min else -point.quality)):
        if not best or (point.quality != best[-1][1] and better(point.quality, best[-1][1]) == point.quality):
            best.append((point.cost, point.quality))
    figure = go.Figure(
        [
            go.Scatter(
                x=[cost for cost, _ in best],
                y=[quality for _, quality in best],
                mode="lines",
                line={"color": GREEN, "width": 1.5, "dash": "dot"},
                hoverinfo="skip",
            ),
            go.Scatter(
                x=[point.cost for point in points],
                y=[point.quality for point in points],
                text=[point.label for point in points],
                mode="markers",
                marker={"size": 11, "color": [ORANGE if point.own else BLUE for point in points]},
                hovertemplate="%{text}<br>%{x:.2f}<br>%{y:.4f}<extra></extra>",
            ),
        ]
    )
    figure.update_layout(showlegend=False)
    figure = _framed(figure, 7, x_title, rangemode="tozero")
    if better is max:  # a cosine: of one point alone, the axis would go far beyond 1
        worst = min(point.quality for point in points)
        margin = 0.15 * max(1 - worst, 1e-3)
        figure.update_yaxes(range=[worst - margin, 1 + margin])
    name_points(figure, [(point.cost, point.quality, point.label) for point in points])
    return figure.update_yaxes(title=y_title, showgrid=True)


def parts_chart(inspection: Inspection) -> go.Figure:
    """One bar of the packed bytes, stacked by what they are for; the legend says the numbers, for print and phones."""
    parts: Counter[str] = Counter()
    for name, size in inspection.size.array_bytes.items():
        parts[_PARTS.get(name.rpartition(".")[2], name)] += size
    total = inspection.size.packed_bytes
    colors = [*(BLUE, ORANGE, GREEN, PURPLE, RED), INK]
    figure = go.Figure()
    for index, (part, size) in enumerate(parts.most_common()):
        label = f"{part} {size / MEBI:.2f} MiB ({100 * size / max(total, 1):.1f} %)"
        color = colors[min(index, len(colors) - 1)]
        figure.add_bar(
            x=[size / MEBI], y=[""], name=label, orientation="h", marker_color=color, hovertemplate=f"{label}<extra></extra>"
        )
    figure.update_layout(barmode="stack")
    figure = _framed(figure, 1, "MiB packed")
    # Below the bar, one under the other: beside each other they would be cut at phone width.
    legend = {"orientation": "v", "y": -1.1, "yanchor": "top", "traceorder": "normal"}
    margin_bottom = 70 + 21 * len(parts)
    return figure.update_layout(
        height=80 + margin_bottom, legend=legend, margin={"l": 8, "r": 12, "t": 10, "b": margin_bottom}, showlegend=True
    )


def layer_chart(inspection: Inspection, field: str, title: str) -> go.Figure | None:
    """A bar per layer of `bits_per_weight` or `relative_error`; None where no layer has the figure."""
    rows = [row for row in inspection.layers if getattr(row, field) is not None]
    if not rows:
        return None
    bars = go.Bar(x=list(range(1, len(rows) + 1)), y=[getattr(row, field) for row in rows], marker_color=BLUE)
    bars.hovertext = [row.name for row in rows]
    figure = _framed(go.Figure(bars), 5, "layer, in the table's order")
    figure.update_yaxes(title=title, showgrid=True)
    return figure


def to_html(figure: go.Figure, name: str) -> str:
    """The figure as a `div`, for a page that holds plotly's script once."""
    html: str = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        config={"displaylogo": False, "responsive": True, "displayModeBar": False},
    )
    return html


def _bars(names: Sequence[str], values: Sequence[float], name: str, color: str, text: Sequence[str] | None = None) -> go.Bar:
    bars = go.Bar(y=list(names), x=list(values), name=name, orientation="h", marker_color=color, text=text)
    # Inside a short bar plotly turns the text on its side.
    return bars.update(textposition="outside", cliponaxis=False)


def labels(records: Sequence[Record]) -> list[str]:
    """Short names of records: the artifact, and below it the device where it is not this machine."""
    return _told_apart(
        [record.label.replace(" on ", "<br>on ", 1) if record.device != "local" else record.label for record in records]
    )


def _told_apart(names: Sequence[str]) -> list[str]:
    """Names without `.onnx`, the same ones told apart by a number."""
    short = [name.replace(".onnx", "", 1) for name in names]
    return [name if short.count(name) == 1 else f"{name} ({short[:index].count(name) + 1})" for index, name in enumerate(short)]


def _framed(figure: go.Figure, rows: int, x_title: str, **x_axis: Any) -> go.Figure:
    figure.update_layout(
        height=_FRAME_PIXELS + _BAR_PIXELS * rows,
        margin={"l": 8, "r": 12, "t": 30, "b": 48},
        bargap=0.25,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": INK, "size": 13},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    figure.update_traces(marker_line_width=0, selector={"type": "bar"})
    figure.update_xaxes(title=x_title, gridcolor=GRID, zerolinecolor=GRID, automargin=True, **x_axis)
    figure.update_yaxes(gridcolor=GRID, zerolinecolor=GRID, automargin=True)
    if figure.data and figure.data[0].orientation == "h":
        figure.update_yaxes(autorange="reversed")  # the table's order, from the top
    return figure
