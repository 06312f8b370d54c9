"""Draws docs/images/transfer-*.svg from their tables: `python -m benchmarks.transfer.plots`."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.tables import DOCS, Cell, Table, load
from earteach.charts import Chart, Points, chart, write_svg


def error_charts(table: Table) -> list[Chart]:
    """For each set of landmarks, the error of each start by number of labels."""
    return [
        drawn
        for name, series in _series_of_groups(table)
        if (drawn := chart(f"error in %, {name}", series, x_label="labels", log_x=True))
    ]


def precision_charts(table: Table) -> list[Chart]:
    """For each number of photographs, the AP50 of each start by step."""
    return [
        drawn
        for number, series in _series_of_groups(table)
        if (drawn := chart(f"AP50 in %, {number} photographs", series, x_label="steps"))
    ]


def _series_of_groups(table: Table) -> list[tuple[Cell, dict[str, Points]]]:
    """For each value of the first column, the points of the starts over the second column."""
    groups = dict.fromkeys(row[0] for row in table.rows)
    starts = list(table.columns)[2:]
    return [
        (group, {start: _points(table, group, column) for column, start in enumerate(starts, 2)})
        for group in groups
    ]


def _points(table: Table, group: Cell, column: int) -> Points:
    rows = [row for row in table.rows if row[0] == group and row[column]]
    return [(float(str(row[1])), _first_number(row[column])) for row in rows]


def _first_number(cell: Cell) -> float:
    """Of a cell such as `69.1 / 30.0` or `3.02 (2.84–3.11)`."""
    return float(str(cell).split()[0])


if __name__ == "__main__":
    drawings: dict[str, Callable[[Table], list[Chart]]] = {
        "transfer-landmarks": error_charts,
        "transfer-detection": precision_charts,
    }
    tables = load()
    for name, charts_of in drawings.items():
        write_svg(DOCS / "images" / f"{name}.svg", charts_of(tables[name]))
