"""Draws docs/images/transfer-detection.svg from its table: `python -m benchmarks.transfer.plots`."""

from __future__ import annotations

from benchmarks.tables import DOCS, Table, load
from earteach.charts import Chart, chart, write_svg


def precision_charts(table: Table) -> list[Chart]:
    """For each number of photographs, the AP50 of each start by step."""
    headings = list(table.columns)
    charts = []
    for number in dict.fromkeys(row[0] for row in table.rows):
        rows = [row for row in table.rows if row[0] == number]
        series = {
            start: [(float(str(row[1])), _ap50(row[column])) for row in rows if row[column]]
            for column, start in enumerate(headings[2:], start=2)
        }
        drawn = chart(f"AP50 in %, {number} photographs", series, x_label="steps")
        charts += [drawn] if drawn else []
    return charts


def _ap50(cell: object) -> float:
    """Of a cell such as `69.1 / 30.0`."""
    return float(str(cell).split()[0])


if __name__ == "__main__":
    table = load()["transfer-detection"]
    write_svg(DOCS / "images" / "transfer-detection.svg", precision_charts(table))
