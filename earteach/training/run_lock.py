"""One run at a time in a folder of checkpoints."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from earteach.errors import EarTeachError
from earteach.files.file_lock import hold
from earteach.files.folders import missing_folders, remove_empty

# A process that was killed holds its lock until it is gone, which takes seconds with much memory.
PATIENCE = 10.0
_POLL = 0.1
_log = logging.getLogger(__name__)


@contextmanager
def sole_run(checkpoint_dir: Path) -> Iterator[None]:
    """Hold the folder for this process, on this machine and on others that share the file system.

    The lock is a file beside the folder, which may not exist yet or be moved aside; in it where nothing
    can be written beside it, as with a mounted folder. It is POSIX's: the system drops it with the
    process, and processes that load images do not inherit it.

    Raises `EarTeachError` where another run holds the folder and goes on holding it.
    """
    path = _place(checkpoint_dir.resolve())
    made = missing_folders(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(path, checkpoint_dir)
    except OSError as error:
        remove_empty(made)
        raise EarTeachError(f"{checkpoint_dir}: cannot be written: {error.strerror}") from error
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            remove_empty(made)


def _place(folder: Path) -> Path:
    if folder.exists() and (folder.parent == folder or not os.access(folder.parent, os.W_OK)):
        return folder / ".lock"
    return folder.with_name(f".{folder.name}.lock")


def _locked(path: Path, checkpoint_dir: Path) -> TextIO:
    patience = time.monotonic() + PATIENCE
    while True:
        file = path.open("a+", encoding="utf-8")
        if hold(file, path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            return file
        file.seek(0)
        holder = file.read() or "another process"
        file.close()
        if time.monotonic() > patience:
            raise EarTeachError(
                f"{checkpoint_dir}: another run trains there ({holder}); wait for it, stop it, or "
                "choose another --checkpoint-dir"
            )
        time.sleep(_POLL)
