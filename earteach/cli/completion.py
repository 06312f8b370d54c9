"""Shell completion beyond Typer's own: checkpoints, values of options, and bash's words.

Anything else falls back to the shell's completion of files.
"""

from __future__ import annotations

import io
import os
import re
import shlex
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import typer

from earteach.config import OptionField


def checkpoints(context: typer.Context, incomplete: str) -> list[str]:
    """The checkpoints in the checkpoint folder that match; names to be quoted are left out."""
    folder = Path(context.params.get("checkpoint_dir") or "checkpoints")
    paths = sorted(str(path) for path in folder.glob("*.ckpt"))
    return [path for path in paths if path.startswith(incomplete) and shlex.quote(path) == path]


def of_option(option: OptionField) -> Callable[[str], list[str]] | None:
    """How the values of an option in `config.py` complete; None where Typer or the shell knows."""
    words = ("auto", "ddp") if option.name == "strategy" else tuple(map(str, option.choices))
    return (lambda incomplete: [w for w in words if w.startswith(incomplete)]) if words else None


def complete_in_bash(run: Callable[[], None]) -> None:
    """Run the app to complete a command line that bash has broken at each `=`.

    Names of checkpoints and `--format=onnx` hold one. Bash replaces only what follows the last `=`.
    """
    words = os.environ["COMP_WORDS"].split("\n")[: int(os.environ["COMP_CWORD"]) + 1]
    words = re.sub(r"\n(=+)(\n|$)", r"\1", "\n".join(words)).split("\n")
    os.environ.update(COMP_WORDS="\n".join(words), COMP_CWORD=str(len(words) - 1))
    value = re.sub(r"^--[\w-]+=", "", words[-1])
    output = io.StringIO()
    try:
        with redirect_stdout(output):
            run()
    finally:
        for line in output.getvalue().splitlines():
            print(line.removeprefix(value[: value.rfind("=") + 1]))  # noqa: T201
