"""The chart of quality against cost."""

from __future__ import annotations

from typing import Any

from edgecomp.report import point_names
from edgecomp.report.charts import ORANGE, _Point, _tradeoff


def point(number: int, cost: float, quality: float, *, own: bool = False, name: str = "") -> _Point:
    return _Point(cost, quality, name or f"model {number}", own)


def boxes(figure: Any, width: float) -> list[tuple[str, point_names._Box]]:
    """Where the names are, at a width of the plot in pixels."""
    right, (low, high) = figure.layout.xaxis.range[1], figure.layout.yaxis.range
    return [
        (
            note.text,
            point_names._box(
                (note.x / right, 1 - (note.y - low) / (high - low)), (note.ax, note.ay), note.text.split("<br>"), width
            ),
        )
        for note in figure.layout.annotations
    ]


def test_every_point_has_its_name_and_no_name_covers_another() -> None:
    """Points as of a sentence encoder and its peers, at a phone's width and a desk's."""
    names = ["fp32", "int8-dynamic", "nbits4-block32", "nbits4-block128", "nbits4-block32-symmetric", "minilm", "minilm.pte"]
    places = [(86.6, 1.0), (22.0, 0.966), (14.3, 0.974), (12.0, 0.955), (14.0, 0.967), (11.5, 0.992), (11.5, 0.9920)]
    points = [point(0, *place, name=name, own="minilm" in name) for name, place in zip(names, places, strict=True)]
    figure = _tradeoff(points, "MiB", "cosine", max)
    told = [text for annotation in figure.layout.annotations for text in annotation.text.split("<br>")]
    assert told == names
    for width in point_names._WIDTHS:
        placed = boxes(figure, width)
        assert [
            (first, second) for i, (first, box) in enumerate(placed) for second, other in placed[i + 1 :] if box.covered(other) > 0
        ] == []
        assert max(box.outside(width) for _, box in placed) == 0
    assert [color == ORANGE for color in figure.data[1].marker.color] == [False] * 5 + [True] * 2


def test_names_are_no_markup_and_equal_points_share_one() -> None:
    figure = _tradeoff([point(1, 5, 0.9, name="<b>a</b>"), point(2, 5, 0.9)], "MiB", "cosine", max)
    assert [note.text for note in figure.layout.annotations] == ["&lt;b&gt;a&lt;/b&gt;<br>model 2"]


def test_the_axis_of_one_cosine_ends_near_one() -> None:
    low, high = _tradeoff([point(1, 12, 0.99)], "MiB", "cosine", max).layout.yaxis.range
    assert 0.98 < low < 0.99
    assert 1 < high < 1.01


def test_the_line_joins_what_nothing_beats_in_both() -> None:
    line = _tradeoff([point(1, 10, 30.0), point(2, 20, 25.0), point(3, 30, 27.0)], "MiB", "perplexity", min).data[0]
    assert list(zip(line.x, line.y, strict=True)) == [(10, 30.0), (20, 25.0)]
