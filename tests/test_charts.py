"""Charts, judged by turning their coordinates back into values."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest

from earteach.charts import HEIGHT, WIDTH, chart, number, write_svg
from earteach.errors import EarTeachError


def coordinates(line):
    return np.array([[float(v) for v in pair.split(",")] for pair in line.points.split()])


def values_at(drawn, places):
    """What the axis says of these heights, from its ticks alone."""
    ticks = np.array([[tick.place, float(tick.label)] for tick in drawn.y_ticks])
    labels = np.log10(ticks[:, 1]) if drawn.logarithmic else ticks[:, 1]
    slope, start = np.polyfit(ticks[:, 0], labels, 1)
    found = slope * places + start
    return 10**found if drawn.logarithmic else found


@pytest.mark.parametrize(
    "values",
    [
        [25.1, 25.9, 26.4, 26.3],
        [0.0, 0.00025, 0.0, 0.00025],
        [3.0, 0.5, 0.02, 0.011],
        [-4, 12, 7, 0],
    ],
)
def test_points_lie_where_the_ticks_say(values):
    drawn = chart("x", {"one": list(enumerate(values, start=1))})
    places = coordinates(drawn.lines[0])
    spread = max(values) - min(values)
    read = values_at(drawn, places[:, 1])
    if drawn.logarithmic:
        assert read == pytest.approx(values, rel=0.01)
    else:
        assert read == pytest.approx(values, abs=0.003 * spread)
    assert len(drawn.y_ticks) >= 3
    x = np.array([[tick.place, float(tick.label)] for tick in drawn.x_ticks])
    assert np.interp(places[:, 0], x[:, 0], x[:, 1]) == pytest.approx([1, 2, 3, 4], abs=0.01)


def test_only_widely_spread_positive_values_are_logarithmic():
    assert chart("x", {"one": [(1, 1.0), (2, 10.5)]}).logarithmic
    assert not chart("x", {"one": [(1, 1.0), (2, 9.5)]}).logarithmic
    assert not chart("x", {"one": [(1, 0.0), (2, 100.0)]}).logarithmic


def test_everything_lies_in_the_drawing():
    series = {"a": [(e, math.exp(e / 9)) for e in range(1, 201)], "b": [(200, -50.0)]}
    drawn = chart("x", series, levels={"PCA": 1e10}, mark=150)
    places = np.concatenate([coordinates(line) for line in drawn.lines])
    assert ((places >= 0) & (places <= [WIDTH, HEIGHT])).all()
    assert 0 < drawn.levels[0].place < min(places[:, 1])
    assert 0 < drawn.mark < WIDTH
    assert [float(tick.label) for tick in drawn.x_ticks] == [1, 50, 100, 150, 200]
    assert len(drawn.lines[0].dots) == 1  # 200 dots would hide the line


@pytest.mark.parametrize("value", [0.0, 7.5, -2.0, 1e-30])
def test_a_single_or_constant_value_has_an_axis_too(value):
    drawn = chart("x", {"one": [(3, value)]}, mark=3)
    (place,) = coordinates(drawn.lines[0])
    assert place[0] == drawn.mark
    assert drawn.top < place[1] < drawn.bottom
    assert [tick.label for tick in drawn.x_ticks] == ["3"]


def test_what_is_not_finite_is_left_out():
    drawn = chart(
        "x", {"one": [(1, math.nan), (2, 1.0), (3, math.inf)], "two": [(1, math.nan)]},
        levels={"PCA": math.inf}, mark=9,
    )  # fmt: skip
    assert [line.name for line in drawn.lines] == ["one"]
    assert len(coordinates(drawn.lines[0])) == 1
    assert (drawn.levels, drawn.mark) == ((), None)
    assert chart("x", {"one": [(1, math.nan)], "two": []}) is None


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(0, "0"), (0.00025, "0.00025"), (4e-05, "4e-5"), (25.5876, "25.59"), (12345, "12,345"),
     (3e7, "3e+07"), (-0.5, "-0.5"), (64, "64")],
)  # fmt: skip
def test_numbers_are_short(value, wanted):
    assert number(value) == wanted


def test_charts_in_a_file_are_those_of_the_page(tmp_path):
    points = [(1, 1.0), (2, 3.0), (3, 2.0)]
    drawn = chart("a < b", {"one": points}, levels={"PCA & co": 2.5}, mark=2, marked="<here>")
    path = tmp_path / "charts.svg"
    for _ in range(2):  # one of our own is replaced
        write_svg(path, [drawn, drawn])
    root = ElementTree.parse(path).getroot()
    lines = root.findall(".//{*}polyline")
    assert [line.get("points") for line in lines] == [drawn.lines[0].points] * 2
    words = " ".join(root.itertext())
    assert words.count("a < b") == 2
    assert "PCA & co 2.5" in words
    assert "<here>" in words
    path.write_text("<svg>mine</svg>")
    with pytest.raises(EarTeachError, match=r"charts.svg: exists"):
        write_svg(path, [drawn])
    assert [file.name for file in tmp_path.iterdir()] == ["charts.svg"]
