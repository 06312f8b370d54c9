"""Only files that earteach wrote are replaced."""

from __future__ import annotations

from pathlib import Path

from earteach.errors import EarTeachError

# A mark stands near the beginning of a file.
_SEARCHED_BYTES = 500


def carries(path: Path, mark: str) -> bool:
    """Whether the file has this mark near its beginning; not where it cannot be read."""
    try:
        with path.open("rb") as file:
            return mark.encode() in file.read(_SEARCHED_BYTES)
    except OSError:
        return False


def foreign(path: Path, command: str = "", option: str = "") -> EarTeachError:
    """What is said of an existing file that earteach, or this command of it, did not write.

    `option` is what named it, where a command has several that could.
    """
    named = f"{option} {path}" if option else str(path)
    writer = f"`earteach {command}`" if command else "earteach"
    return EarTeachError(
        f"{named}: exists and was not written by {writer}; move it away or choose another "
        f"{option or '--out'}"
    )
