"""How long commands take beyond what they are made of."""

from __future__ import annotations

import compileall
import sys
from collections.abc import Iterator
from pathlib import Path

import earteach
from benchmarks.speed.pairs import Row, processes_in_turn


def rows(workspace: Path) -> Iterator[Row]:
    # As pip leaves it: a checkout's first start also compiles the package, and where Python may write
    # no bytecode every start does.
    compileall.compile_dir(Path(earteach.__file__).parent, quiet=1)
    yield processes_in_turn(
        [sys.executable, "-m", "earteach", "--help"],
        [sys.executable, "-c", "import typer, rich"],
        turns=15,
    ).row("`earteach --help`", "at most", 3, "import typer, rich")
