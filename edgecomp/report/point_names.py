"""Names beside the points of a chart, placed so that they cover neither points nor each other, on a phone as on a desk."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

_WIDTHS = (250.0, 440.0)  # pixels of the plotting area at 390 and at 1280
_HEIGHT = 270.0
_LETTER, _LINE = 6.4, 15.0  # pixels of a letter, and of a line, at the size of the names
_SIZE, _POINT = 11, 7.0  # of the names, and a point's half width, with some air
_LONGEST = 24  # letters
# From the point to the middle of its name, in pixels, the nearest first.
_OFFSETS = [
    *((0, -16), (0, 16), (34, -14), (-34, -14), (34, 14), (-34, 14), (0, -34), (0, 34), (44, -34), (-44, -34), (44, 34), (-44, 34)),
    *((70, 0), (-70, 0), (0, -54), (0, 54), (64, -54), (-64, -54), (64, 54), (-64, 54), (90, 20), (-90, 20), (90, -20), (-90, -20)),
    *((0, -76), (0, 76), (70, -76), (-70, -76), (70, 76), (-70, 76), (110, 40), (-110, 40), (110, -40), (-110, -40)),
]


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def covered(self, other: _Box) -> float:
        """The area that both have."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)

    def outside(self, width: float) -> float:
        """The area that sticks out of a plot of this width."""
        inside = _Box(-20, -16, width + 12, _HEIGHT + 4)
        return (self.right - self.left) * (self.bottom - self.top) - self.covered(inside)


def name_points(figure: go.Figure, points: Sequence[tuple[float, float, str]]) -> None:
    """Add an annotation for each point `(x, y, name)`, with a line where it stands away from it; equal points share one.

    The axes' ranges are set, since places in pixels depend on them; x begins at 0.
    """
    together: dict[tuple[float, float], list[str]] = {}
    for x, y, name in points:
        together.setdefault((x, y), []).append(name)
    right = max(x for x, _ in together) * 1.08 or 1.0
    low, high = _heights(figure, [y for _, y in together])
    figure.update_xaxes(range=[0, right])
    figure.update_yaxes(range=[low, high])
    places = [(x / right, 1 - (y - low) / (high - low)) for x, y in together]
    taken: list[list[_Box]] = [[_around(x * width, y * _HEIGHT) for x, y in places] for width in _WIDTHS]
    for ((x, y), names), place in zip(together.items(), places, strict=True):
        texts = [_shortened(name) for name in names]
        offset = min(_OFFSETS, key=lambda offset: _cost(offset, place, texts, taken))
        for boxes, width in zip(taken, _WIDTHS, strict=True):
            boxes.append(_box(place, offset, texts, width))
        near = offset[0] == 0 and abs(offset[1]) <= 16
        figure.add_annotation(
            x=x, y=y, text="<br>".join(texts), ax=offset[0], ay=offset[1], font={"size": _SIZE}, showarrow=True,
            arrowhead=0, arrowwidth=1, arrowcolor="rgba(128,128,128,0)" if near else "rgba(128,128,128,0.8)", standoff=6,
        )  # fmt: skip


def _heights(figure: go.Figure, values: Sequence[float]) -> tuple[float, float]:
    told = figure.layout.yaxis.range
    if told is not None:
        return float(told[0]), float(told[1])
    margin = 0.15 * (max(values) - min(values)) or 0.1 * abs(values[0]) or 1.0
    return min(values) - margin, max(values) + margin


def _cost(offset: tuple[int, int], place: tuple[float, float], texts: Sequence[str], taken: Sequence[Sequence[_Box]]) -> float:
    """What is covered at both widths, and a little for the distance."""
    covered = 0.0
    for boxes, width in zip(taken, _WIDTHS, strict=True):
        box = _box(place, offset, texts, width)
        covered += sum(box.covered(other) for other in boxes) + 3 * box.outside(width)
    return covered + 0.05 * (abs(offset[0]) + abs(offset[1]))


def _box(place: tuple[float, float], offset: tuple[int, int], texts: Sequence[str], width: float) -> _Box:
    x, y = place[0] * width + offset[0], place[1] * _HEIGHT + offset[1]
    half_width, half_height = max(map(len, texts)) * _LETTER / 2, len(texts) * _LINE / 2
    return _Box(x - half_width, y - half_height, x + half_width, y + half_height)


def _around(x: float, y: float) -> _Box:
    return _Box(x - _POINT, y - _POINT, x + _POINT, y + _POINT)


def _shortened(name: str) -> str:
    """A name, or its two ends: what sets names apart is as often at the end as at the beginning."""
    plain = name.replace("<br>", " ")
    short = plain if len(plain) <= _LONGEST else f"{plain[: _LONGEST // 2]}…{plain[-(_LONGEST // 2 - 1) :]}"
    return html.escape(short, quote=False)
