"""A file is written whole or not at all."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from earteach.errors import EarTeachError

# How a file ends that is being written, or was when its process was killed.
PARTIAL = ".partial"
# Of a name that may already be as long as file systems allow.
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
    """Let `write_to` make a file beside `path`, of a name of its own, and move it into place.

    `durable` keeps the old file or the new one also after a power cut. Raises `EarTeachError` where the
    disk is full, and says then what to do `again`, or where the folder cannot be written.
    """
    partial = partial_path(path)
    try:
        write_to(partial)
        if durable:
            _sync(partial)
        partial.replace(path)
        if durable:
            _sync(path.parent)
    except BaseException as error:
        with suppress(OSError):  # what went wrong is told by the error that led here
            partial.unlink()
        if isinstance(error, OSError):
            raise unwritten(path, error, again) from error
        raise


def is_full(error: OSError) -> bool:
    """Whether a disk, a quota or a limit on files is what stopped a write."""
    # NumPy keeps no number, but how many values it was to write and how many it could.
    return error.errno in _FULL or (error.errno is None and "requested and" in str(error))


def unwritten(path: Path, error: OSError, again: str = "try again") -> EarTeachError:
    """What is said of a file that could not be written."""
    full = f"the disk is full; free space, then {again}"
    reason = full if is_full(error) else error.strerror or str(error)
    return EarTeachError(f"{path}: cannot be written: {reason}")


def partial_path(path: Path) -> Path:
    """Where a file is made that will be `path`; each call, in any process, gives another."""
    start = os.fsdecode(os.fsencode(path.name)[:_KEPT_BYTES])
    return path.with_name(f".{start}.{os.getpid()}-{next(_numbers)}{PARTIAL}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
