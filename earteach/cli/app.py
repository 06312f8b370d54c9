"""The Typer app: the flat list of commands, and the one place that turns problems into exit codes."""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from earteach._version import __version__
from earteach.cli import output
from earteach.cli.distil import distil
from earteach.cli.embed import embed
from earteach.cli.evaluate import evaluate
from earteach.cli.export import export
from earteach.cli.info import info
from earteach.cli.inspect_data import inspect_data
from earteach.cli.inspect_model import inspect_model
from earteach.cli.landmarks import landmarks
from earteach.cli.options import expanded
from earteach.cli.prepare import prepare
from earteach.cli.probe import probe
from earteach.cli.reconstruct import reconstruct
from earteach.cli.report import report
from earteach.cli.resume import resume
from earteach.cli.sample import sample
from earteach.cli.sharpen import sharpen
from earteach.cli.train import train
from earteach.errors import EarTeachError

INTERRUPTED = 130
# Problems with a path that its owner can fix, in whichever command they appear.
_PATH_ERRORS = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOSPC,
    errno.EDQUOT, errno.EIO, errno.ESTALE,
)  # fmt: skip


class Commands(TyperGroup):
    """Runs a command and turns its outcome into an exit code."""

    def invoke(self, ctx: Any) -> Any:
        output.replace_unprintable()
        output.show_notes()
        _clean_up_when_terminated()
        try:
            return super().invoke(ctx)
        except EarTeachError as error:
            if os.environ.get("EARTEACH_DEBUG") == "1":
                raise
            output.error(str(error))
            raise typer.Exit(1) from error
        except OSError as error:
            if error.errno not in _PATH_ERRORS or error.filename is None:
                raise
            output.error(f"{error.filename}: {error.strerror}; fix this or name another path")
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            output.error("interrupted")
            raise typer.Exit(INTERRUPTED) from error


def _clean_up_when_terminated() -> None:
    """Let SIGTERM unwind the command, as Ctrl-C does, so that nothing half-written stays behind."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, _: object) -> None:
    sys.exit(128 + number)


app = typer.Typer(
    cls=Commands,
    name="earteach",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    # `--train_data` means `--train-data`.
    context_settings={
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "help_option_names": ["-h", "--help"],
    },
)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"earteach {__version__}")  # noqa: T201
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Teach a network what a human ear looks like.

    To try it on a CPU, run [bold]earteach prepare --synthetic 1000 --image-size 64[/], then
    [bold]earteach train --image-size 64 --base-channels 32 --precision bf16 --epochs 5[/].
    """


_COMMANDS: tuple[Callable[..., None], ...] = (
    prepare, inspect_data, train, resume, evaluate, reconstruct, sample, sharpen, landmarks, report,
    probe, distil, export, embed, inspect_model, info,
)  # fmt: skip
for _command in _COMMANDS:
    _name = "eval" if _command is evaluate else _command.__name__.replace("_", "-")
    app.command(_name)(expanded(_command))


def main() -> None:
    """The console script."""
    if os.environ.get("_EARTEACH_COMPLETE") == "complete_bash":
        _complete_in_bash()
    else:
        app()


def _complete_in_bash() -> None:
    """Complete a command line that bash has broken at each `=`.

    Names of checkpoints and `--format=onnx` hold one. Bash replaces only what follows the last `=`.
    """
    words = os.environ["COMP_WORDS"].split("\n")[: int(os.environ["COMP_CWORD"]) + 1]
    words = re.sub(r"\n(=+)(\n|$)", r"\1", "\n".join(words)).split("\n")
    os.environ.update(COMP_WORDS="\n".join(words), COMP_CWORD=str(len(words) - 1))
    value = re.sub(r"^--[\w-]+=", "", words[-1])
    completions = io.StringIO()
    try:
        with redirect_stdout(completions):
            app()
    finally:
        for line in completions.getvalue().splitlines():
            print(line.removeprefix(value[: value.rfind("=") + 1]))  # noqa: T201
