"""A file that one process at a time holds."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import TextIO


def hold(file: TextIO, path: Path) -> bool:
    """Whether this process holds the open file at `path` from now on; not where another one does.

    The lock is POSIX's: the system drops it with the process, other machines that share the file
    system see it, and processes that load images do not inherit it. Raises `OSError` where the file
    system has none.
    """
    with suppress(BlockingIOError, PermissionError, FileNotFoundError):
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A process that has just ended may have removed the file that is locked now.
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False
