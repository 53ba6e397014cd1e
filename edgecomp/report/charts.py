"""The report's charts: plotly figures whose colours read on white and on black."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from edgecomp.bench.record import Record
from edgecomp.inspect.result import Inspection
from edgecomp.report.run_folder import Quality

MEBI = 1024 * 1024
INK = "#7b7f87"  # contrast of at least 4 to white and to the page's dark background
GRID = "rgba(128,128,128,0.25)"
BLUE, ORANGE, GREEN, PURPLE, RED = "#3987c9", "#d98a00", "#1a9e77", "#9a6fc0", "#cc5a5a"

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


def size_chart(records: Sequence[Record]) -> go.Figure:
    """File bytes of each artifact."""
    sizes = [record.artifact.bytes / MEBI for record in records]
    figure = go.Figure(_bars(records, sizes, "files", BLUE, text=[f"{size:.1f}" for size in sizes]))
    return _framed(figure, len(records), "MiB", range=[0, max(sizes) * 1.15])


def memory_chart(records: Sequence[Record]) -> go.Figure:
    """Steady memory above an empty session, in its two kinds, and the peak."""
    anonymous = [record.summary.above_empty_session.anonymous_bytes / MEBI for record in records]
    mapped = [record.summary.steady.artifact_file_backed_bytes / MEBI for record in records]
    peaks = [record.summary.above_empty_session.peak_resident_bytes / MEBI for record in records]
    figure = go.Figure([_bars(records, anonymous, "anonymous", ORANGE), _bars(records, mapped, "file-backed (artifact)", GREEN)])
    marker = {"symbol": "line-ns", "size": 18, "line": {"width": 3, "color": INK}}
    figure.add_scatter(x=peaks, y=_labels(records), mode="markers", name="peak", marker=marker)
    figure.update_layout(barmode="stack")
    return _framed(figure, len(records), "MiB above an empty session")


def latency_chart(records: Sequence[Record]) -> go.Figure:
    """Every sample of every round."""
    figure = go.Figure()
    for record, label in zip(records, _labels(records), strict=True):
        samples = [sample / 1e6 for round_ in record.rounds for sample in round_.measurement.samples_ns]
        figure.add_box(
            x=samples, name=label, orientation="h", boxpoints="outliers", marker={"color": BLUE, "size": 3}, line_width=1.5
        )
    figure.update_layout(showlegend=False)
    return _framed(figure, len(records), "ms per inference", rangemode="tozero")


def quality_chart(records: Sequence[Record], qualities: Sequence[Quality | None]) -> go.Figure | None:
    """Quality against file size; None where no artifact was verified."""
    points = [(record, quality) for record, quality in zip(records, qualities, strict=True) if quality is not None]
    measured = [(record, quality) for record, quality in points if quality.perplexity is not None]
    title = "perplexity (lower is better)"
    values = [quality.perplexity for _, quality in measured]
    if not measured:
        measured = [(record, quality) for record, quality in points if quality.cosine is not None]
        title = "cosine to the reference"
        values = [quality.cosine for _, quality in measured]
    if not measured:
        return None
    figure = go.Figure(
        go.Scatter(
            x=[record.artifact.bytes / MEBI for record, _ in measured],
            y=values,
            text=_labels([record for record, _ in measured]),
            mode="markers",
            marker={"size": 11, "color": BLUE},
            hovertemplate="%{text}<br>%{x:.2f} MiB<br>%{y:.4f}<extra></extra>",
        )
    )
    # Numbers beside the points would collide at phone width; names are numbered in the table's order instead.
    for number, ((record, _), value) in enumerate(zip(measured, values, strict=True), 1):
        figure.add_annotation(x=record.artifact.bytes / MEBI, y=value, text=str(number), showarrow=False, yshift=15)
    figure = _framed(figure, 7, "MiB of files", rangemode="tozero")
    figure.update_yaxes(title=title, showgrid=True)
    return figure


def parts_chart(inspection: Inspection) -> go.Figure:
    """One bar of the packed bytes, stacked by what they are for; the legend says the numbers, for print and phones."""
    parts: Counter[str] = Counter()
    for name, size in inspection.size.array_bytes.items():
        parts[_PARTS.get(name.rpartition(".")[2], name)] += size
    total = inspection.size.packed_bytes
    colors = [*(BLUE, ORANGE, GREEN, PURPLE, RED), INK]
    figure = go.Figure()
    for index, (part, size) in enumerate(parts.most_common()):
        label = f"{part} {size / MEBI:.2f} MiB ({100 * size / total:.1f} %)"
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


def _bars(records: Sequence[Record], values: Sequence[float], name: str, color: str, text: Sequence[str] | None = None) -> go.Bar:
    bars = go.Bar(y=_labels(records), x=list(values), name=name, orientation="h", marker_color=color, text=text)
    # Inside a short bar plotly turns the text on its side.
    return bars.update(textposition="outside", cliponaxis=False)


def _labels(records: Sequence[Record]) -> list[str]:
    """Short names, told apart by a number where several records measured files of one name."""
    names = [record.artifact.name.removesuffix(".onnx") for record in records]
    return [name if names.count(name) == 1 else f"{name} ({names[:index].count(name) + 1})" for index, name in enumerate(names)]


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
