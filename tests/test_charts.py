"""Charts: what stands in the SVG, and that its curves go through the points."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from earteach.charts import chart, number, svg, write_svg
from earteach.errors import EarTeachError

BLUE = "#4285cc"  # of the series "training"


def curve(text: str, colour: str = BLUE) -> np.ndarray:
    """The points of a line in the drawing, `(N, 2)`."""
    path = re.search(rf'<path d="([^"]+)"[^>]*style="fill: none; stroke: {colour}', text)
    assert path is not None
    return np.array(re.findall(r"[ML] ([\d.]+) ([\d.]+)", path[1]), float)


def test_a_curve_goes_through_its_points():
    values = [25.1, 25.9, 26.4, 26.3]
    places = curve(svg([chart("x", {"training": list(enumerate(values, start=1))})]))
    assert np.diff(places[:, 0]) == pytest.approx([np.diff(places[:, 0]).mean()] * 3, abs=1e-3)
    assert np.corrcoef(places[:, 1], values)[0, 1] == pytest.approx(-1)


def test_only_positive_values_of_a_wide_range_are_logarithmic():
    for values, logarithmic in (([1, 10, 100], True), ([0, 10, 100], False), ([1, 2, 9], False)):
        x, y = curve(svg([chart("x", {"training": list(enumerate(values))})])).T
        slopes = np.diff(y) / np.diff(x)
        assert (slopes[0] == pytest.approx(slopes[1])) == logarithmic


def test_a_series_has_the_same_colour_in_every_chart():
    lines = {name: [(1, 1.0), (2, 2.0)] for name in ("one", "two")}
    whole, second = chart("a", lines), chart("b", {"two": lines["two"]})
    strokes = re.findall(r'd="M[^"]*"[^>]*stroke: (#\w+); stroke-width: 1.5', svg([whole, second]))
    one, two, *_, again, _ = (stroke for stroke in strokes if stroke != "#808080")  # and legends
    assert one != two == again


def test_a_logarithmic_axis_has_a_tick_at_each_point():
    text = svg([chart("x", {"training": [(10, 4), (50, 3), (357, 2.9)]}, log_x=True)])
    gaps = np.diff(curve(text)[:, 0])
    assert gaps[1] / gaps[0] == pytest.approx(math.log(357 / 50) / math.log(5), rel=1e-3)
    assert {"10", "50", "357"} <= set(ElementTree.fromstring(text).itertext())


def test_the_drawing_names_its_parts_and_is_the_same_each_time():
    drawn = chart(
        "a < b",
        {"one": [(1, 1.0), (2, 3.0)]},
        levels={"PCA & co": 2.5},
        mark=2,
        mark_label="<here>",
    )
    text = svg([drawn, drawn])
    assert text == svg([drawn, drawn])
    words = " ".join(ElementTree.fromstring(text).itertext())
    assert words.count("a < b") == 2
    for part in ("one 3", "PCA & co 2.5", "<here>", "epoch"):
        assert part in words
    # Nothing is fetched, and the page's background shows.
    assert "<image" not in text
    assert set(re.findall(r'href="(.)', text)) <= {"#"}
    assert "#ffffff" not in text


def test_values_that_are_not_finite_are_left_out():
    series = {"training": [(1, math.nan), (2, 1.0), (3, 2.0), (4, math.inf)], "b": [(1, math.nan)]}
    text = svg([chart("x", series, levels={"PCA": math.inf}, mark=9)])
    assert len(curve(text)) == 2
    assert "PCA" not in text
    assert "checkpoint" not in text
    assert chart("x", {"one": [(1, math.nan)], "two": []}) is None


@pytest.mark.parametrize("value", [0.0, -2.0, 1e-30])
def test_a_single_point_can_be_drawn(value):
    assert svg([chart("x", {"one": [(3, value)]}, mark=3)]).startswith("<svg")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.00025, "0.00025"), (4e-05, "4e-5"), (25.5876, "25.59"), (12345, "12,345"),
     (3e7, "3e+07"), (-0.5, "-0.5"), (64, "64")],
)  # fmt: skip
def test_numbers_are_short(value, text):
    assert number(value) == text


def test_only_its_own_files_are_replaced(tmp_path):
    drawn, path = chart("x", {"one": [(1, 1.0), (2, 3.0)]}), tmp_path / "charts.svg"
    for _ in range(2):
        write_svg(path, [drawn])
    ElementTree.parse(path)
    path.write_text("<svg>mine</svg>")
    with pytest.raises(EarTeachError, match=r"charts.svg: exists"):
        write_svg(path, [drawn])
    assert [file.name for file in tmp_path.iterdir()] == ["charts.svg"]
