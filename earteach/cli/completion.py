"""What the shell is told when Tab is pressed: files of the right kind, and words of options.

Options of fixed words complete by themselves. Where nothing here fits, bash and zsh fall back to
their own completion of files.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import typer

from earteach.config import OptionField


def completed(run: Callable[[], None]) -> None:
    """Run the app; where bash asks for a completion, in its way of breaking words at `=`.

    The names of checkpoints hold one, and `--format=onnx`. Bash puts a completion in the place of what
    follows the last `=`.
    """
    if os.environ.get("_EARTEACH_COMPLETE") != "complete_bash":
        return run()
    word = _rejoin_words()
    value = word.partition("=")[2] if word.startswith("--") else word
    kept = "".join(value.rpartition("=")[:2])
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            run()
    finally:
        for line in said.getvalue().splitlines():
            sys.stdout.write(line.removeprefix(kept) + "\n")


def _rejoin_words() -> str:
    """Make whole words of bash's for Typer; returns the one that is being typed."""
    words: list[str] = []
    cursor = 0
    joins = False
    for index, word in enumerate(os.environ["COMP_WORDS"].split("\n")):
        breaks = word != "" and not word.strip("=")
        if words and (breaks or joins):
            words[-1] += word
        else:
            words.append(word)
        joins = breaks
        if index == int(os.environ["COMP_CWORD"]):
            cursor = len(words) - 1
    os.environ.update(COMP_WORDS="\n".join(words), COMP_CWORD=str(cursor))
    return words[cursor]


def arrays(incomplete: str) -> list[str]:
    return _paths(incomplete, ".npy")


def tomls(incomplete: str) -> list[str]:
    return _paths(incomplete, ".toml")


def checkpoints(context: typer.Context, incomplete: str) -> list[str]:
    """Those of the checkpoint folder first, then folders and checkpoints where the word leads."""
    folder = str(context.params.get("checkpoint_dir") or "checkpoints")
    own = [path for path in _paths(folder + "/", ".ckpt") if not path.endswith("/")]
    near = _paths(incomplete, ".ckpt")
    candidates = dict.fromkeys([p for p in own if p.startswith(incomplete)] + near)
    return list(candidates)


def of_option(option: OptionField) -> Callable[[str], list[str]] | None:
    """How the values of an option of `config.py` complete; None where Typer or the shell knows."""
    if option.opt.choices:
        return _one_of(*map(str, option.opt.choices))
    if option.name == "strategy":
        return _one_of("auto", "ddp")
    return arrays if option.type is Path and option.name.endswith("_data") else None


def _one_of(*words: str) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


def _paths(incomplete: str, suffix: str) -> list[str]:
    """Files of the suffix and folders, as typed so far. A lone folder shows what it holds as well:
    the shell would end the word after it."""
    found = sorted(_entries(incomplete, suffix))
    while len(found) == 1 and found[0].endswith("/"):
        inside = sorted(_entries(found[0], suffix))
        if len(inside) != 1:
            return found + inside
        found = inside
    return found


def _entries(incomplete: str, suffix: str) -> Iterator[str]:
    folder, slash, start = incomplete.rpartition("/")
    try:
        entries = list(os.scandir(folder + slash or "."))
    except OSError:
        return
    for entry in entries:
        name = entry.name
        if not name.startswith(start) or (name.startswith(".") and not start):
            continue
        # What has to be quoted is left to the shell.
        if shlex.quote(name) != name:
            continue
        if entry.is_dir():
            yield folder + slash + name + "/"
        elif name.endswith(suffix):
            yield folder + slash + name
