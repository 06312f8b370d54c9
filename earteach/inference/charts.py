"""Line charts as the coordinates of an SVG drawing; the page's template draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 24
_FEWEST_TICKS = 3
# Values that spread over more than this factor are drawn on a logarithmic axis.
_WIDE = 10.0
# The same series has the same colour in each chart.
_COLOURS = {"training": 1, "validation": 2}
_OTHER = 3
# More would run into each other.
_MOST_DOTS = 40

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Tick:
    place: float
    label: str


@dataclass(frozen=True)
class Line:
    """A series: its points as SVG's `points`, its dots, and its last value for the legend."""

    name: str
    points: str
    dots: tuple[tuple[float, float, str], ...]  # x, y, what it says when pointed at
    last: str
    colour: int


@dataclass(frozen=True)
class Level:
    """A horizontal line to compare with."""

    name: str
    place: float
    value: str


@dataclass(frozen=True)
class Chart:
    """A drawing of WIDTH × HEIGHT; `mark` is the x of a vertical line."""

    title: str
    lines: tuple[Line, ...]
    levels: tuple[Level, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    mark: float | None
    logarithmic: bool

    width, height = WIDTH, HEIGHT
    left, right = _LEFT, WIDTH - _RIGHT
    top, bottom = _TOP, HEIGHT - _BOTTOM


def chart(
    title: str,
    series: Mapping[str, Points],
    *,
    levels: Mapping[str, float] | None = None,
    mark: float | None = None,
) -> Chart | None:
    """A chart of the finite points `(epoch from 1, value)` of each series; None where there is none."""
    finite = {
        name: [point for point in points if math.isfinite(point[1])]
        for name, points in series.items()
    }
    lines = {name: points for name, points in finite.items() if points}
    if not lines:
        return None
    shown = {name: value for name, value in (levels or {}).items() if math.isfinite(value)}
    values = [y for points in lines.values() for _, y in points] + list(shown.values())
    xs = [x for points in lines.values() for x, _ in points]
    across = _Axis(min(xs), max(xs), _LEFT, WIDTH - _RIGHT)
    logarithmic = min(values) > 0 and max(values) / min(values) > _WIDE
    up = _padded(min(values), max(values), logarithmic)
    return Chart(
        title=title,
        lines=tuple(_line(name, points, across, up) for name, points in lines.items()),
        levels=tuple(Level(name, up.place(y), number(y)) for name, y in shown.items()),
        x_ticks=tuple(Tick(across.place(x), f"{x:g}") for x in _whole_ticks(min(xs), max(xs))),
        y_ticks=tuple(Tick(up.place(y), number(y)) for y in up.ticks()),
        mark=None if mark is None or not min(xs) <= mark <= max(xs) else across.place(mark),
        logarithmic=logarithmic,
    )


@dataclass(frozen=True)
class _Axis:
    """Values from `low` to `high` as places from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        low, high = self._scaled(self.low), self._scaled(self.high)
        share = 0.5 if high == low else (self._scaled(value) - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 1)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value

    def ticks(self) -> list[float]:
        """The fewest round values that are enough."""
        if self.logarithmic:
            found = (_decades(firsts, self.low, self.high) for firsts in ((1,), (1, 3), (1, 2, 5)))
        else:
            power = 10.0 ** math.floor(math.log10(self.high - self.low))
            found = (_multiples(power * k, self.low, self.high) for k in (5, 2, 1, 0.5, 0.2))
        return next(values for values in found if len(values) >= _FEWEST_TICKS)


def _decades(firsts: Sequence[int], low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [first * 10.0**decade for decade in decades for first in firsts]
    return [value for value in values if low <= value <= high]


def _multiples(step: float, low: float, high: float) -> list[float]:
    return [step * place for place in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _padded(low: float, high: float, logarithmic: bool) -> _Axis:
    """The upright axis, with a margin so that no line lies on the frame."""
    if logarithmic:
        margin = (high / low) ** 0.05
        return _Axis(low / margin, high * margin, HEIGHT - _BOTTOM, _TOP, logarithmic=True)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return _Axis(low - margin, high + margin, HEIGHT - _BOTTOM, _TOP)


def _round_step(rough: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that is no smaller."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * k for k in (1, 2, 5, 10) if power * k >= rough * (1 - 1e-9))


def _whole_ticks(first: float, last: float) -> list[float]:
    step = max(1.0, _round_step((last - first) / 5)) if last > first else 1.0
    inner = _multiples(step, first, last)
    # The first epoch is 1, which no round step meets.
    return inner if inner and inner[0] == first else [first, *(x for x in inner if x > first)]


def _line(name: str, points: Points, across: _Axis, up: _Axis) -> Line:
    places = [(across.place(x), up.place(y)) for x, y in points]
    said = [f"{name}, epoch {x:g}: {number(y)}" for x, y in points]
    dots = [(*place, text) for place, text in zip(places, said, strict=True)]
    return Line(
        name=name,
        points=" ".join(f"{x:g},{y:g}" for x, y in places),
        dots=tuple(dots if len(dots) <= _MOST_DOTS else dots[-1:]),
        last=number(points[-1][1]),
        colour=_COLOURS.get(name, _OTHER),
    )


def number(value: float) -> str:
    """Four digits at most, and no `e` where a plain number is as short."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3g}".replace("e-0", "e-")
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
