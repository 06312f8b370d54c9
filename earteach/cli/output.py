"""The only printer: results to stdout as tables or one JSON object, all else to stderr."""

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
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.live import Live
from rich.markup import escape
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from earteach.metrics.diagnostics import Advice
    from earteach.training.progress import Progress

_BARS, _ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-=+*%#"
_SPARKS = 24
_WIDEST_BAR = 100
_UNBOUNDED = 10_000


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
        console = _stdout()
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, str), crop=False)


def _stdout() -> Console:
    """Where nobody looks at a terminal's width, cells are as wide as what they hold."""
    bounded = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console() if bounded else Console(width=_UNBOUNDED)


_live: Console | None = None


def _stderr() -> Console:
    """The console of a bar that is up, which would be torn by another's lines, or a new one."""
    return _live or Console(stderr=True)


def line(text: str, *, whole: bool = True) -> None:
    """One line to stderr; what is not kept `whole` is folded between words on a narrow terminal."""
    if is_main_process():
        console = _stderr()
        soft = whole or not console.is_terminal
        console.print(harmless(text), soft_wrap=soft, highlight=False, markup=False)


def error(text: str) -> None:
    """A user's problem, on one line of stderr."""
    _labelled("error", "bold red", text)


def note(text: str) -> None:
    """Something worth knowing, on one line of stderr."""
    if is_main_process():
        _labelled("note", "cyan", text)


# A terminal obeys these, and a file name may hold them; a newline alone is left.
_COMMANDS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """The text with `?` for each character that a terminal would obey."""
    return _COMMANDS.sub("?", text)


def _labelled(label: str, style: str, text: str) -> None:
    # A file name may hold a newline, and an error stays one line all the same.
    one_line = harmless(" ".join(text.split()))
    _stderr().print(f"[{style}]{label}:[/] {escape(one_line)}", soft_wrap=True, highlight=False)


class NoteHandler(logging.Handler):
    """Shows what the core logs as notes, each once."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if said not in self._said:
            self._said.add(said)
            note(said)


def replace_unprintable() -> None:
    """Let a character that a stream's encoding lacks, or a file name's odd byte, appear as `?`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def show_notes() -> None:
    """Let everything that earteach logs appear as notes."""
    logger = logging.getLogger("earteach")
    for handler in [each for each in logger.handlers if isinstance(each, NoteHandler)]:
        logger.removeHandler(handler)  # of an earlier command
    logger.addHandler(NoteHandler())
    logger.propagate = False
    logger.setLevel(logging.INFO)


def table(title: str, *columns: str, rows: Sequence[tuple[str, ...]]) -> Table:
    """A table whose first column is text and whose others are numbers."""
    made = Table(title=_heading(title), title_justify="left")
    for place, column in enumerate(columns):
        made.add_column(column, justify="left" if place == 0 else "right", overflow="fold")
    for row in rows:
        made.add_row(*map(_Cell, row))
    return made


def facts(title: str, values: Mapping[str, str]) -> Table:
    """A table of names and values."""
    made = Table(title=_heading(title), title_justify="left", show_header=False)
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in values.items():
        made.add_row(name, _Cell(value))
    return made


def advice_table(advice: Sequence[Advice]) -> list[Table]:
    """What is wrong and what to change; no table where nothing is."""
    if not advice:
        return []
    return [facts("Advice", {found.code.replace("_", " "): found.message for found in advice})]


def pictures(paths: Sequence[Path]) -> list[RenderableType]:
    """PNGs for a terminal that has the colours; elsewhere none, and a note."""
    console = Console()
    if console.color_system not in ("256", "truecolor"):
        note("--show needs a terminal with 256 colours or more, and no NO_COLOR; nothing is drawn")
        return []
    return [half_blocks(path, console.width) for path in paths]


def half_blocks(path: Path, columns: int) -> RenderableType:
    """A picture of at most `columns` cells, in each of which two pixels lie one above the other."""
    import numpy as np
    from PIL import Image
    from rich.color import Color
    from rich.segment import Segment, Segments
    from rich.style import Style

    with Image.open(path) as opened:
        whole = opened.convert("RGB")
    width = min(columns, whole.width)
    rows = max(1, round(whole.height * width / whole.width / 2))
    levels = np.asarray(whole.resize((width, 2 * rows), Image.Resampling.LANCZOS)).tolist()
    segments = []
    for uppers, lowers in zip(levels[::2], levels[1::2], strict=True):
        for upper, lower in zip(uppers, lowers, strict=True):
            style = Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower))
            segments.append(Segment("▀", style))
        segments.append(Segment.line())
    return Segments(segments)


@dataclass(frozen=True)
class _Cell:
    """Text as it is, whose paths are broken after a slash where the column is too narrow."""

    text: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = harmless(self.text)
        lines = "\n".join(_broken(line, options.max_width) for line in text.split("\n"))
        yield console.render_str(
            lines, markup=False, emoji=False, highlight=bool(options.highlight)
        )

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, Text(self.text))


def _broken(line: str, width: int) -> str:
    """The line with line ends where it would be wider."""
    done, current = "", ""
    for piece in re.findall(r"\s+|[^\s/]*/+|[^\s/]+", line):
        if current.strip() and cell_len(current + piece.rstrip()) > width:
            done, current = f"{done}{current.rstrip()}\n", piece.lstrip()
        else:
            current += piece
    return done + current


def _heading(title: str) -> Text:
    """A title that is left whole where it is wider than its table: it may be a path."""
    return Text(harmless(title), style="bold", no_wrap=True, overflow="ignore")


def sparkline(values: Sequence[float]) -> str:
    """Numbers from 0 up as a row of bars, of which the highest is the largest."""
    bars = _ASCII_BARS if Console().options.ascii_only else _BARS
    width, top = min(_SPARKS, len(values)), max([*values, 1e-30])
    chosen = [values[place * len(values) // width] for place in range(width)]
    return "".join(bars[round(value / top * (len(bars) - 1))] for value in chosen)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr where that is a terminal; gives the function that moves it."""
    with _live_on_stderr() as live:
        if live is None:
            yield None
            return

        def move(done: int, in_all: int) -> None:
            live.update(_bar_line(what, (done, in_all), f"{done:,}/{in_all:,}"), refresh=True)

        yield move


@contextmanager
def run_bar() -> Iterator[Callable[[Progress], None] | None]:
    """Two lines on stderr that follow a run, where that is a terminal; gives what moves them."""
    with _live_on_stderr() as live:
        yield None if live is None else lambda now: live.update(_run_lines(now), refresh=True)


@contextmanager
def _live_on_stderr() -> Iterator[Live | None]:
    global _live
    console = Console(stderr=True)
    if not sys.stderr.isatty() or console.is_dumb_terminal or not is_main_process():
        yield None
        return
    # Drawn by whoever moves it, without a thread.
    with Live(console=console, auto_refresh=False, transient=True) as live:
        console.show_cursor()  # a process that is killed could not bring it back
        _live = console
        try:
            yield live
        finally:
            _live = None


def _run_lines(now: Progress) -> RenderableType:
    steps = f"{now.step:,}/{now.steps:,}"
    what = f"epoch {now.epoch + 1}/{now.epochs}"
    if now.phase == "validation":
        what += " validation"
    left = f"{duration(now.seconds_left)} left" if now.seconds_left else ""
    facts = [
        f"loss {now.loss:.5f}",
        "" if now.ssim is None else f"ssim {now.ssim:.4f}",
        "" if now.psnr is None else f"psnr {now.psnr:.2f} dB",
        f"lr {now.learning_rate:.1e}",
        f"{now.images_per_second:.0f} images/s",
    ]
    below = Text("  ".join(filter(None, facts)), style="dim", no_wrap=True, overflow="ellipsis")
    return Group(_bar_line(what, (now.step, now.steps), steps, left), below)


def _bar_line(what: str, share: tuple[int, int], *after: str) -> RenderableType:
    """One line of the terminal: words, a bar that takes the room that is left, words."""
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1, min_width=8)
    for _ in after:
        grid.add_column(no_wrap=True)
    grid.add_row(what, ProgressBar(completed=share[0], total=share[1]), *after)
    return Constrain(grid, _WIDEST_BAR)


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
    """`42 s`, `3 min 10 s`, `2 h 05 min` or `4 days 3 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} days {hours % 24} h"


def is_main_process() -> bool:
    """Whether this is the process that speaks, where a run has one for each device."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK"))
