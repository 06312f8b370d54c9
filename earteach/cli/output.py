"""The only printer: results to stdout as tables or one JSON object, everything else to stderr."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.highlighter import ReprHighlighter
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from earteach.environment import is_main_process

if TYPE_CHECKING:
    from earteach.metrics.diagnostics import Advice
    from earteach.training.progress import Progress

_BARS, _ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-=+*%#"
_SPARKS = 24
_MAX_ROWS, _MAX_PICTURES = 20, 4
_UNBOUNDED = 10_000
_live_console: Console | None = None  # that of a progress bar


class Output:
    """Shows results as tables, or as JSON with `json`; silent in all but the main process."""

    def __init__(self, json: bool) -> None:
        self.json = json

    def show(self, result: Any, *parts: RenderableType) -> None:
        """Print the result as one JSON object, or its `parts`: tables and lines."""
        if not is_main_process():
            return
        if self.json:
            sys.stdout.write(json.dumps(plain(result), allow_nan=False) + "\n")
            return
        # Only a terminal limits the width.
        bounded = sys.stdout.isatty() or "COLUMNS" in os.environ
        console = Console() if bounded else Console(width=_UNBOUNDED)
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, str), crop=False)


def _stderr() -> Console:
    """The console of the progress bar, which another console's lines would break, or a new one."""
    return _live_console or Console(stderr=True)


def line(text: str, *, wrap: bool = False) -> None:
    """Print a line to stderr; with `wrap`, wrapped at words on a narrow terminal."""
    if is_main_process():
        console = _stderr()
        soft = not (wrap and console.is_terminal)
        console.print(_harmless(text), soft_wrap=soft, highlight=False, markup=False)


def error(text: str, label: str = "[bold red]error:[/]") -> None:
    """Print a user's problem as one line of stderr."""
    one_line = _harmless(" ".join(text.split()))  # a file name can hold a newline
    _stderr().print(label, escape(one_line), soft_wrap=True, highlight=False)


def note(text: str) -> None:
    """Print something worth knowing as one line of stderr."""
    if is_main_process():
        error(text, "[cyan]note:[/]")


def _harmless(text: str) -> str:
    """The text with `?` for what a file name can hold and a terminal obeys: control characters but
    newline, and marks that turn the direction of writing."""
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "?", text)


def show_notes() -> None:
    """Show what earteach logs as notes, each once, in place of an earlier command's handler."""
    logger, shown = logging.getLogger("earteach"), set[str]()

    class NoteHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage()
            if message not in shown:
                shown.add(message)
                note(message)

    logger.handlers = [NoteHandler()]
    logger.propagate = False
    logger.setLevel(logging.INFO)


def replace_unprintable() -> None:
    """Print `?` for characters outside a stream's encoding and undecodable bytes of file names."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def table(title: str, *columns: str, rows: Sequence[tuple[str, ...]]) -> Table:
    """A table whose first column is text and whose others are numbers."""
    result = Table(title=_title(title), title_justify="left")
    for index, column in enumerate(columns):
        result.add_column(column, justify="right" if index else "left", overflow="fold")
    for row in rows:
        result.add_row(*map(_cell, row))
    return result


def listing(
    title: str, *columns: str, rows: Sequence[tuple[str, ...]], out: Path
) -> list[RenderableType]:
    """A table of the first files that were written to `out`, and how many more there are."""
    parts: list[RenderableType] = [table(title, *columns, rows=rows[:_MAX_ROWS])]
    if len(rows) > _MAX_ROWS:
        parts.append(escape(f"and {len(rows) - _MAX_ROWS:,} more in {out}"))
    return parts


def facts(title: str, values: Mapping[str, str]) -> Table:
    """A table of names and values."""
    result = Table(title=_title(title), title_justify="left", show_header=False)
    result.add_column(style="dim", no_wrap=True)
    result.add_column(overflow="fold")
    for name, value in values.items():
        result.add_row(name, _cell(value))
    return result


def _cell(text: str) -> Text:  # not markup
    return ReprHighlighter()(_harmless(text))


def _title(text: str) -> Text:
    """A title that is not cut at the table's width: it may be a path."""
    return Text(_harmless(text), style="bold", no_wrap=True, overflow="ignore")


def advice_table(advice: Sequence[Advice]) -> list[Table]:
    """A table of problems and what to change; empty without advice."""
    rows = {each.code.replace("_", " "): each.message for each in advice}
    return [facts("Advice", rows)] if rows else []


def pictures(paths: Sequence[Path]) -> list[RenderableType]:
    """The first PNGs drawn for the terminal; none, and a note, where it lacks the colours."""
    console = Console()
    if console.color_system in ("256", "truecolor"):
        return [half_blocks(path, console.width) for path in paths[:_MAX_PICTURES]]
    note("--show needs at least 256 colours and NO_COLOR unset; nothing was drawn")
    return []


def half_blocks(path: Path, columns: int) -> RenderableType:
    """An image of at most `columns` cells, each of two pixels: foreground above background."""
    from PIL import Image
    from rich.color import Color
    from rich.segment import Segment, Segments
    from rich.style import Style

    with Image.open(path) as opened:
        image = opened.convert("RGB")
    width = min(columns, image.width)
    rows = max(1, round(image.height * width / image.width / 2))
    pixels: Any = image.resize((width, 2 * rows), Image.Resampling.LANCZOS).load()
    segments = []
    for row in range(rows):
        for column in range(width):
            above, below = (Color.from_rgb(*pixels[column, 2 * row + half]) for half in (0, 1))
            segments.append(Segment("▀", Style(color=above, bgcolor=below)))
        segments.append(Segment.line())
    return Segments(segments)


def sparkline(values: Sequence[float]) -> str:
    """Values from 0 up as a row of bars; the largest value has the highest bar."""
    bars = _ASCII_BARS if Console().options.ascii_only else _BARS
    width, top = min(_SPARKS, len(values)), max([*values, 1e-30])
    chosen = [values[index * len(values) // width] for index in range(width)]
    return "".join(bars[round(value / top * (len(bars) - 1))] for value in chosen)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr if that is a terminal; yields its update function of (done, total)."""
    with bar() as update:
        yield update and counting(update, what)


def counting(update: Callable[..., None], what: str) -> Callable[[int, int], None]:
    """Shows (done, total) in a `bar`."""
    return lambda done, total: update(description=what, completed=done, total=total, details="")


def following(update: Callable[..., None]) -> Callable[[Progress], None]:
    """Shows where a run is in a `bar`."""
    return lambda now: update(
        completed=now.step,
        total=now.steps,
        description=f"epoch {now.epoch + 1}/{now.epochs}"
        + (" validation" if now.phase == "validation" else ""),
        details=f"loss {now.loss:.5f}  {now.images_per_second:.0f} images/s  "
        + (f"{duration(now.seconds_left)} left" if now.seconds_left else ""),
    )


@contextmanager
def bar() -> Iterator[Callable[..., None] | None]:
    """The update function of a bar with the field `details`; None where stderr is no terminal."""
    global _live_console
    console = Console(stderr=True)
    if not sys.stderr.isatty() or console.is_dumb_terminal or not is_main_process():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(),
        TextColumn("{task.fields[details]}"),
    )  # fmt: skip
    # Drawn on updates only: no thread runs beside training.
    with Progress(
        *columns, console=console, auto_refresh=False, transient=True, expand=True
    ) as bar:
        console.show_cursor()  # a killed process could not restore it
        _live_console = console
        task = bar.add_task("", visible=False, details="")
        try:
            yield lambda **shown: bar.update(task, visible=True, refresh=True, **shown)
        finally:
            _live_console = None


def plain(value: Any) -> Any:
    """A result in JSON's types: dataclasses as objects, paths as strings, NaN and infinity as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: plain(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, tuple | list):
        return [plain(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def duration(seconds: float) -> str:
    """`4.2 s`, `42 s`, `3 min 10 s`, `2 h 05 min` or `4 days 3 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} days {hours % 24} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
