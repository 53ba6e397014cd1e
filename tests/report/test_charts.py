"""The chart of quality against cost."""

from __future__ import annotations

from edgecomp.report.charts import ORANGE, _Point, _tradeoff


def point(number: int, cost: float, quality: float, *, own: bool = False) -> _Point:
    return _Point(number, cost, quality, f"model {number}", own)


def test_numbers_of_points_that_cover_each_other_stand_together() -> None:
    points = [point(1, 90, 1.0), point(2, 12, 0.95), point(3, 11.8, 0.9923, own=True), point(4, 11.7, 0.9923, own=True)]
    figure = _tradeoff(points, "MiB", "cosine", max)
    assert [annotation.text for annotation in figure.layout.annotations] == ["1", "2", "3, 4"]
    assert [color == ORANGE for color in figure.data[1].marker.color] == [False, False, True, True]


def test_the_axis_of_one_cosine_ends_near_one() -> None:
    low, high = _tradeoff([point(1, 12, 0.99)], "MiB", "cosine", max).layout.yaxis.range
    assert 0.98 < low < 0.99
    assert 1 < high < 1.01


def test_the_line_joins_what_nothing_beats_in_both() -> None:
    line = _tradeoff([point(1, 10, 30.0), point(2, 20, 25.0), point(3, 30, 27.0)], "MiB", "perplexity", min).data[0]
    assert list(zip(line.x, line.y, strict=True)) == [(10, 30.0), (20, 25.0)]
