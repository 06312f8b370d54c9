"""The only printer: results to stdout as tables or one JSON object, all else to stderr."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from earteach.metrics.doctor import Advice


class Output:
    """What a command shows: `json` decides how."""

    def __init__(self, json: bool) -> None:
        self.json = json
        self._quiet = not is_main_process()

    def show(self, result: Any, *parts: RenderableType) -> None:
        """The result, as one JSON object or as the given tables and lines."""
        if self._quiet:
            return
        if self.json:
            sys.stdout.write(json.dumps(plain(result), allow_nan=False) + "\n")
            return
        console = Console()
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, str), crop=False)


def line(text: str) -> None:
    """One line to stderr, as it is."""
    if is_main_process():
        Console(stderr=True).print(text, soft_wrap=True, highlight=False, markup=False)


def error(text: str) -> None:
    """A user's problem, on one line of stderr."""
    _labelled("error", "bold red", text)


def note(text: str) -> None:
    """Something worth knowing, on one line of stderr."""
    if is_main_process():
        _labelled("note", "cyan", text)


def _labelled(label: str, style: str, text: str) -> None:
    # A file name may hold a newline, and an error stays one line all the same.
    one_line = " ".join(text.split())
    Console(stderr=True).print(
        f"[{style}]{label}:[/] {escape(one_line)}", soft_wrap=True, highlight=False
    )


class NoteHandler(logging.Handler):
    """Shows what the core logs as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


def show_notes() -> None:
    """Let everything that earteach logs appear as notes."""
    logger = logging.getLogger("earteach")
    if not any(isinstance(handler, NoteHandler) for handler in logger.handlers):
        logger.addHandler(NoteHandler())
        logger.propagate = False
    logger.setLevel(logging.INFO)


def table(title: str, *columns: str, rows: Sequence[tuple[str, ...]]) -> Table:
    """A table whose first column is text and whose others are numbers."""
    made = Table(title=_heading(title), title_justify="left")
    for place, column in enumerate(columns):
        made.add_column(column, justify="left" if place == 0 else "right", overflow="fold")
    for row in rows:
        made.add_row(*map(escape, row))
    return made


def facts(title: str, values: Mapping[str, str]) -> Table:
    """A table of names and values."""
    made = Table(title=_heading(title), title_justify="left", show_header=False)
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in values.items():
        made.add_row(name, escape(value))
    return made


def advice_table(advice: Sequence[Advice]) -> list[Table]:
    """What is wrong and what to change; no table where nothing is."""
    if not advice:
        return []
    return [facts("Advice", {found.code.replace("_", " "): found.message for found in advice})]


def _heading(title: str) -> Text:
    """A title that is left whole where it is wider than its table: it may be a path."""
    return Text(title, style="bold", no_wrap=True, overflow="ignore")


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr where that is a terminal; gives the function that moves it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, in_all: bar.update(task, completed=done, total=in_all)


def plain(value: Any) -> Any:
    """A result as JSON's types: dataclasses as objects, paths as strings, NaN and infinity as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: plain(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, tuple | list):
        return [plain(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def duration(seconds: float) -> str:
    """`42 s`, `3 min 10 s` or `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def is_main_process() -> bool:
    """Whether this is the process that speaks, where a run has one for each device."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK"))
