"""Replace only files that earteach wrote."""

from __future__ import annotations

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


def foreign_file_error(path: Path, command: str = "", option: str = "") -> EarTeachError:
    """The error for an existing file that earteach, or this `command`, did not write.

    `option` is the one that named the file, if the command has several options for files.
    """
    named = f"{option} {path}" if option else str(path)
    writer = f"`earteach {command}`" if command else "earteach"
    return EarTeachError(
        f"{named}: exists and was not written by {writer}; move it away or choose another "
        f"{option or '--out'}"
    )
