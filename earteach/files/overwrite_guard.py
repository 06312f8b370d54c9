"""Replace only files that earteach wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from earteach.errors import EarTeachError

_SEARCHED_BYTES = 500


def carries(path: Path, mark: str) -> bool:
    """Whether the file can be read and has this mark near its beginning."""
    try:
        with path.open("rb") as file:
            return mark.encode() in file.read(_SEARCHED_BYTES)
    except OSError:
        return False


def refuse_foreign(
    path: Path, is_ours: Callable[[Path], bool], command: str = "", option: str = ""
) -> None:
    """Raise `EarTeachError` if the file exists and earteach, or this `command`, did not write it.

    `option` is the one that named the file, if the command has several options for files.
    """
    if path.exists() and not is_ours(path):
        writer = f"`earteach {command}`" if command else "earteach"
        raise EarTeachError(
            f"{option} {path}: exists and was not written by {writer}; move it away or choose another "
            f"{option or '--out'}".lstrip()
        )
