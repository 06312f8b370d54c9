"""`python -m benchmarks.speed`: every ratio beside its target, in one table."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.speed.pairs import Row
from benchmarks.tables import Table, measured_now, processor, save

# Each module's `rows(workspace)` measures its part of the table.
PARTS = ("startup", "loop", "network", "loader", "inference", "data")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--save", type=Path, help="JSON file that keeps the table")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads")
    arguments = parser.parse_args()
    parts = arguments.only.split(",")
    if unknown := set(parts) - set(PARTS):
        sys.exit(f"error: --only {','.join(sorted(unknown))}: parts are {', '.join(PARTS)}")
    torch.set_num_threads(arguments.threads)
    measured = table(list(_measured(parts)), arguments.threads)
    print(measured.markdown())
    if arguments.save:
        save(arguments.save, {"speed": measured})


def _measured(parts: list[str]) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="earteach-speed-") as folder:
        for part in parts:
            print(f"{part} …", file=sys.stderr, flush=True)
            for row in importlib.import_module(f"benchmarks.speed.{part}").rows(Path(folder)):
                print(f"  {row.what}: {row.ratio:.2f} ({row.beside})", file=sys.stderr, flush=True)
                yield row


def table(rows: list[Row], threads: int) -> Table:
    headings = ("what", "earteach", "reference", "unit", "ratio", "target", "result")
    columns = dict.fromkeys(headings, "") | {"ratio": ".2f", "reference is": ""}
    cells = [
        [
            row.what, row.ours, row.other, row.unit, row.ratio, f"{row.bound} {row.target:.3g}",
            "met" if row.met else "missed", row.beside,
        ]
        for row in rows
    ]  # fmt: skip
    cores = len(os.sched_getaffinity(0))
    machine = f"{processor()}, {cores} cores, {threads} threads, torch {torch.__version__}"
    command = shlex.join(["python", "-m", "benchmarks.speed", *sys.argv[1:]])
    return measured_now(columns, cells, command, machine)


if __name__ == "__main__":
    main()
