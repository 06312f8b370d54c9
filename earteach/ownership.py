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


def foreign(path: Path, command: str = "", option: str = "--out") -> EarTeachError:
    """What is said of an existing file that earteach, or this command of it, did not write."""
    writer = f"`earteach {command}`" if command else "earteach"
    return EarTeachError(
        f"{path}: exists and was not written by {writer}; move it away or choose another {option}"
    )
