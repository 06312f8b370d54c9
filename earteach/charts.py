"""Line charts as SVG, for a page that styles them or as a file of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

from earteach.files.atomic_write import write_atomically
from earteach.files.overwrite_guard import carries, foreign

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
    marked: str

    width, height = WIDTH, HEIGHT
    left, right = _LEFT, WIDTH - _RIGHT
    top, bottom = _TOP, HEIGHT - _BOTTOM

    @property
    def marks(self) -> Markup:
        """All that stands inside the drawing's `<svg>`, in classes that its style sheet colours."""
        return Markup("\n").join([*self._axes(), *self._lines()])

    def _axes(self) -> list[Markup]:
        rule = Markup(
            '<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"><title>{}</title></line>'
        ).format
        label = Markup('<text class="{}" x="{}" y="{}">{}</text>').format
        found = []
        for tick in self.y_ticks:
            found += [
                rule("rule", self.left, self.right, tick.place, tick.place, tick.label),
                label("y", self.left - 6, tick.place + 3.5, tick.label),
            ]
        found += [label("x", tick.place, self.height - 8, tick.label) for tick in self.x_ticks]
        if self.mark is not None:
            found.append(rule("mark", self.mark, self.mark, self.top, self.bottom, self.marked))
        return found + [
            rule("level", self.left, self.right, at.place, at.place, f"{at.name}: {at.value}")
            for at in self.levels
        ]

    def _lines(self) -> list[Markup]:
        dot = Markup('<circle cx="{}" cy="{}" r="2.5"><title>{}</title></circle>').format
        return [
            Markup('<g class="s{}"><polyline points="{}"/>{}</g>').format(
                line.colour, line.points, Markup("").join(dot(*each) for each in line.dots)
            )
            for line in self.lines
        ]


def chart(
    title: str,
    series: Mapping[str, Points],
    *,
    levels: Mapping[str, float] | None = None,
    mark: float | None = None,
    marked: str = "this checkpoint",
    across_is: str = "epoch",
) -> Chart | None:
    """A chart of the finite points `(x, value)` of each series; None where there is none.

    `across_is` says what x is. Its ticks are whole numbers.
    """
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
        lines=tuple(_line(name, points, across, up, across_is) for name, points in lines.items()),
        levels=tuple(Level(name, up.place(y), number(y)) for name, y in shown.items()),
        x_ticks=tuple(Tick(across.place(x), f"{x:g}") for x in _whole_ticks(min(xs), max(xs))),
        y_ticks=tuple(Tick(up.place(y), number(y)) for y in up.ticks()),
        mark=None if mark is None or not min(xs) <= mark <= max(xs) else across.place(mark),
        logarithmic=logarithmic,
        marked=marked,
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


def _line(name: str, points: Points, across: _Axis, up: _Axis, across_is: str) -> Line:
    places = [(across.place(x), up.place(y)) for x, y in points]
    said = [f"{name}, {across_is} {x:g}: {number(y)}" for x, y in points]
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


_HEADING, _FOOT, _SPACE = 26, 26, 16
_EM_SPACE = "\u2003"
# Colours are variables, so that the page around a chart can have its own.
STYLE = """
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
svg .y { text-anchor: end; } svg .x { text-anchor: middle; }
.rule { stroke: var(--rule); } .mark { stroke: var(--soft); stroke-dasharray: 1 3; }
.level { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 6 4; }
polyline { fill: none; stroke-width: 1.75; stroke-linejoin: round; }
.s1 polyline { stroke: var(--c1); } .s2 polyline { stroke: var(--c2); }
.s3 polyline { stroke: var(--c3); }
.s1 circle { fill: var(--c1); } .s2 circle { fill: var(--c2); } .s3 circle { fill: var(--c3); }
"""
# Of a file of its own, on light paper and on dark.
_FILE_STYLE = """
svg { --paper: #fff; --ink: #1d2126; --soft: #5f6670; --rule: #e2dfd9;
  --c1: #1f5fa8; --c2: #bf5410; --c3: #237a4b; }
@media (prefers-color-scheme: dark) {
svg { --paper: #1b1e24; --ink: #e6e8eb; --soft: #9aa2ad; --rule: #31363f;
  --c1: #79b0f2; --c2: #f2a267; --c3: #7ccb9b; }
}
.paper { fill: var(--paper); } svg .title { font-size: 12px; font-weight: 600; fill: var(--ink); }
.k1 { fill: var(--c1); } .k2 { fill: var(--c2); } .k3 { fill: var(--c3); }
"""
_OURS = "<desc>earteach</desc>"


def write_svg(path: Path, charts: Sequence[Chart]) -> None:
    """The charts side by side, in one file.

    An existing file is replaced only if it is such a one; otherwise `EarTeachError` is raised.
    """
    refuse_foreign_svg(path)
    write_atomically(path, lambda partial: partial.write_text(_svg(charts), encoding="utf-8"))


def refuse_foreign_svg(path: Path) -> None:
    """Raise `EarTeachError` where `path` exists and is no file that `write_svg` wrote."""
    if path.exists() and not carries(path, _OURS):
        raise foreign(path)


def _svg(charts: Sequence[Chart]) -> str:
    width = len(charts) * (WIDTH + _SPACE) + _SPACE
    height = _HEADING + HEIGHT + _FOOT
    places = range(_SPACE, width, WIDTH + _SPACE)
    panels = [_panel(one, left) for one, left in zip(charts, places, strict=False)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{_OURS}',
            f"<style>{STYLE}{_FILE_STYLE}</style>",
            f'<rect class="paper" width="{width}" height="{height}"/>',
            *panels,
            "</svg>\n",
        ]
    )


def _panel(one: Chart, left: int) -> str:
    """A chart under its title and over its legend."""
    scale = ", logarithmic" if one.logarithmic else ""
    keys = [f'<tspan class="k{line.colour}">━ </tspan>{escape(line.name)}' for line in one.lines]
    keys += [f"╌ {escape(level.name)} {level.value}" for level in one.levels]
    keys += [] if one.mark is None else [f"┊ {escape(one.marked)}"]
    return (
        f'<g transform="translate({left} {_HEADING})">\n'
        f'<text class="title" x="0" y="-8">{escape(one.title)}{scale}</text>\n{one.marks}\n'
        f'<text x="{one.left}" y="{HEIGHT + 14}">{_EM_SPACE.join(keys)}</text></g>'
    )
