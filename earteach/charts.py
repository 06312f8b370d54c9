"""Line charts as SVG, for an HTML page or a file, by matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from earteach.files.atomic_write import write_atomically
from earteach.files.overwrite_guard import carries, refuse_foreign

Points = Sequence[tuple[float, float]]

_SIZE = (3.8, 2.4)  # inches
# Values that spread over more than this factor get a logarithmic axis.
_LOG_FACTOR = 10.0
# A longer legend would cover the lines; it stands beside them.
_LONGEST_LEGEND = 4
# More markers would overlap.
_MAX_MARKERS = 30
# Mid-tones, which are readable on light and on dark paper.
_GRAY, _COLOURS = "#808080", {"training": "#4285cc", "validation": "#d9722e"}
_OTHER_COLOURS = ("#2f9e68", "#9467bd", "#b8860b", "#17a2b8", "#d6457f", "#7f8c3a")
_MARK = "<desc>earteach</desc>"
_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "path.simplify": False,
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _GRAY
    ),
}
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@dataclass(frozen=True)
class Chart:
    """Series over x, horizontal `levels` to compare with, and a vertical line at `mark`.

    With `log_x`, the axis is logarithmic and has a tick at each x.
    """

    title: str
    series: Mapping[str, Points]
    levels: Mapping[str, float]
    mark: float | None = None
    mark_label: str = "this checkpoint"
    x_label: str = "epoch"
    log_x: bool = False


def chart(
    title: str,
    series: Mapping[str, Points],
    *,
    levels: Mapping[str, float] | None = None,
    **options: Any,
) -> Chart | None:
    """A `Chart` of the finite points `(x, value)` of each series; None if there are none."""
    finite = {name: [p for p in points if math.isfinite(p[1])] for name, points in series.items()}
    finite = {name: points for name, points in finite.items() if points}
    if not finite:
        return None
    shown = {name: value for name, value in (levels or {}).items() if math.isfinite(value)}
    return Chart(title, finite, shown, **options)


def svg(charts: Sequence[Chart]) -> str:
    """The charts side by side as one `<svg>` element; the same charts give the same text."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Element ids depend on the salt: charts on one page must not share them.
    salt = "earteach" + "".join(each.title for each in charts)
    colours = _colours(charts)
    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}):  # type: ignore[dict-item]
        figure = Figure((_SIZE[0] * len(charts), _SIZE[1]), layout="constrained")
        for axes, each in zip(
            figure.subplots(1, len(charts), squeeze=False)[0], charts, strict=True
        ):
            _draw(axes, each, colours)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata=_NO_METADATA)
    text = file.getvalue()
    return text[text.index("<svg") :]


def _colours(charts: Sequence[Chart]) -> dict[str, str]:
    """A series has the same colour in every chart."""
    names = dict.fromkeys(name for each in charts for name in each.series)
    others = cycle(_OTHER_COLOURS)
    return {name: _COLOURS.get(name) or next(others) for name in names}


def _draw(axes: Any, each: Chart, colours: Mapping[str, str]) -> None:
    for name, points in each.series.items():
        x, y = zip(*points, strict=True)
        marker = "o" if len(points) <= _MAX_MARKERS else ""
        label = f"{name} {number(y[-1])}"
        axes.plot(x, y, color=colours[name], marker=marker, markersize=3, label=label)
    for name, level in each.levels.items():
        axes.axhline(level, color=_GRAY, linestyle="--", label=f"{name} {number(level)}")
    first, last = axes.get_xlim()
    if each.mark is not None and first <= each.mark <= last:
        axes.axvline(each.mark, color=_GRAY, linestyle=":", label=each.mark_label)
    values = [y for points in each.series.values() for _, y in points] + [*each.levels.values()]
    if min(values) > 0 and max(values) / min(values) > _LOG_FACTOR:
        axes.set_yscale("log")
    if each.log_x:
        axes.set_xscale("log")
        ticks = sorted({x for points in each.series.values() for x, _ in points})
        axes.set_xticks(ticks, map(number, ticks))
        axes.minorticks_off()
    else:
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.set_title(each.title)
    axes.set_xlabel(each.x_label)
    axes.grid(axis="y", color=_GRAY, alpha=0.2)
    beside = len(axes.get_legend_handles_labels()[1]) > _LONGEST_LEGEND
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if beside else {}
    axes.legend(frameon=False, **place)


def write_svg(path: Path, charts: Sequence[Chart]) -> None:
    """Write the charts to a file.

    Raises `EarTeachError` if a file is in the way that this function did not write.
    """
    refuse_foreign_svg(path)
    text = svg(charts).replace(">", f">{_MARK}", 1)
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def refuse_foreign_svg(path: Path) -> None:
    """Raise `EarTeachError` if `path` exists and `write_svg` did not write it."""
    refuse_foreign(path, lambda path: carries(path, _MARK))


def number(value: float) -> str:
    """Up to four digits, without an exponent where a plain number is as short."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3g}".replace("e-0", "e-")
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
