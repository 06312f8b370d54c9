"""Write a file whole or not at all."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from earteach.errors import EarTeachError

# Suffix of a file that is being written, or whose writer was killed.
PARTIAL = ".partial"
# Of the name, which may already be as long as file systems allow.
_KEPT_BYTES = 80
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_numbers = itertools.count()


def write_atomically(
    path: Path,
    write_to: Callable[[Path], object],
    *,
    durable: bool = False,
    again: str = "try again",
) -> None:
    """Let `write_to` make a file beside `path` under a unique name, and move it into place.

    With `durable`, the old file or the new one survives a power cut. Raises `EarTeachError` if the disk
    is full, with `again` as the next step, or if the folder cannot be written.
    """
    partial = partial_path(path)
    try:
        partial.unlink(missing_ok=True)  # a link of this name would be followed
        write_to(partial)
        if durable:
            _sync(partial)
        partial.replace(path)
        if durable:
            _sync(path.parent)
    except BaseException as error:
        with suppress(OSError):  # the first error is the one to report
            partial.unlink()
        if isinstance(error, OSError):
            raise write_error(path, error, again) from error
        raise


def is_full(error: OSError) -> bool:
    """Whether a write failed because of a full disk, a quota or a limit on file size."""
    # NumPy's error has no number, only how many values were requested and how many were written.
    return error.errno in _FULL or (error.errno is None and "requested and" in str(error))


def write_error(path: Path, error: OSError, again: str = "try again") -> EarTeachError:
    """The error for a file that could not be written."""
    full = f"the disk is full; free space, then {again}"
    reason = full if is_full(error) else error.strerror or str(error)
    return EarTeachError(f"{path}: cannot be written: {reason}")


def partial_path(path: Path) -> Path:
    """A new hidden path beside `path`, different for each call in any process."""
    start = os.fsdecode(os.fsencode(path.name)[:_KEPT_BYTES])
    return path.with_name(f".{start}.{os.getpid()}-{next(_numbers)}{PARTIAL}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
