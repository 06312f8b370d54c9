"""`python -m benchmarks.speed`: every ratio beside its target, in one table."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path

import torch

from benchmarks.speed.pairs import Row

# Each module's `rows(workspace)` gives its part of the table.
PARTS = ("startup", "loop", "network", "loader", "inference", "data")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--out", type=Path, help="folder for table.md and results.json")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    if unknown := set(chosen) - set(PARTS):
        sys.exit(f"error: --only {','.join(sorted(unknown))}: parts are {', '.join(PARTS)}")
    torch.set_num_threads(arguments.threads)
    rows = list(_measured(chosen))
    table = _table(rows, arguments.threads)
    print(table)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "table.md").write_text(table, encoding="utf-8")
        (arguments.out / "results.json").write_text(
            json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8"
        )


def _measured(parts: list[str]) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="earteach-speed-") as folder:
        for part in parts:
            print(f"{part} …", file=sys.stderr, flush=True)
            yield from importlib.import_module(f"benchmarks.speed.{part}").rows(Path(folder))


def _table(rows: list[Row], threads: int) -> str:
    lines = [
        f"{date.today()}, {_processor()}, {threads} threads, torch {torch.__version__}",
        "",
        "| what | earteach | beside it | ratio | target | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        figures = f"{row.ours:.3g} {row.unit} | {row.other:.3g} {row.unit} ({row.beside})"
        met = "met" if row.met else "missed"
        lines.append(
            f"| {row.what} | {figures} | {row.ratio:.2f} | {row.bound} {row.target:g} | {met} |"
        )
    return "\n".join(lines) + "\n"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
