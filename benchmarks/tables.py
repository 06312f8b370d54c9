"""Measured tables: stored as JSON in docs/measurements/, shown as Markdown in docs/*.md.

    python -m benchmarks.tables            # write every table into the pages
    python -m benchmarks.tables --check    # exit with 1 if a page is stale

A page shows a table between `<!-- table: NAME -->` and `<!-- end of table -->`.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
_MARKED = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
_FLAT_LIST = re.compile(r"\[[^\[\]{}]*\]")

Cell = str | float | None


@dataclass(frozen=True)
class Table:
    """Unrounded figures and where they come from.

    `columns` maps each heading to the format of its numbers, such as `.2f`; an empty format means
    three significant digits.
    """

    columns: Mapping[str, str]
    rows: Sequence[Sequence[Cell]]
    command: str
    machine: str
    date: str

    def markdown(self) -> str:
        formats = self.columns.values()
        cells = [[_shown(*pair) for pair in zip(row, formats, strict=True)] for row in self.rows]
        lines = [list(self.columns), ["---"] * len(self.columns), *cells]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"{body}\n\n{self.date}, {self.machine}:\n`{self.command}`\n"


def _shown(value: Cell, number_format: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    return format(value, number_format) if number_format else f"{float(f'{value:.3g}'):,g}"


def measured_now(
    columns: Mapping[str, str], rows: Sequence[Sequence[Cell]], command: str, machine: str
) -> Table:
    return Table(columns, rows, command, machine, date.today().isoformat())


def processor() -> str:
    """The CPU's model name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def load(folder: Path = DOCS / "measurements") -> dict[str, Table]:
    """Every stored table by name."""
    return {
        name: Table(**values)
        for path in sorted(folder.glob("*.json"))
        for name, values in json.loads(path.read_text(encoding="utf-8")).items()
    }


def save(path: Path, tables: Mapping[str, Table]) -> None:
    """Add the tables to the file, replacing those of the same name."""
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    stored |= {name: asdict(table) for name, table in tables.items()}
    text = json.dumps(stored, indent=2, ensure_ascii=False)
    # One line per row of a table.
    text = _FLAT_LIST.sub(lambda found: _one_line(found[0]), text)
    path.write_text(text + "\n", encoding="utf-8")


def _one_line(text: str) -> str:
    return json.dumps(json.loads(text), ensure_ascii=False)


def rendered(page: str, tables: Mapping[str, Table]) -> str:
    """The page's text with every table written anew; raises `KeyError` for an unknown table."""
    return _MARKED.sub(lambda m: f"{m[1]}\n{tables[m[2]].markdown()}\n{m[3]}", page)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if stale")
    check = parser.parse_args(arguments).check
    tables = load()
    stale = []
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        new = rendered(text, tables)
        if new != text:
            stale.append(path)
            if not check:
                path.write_text(new, encoding="utf-8")
    for path in stale:
        print(f"{path}: {'stale; run `python -m benchmarks.tables`' if check else 'written'}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
