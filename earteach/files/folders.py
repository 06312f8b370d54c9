"""Make folders for output, and remove those that stayed empty."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from earteach.errors import EarTeachError


def make_folder(path: Path) -> Path:
    """Make the folder if it is missing; raises `EarTeachError` if that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise EarTeachError(f"{path}: is a file; name a folder") from error
    except NotADirectoryError as error:
        raise EarTeachError(f"{path}: is below a file, not a folder; name a folder") from error
    except OSError as error:
        raise EarTeachError(f"{path}: cannot be created: {error.strerror}") from error
    return path


def missing_folders(path: Path) -> list[Path]:
    """The folder and its parents that do not exist yet, innermost first."""
    return [folder for folder in (path, *path.parents) if not folder.exists()]


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove those of the folders, innermost first, that are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def make_writable_folder(path: Path, subject: str, advice: str = "choose another") -> None:
    """Make the folder of `subject`, before long work; `EarTeachError` if it cannot be written."""
    make_folder(path)
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise EarTeachError(f"{subject}: cannot be written: {error.strerror}; {advice}") from error
