"""Draws the transfer tables into docs/images/: `python -m benchmarks.transfer.plots`."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.tables import DOCS, Table, load

GRAY = "#808080"  # readable on light and on dark paper
COLOURS = {
    "from noise": GRAY,
    "ImageNet": "#9467bd",
    "without teaching": "#2f9e68",
    "frozen": "#4285cc",
    "fine-tuned": "#d9722e",
}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "transfer",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), GRAY
    ),
}


def panels(table: Table) -> dict[Any, list[dict[str, Any]]]:
    """The rows, by heading, of each value of the first column."""
    grouped = defaultdict(list)
    for row in table.rows:
        grouped[row[0]].append(dict(zip(table.columns, row, strict=True)))
    return grouped


def draw(path: Path, table: Table, title: str, x: str, y: str, log: bool) -> None:
    """A panel for each value of the first column, over the second, `x`; a line for each start."""
    grouped = panels(table)
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure((3.2 * len(grouped), 2.6), layout="constrained")
        for axes, (value, rows) in zip(
            figure.subplots(1, len(grouped), sharey=True, squeeze=False)[0],
            grouped.items(),
            strict=True,
        ):
            for start, colour in COLOURS.items():
                cells = [(row[x], float(row[start].split()[0])) for row in rows if row.get(start)]
                if cells:
                    axes.plot(
                        *zip(*cells, strict=True), "o-", color=colour, markersize=3, label=start
                    )
            if log:
                axes.set_xscale("log")
            ticks = [row[x] for row in rows]
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
            axes.set(title=title.format(value), xlabel=x)
            axes.grid(axis="y", color=GRAY, alpha=0.2)
        figure.axes[0].set_ylabel(y)
        figure.axes[-1].legend(frameon=False)
        figure.savefig(path, transparent=True, metadata={"Date": None})


def main() -> None:
    tables, images = load(), DOCS / "images"
    draw(
        images / "transfer-landmarks.svg", tables["transfer-landmarks"],
        title="{}", x="labels", y="error, % of the ear's diagonal", log=True,
    )  # fmt: skip
    draw(
        images / "transfer-detection.svg", tables["transfer-detection"],
        title="{} photographs", x="steps", y="AP50, %", log=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
