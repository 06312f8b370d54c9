"""One run at a time in a folder of checkpoints or logs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from earteach.errors import EarTeachError
from earteach.files.folders import make_folder, missing_folders, remove_empty

# A killed process holds its lock until the system has freed its memory, which can take seconds.
PATIENCE = 10.0


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Lock the folder for this process.

    The lock is a hidden file beside the folder, because the folder may not exist yet or may be moved
    aside. It lies inside the folder if nothing can be written beside it, as with a mount point. The
    system drops the lock when the process ends, however it ends.

    Raises `EarTeachError` if another run still holds the folder after `PATIENCE` seconds.
    """
    path = _lock_path(folder.resolve())
    missing = missing_folders(path.parent)
    lock = FileLock(path, timeout=PATIENCE, fallback_to_soft=False)
    try:
        make_folder(path.parent)
        lock.acquire()
    except Timeout as error:
        raise EarTeachError(
            f"{folder}: another run is training there; wait for it, stop it, or choose another folder"
        ) from error
    except OSError as error:
        remove_empty(missing)
        raise EarTeachError(
            f"{folder}: cannot be written: {error.strerror}; choose another folder"
        ) from error
    try:
        yield
    finally:
        # Removed while it is locked: `FileLock` never locks a file that is gone.
        path.unlink(missing_ok=True)
        lock.release()
        remove_empty(missing)


def _lock_path(folder: Path) -> Path:
    if folder.exists() and (folder.parent == folder or not os.access(folder.parent, os.W_OK)):
        return folder / ".lock"
    return folder.with_name(f".{folder.name}.lock")
