"""What was fitted on an array, kept beside it: made once for each state of the array."""

from __future__ import annotations

import json
import logging
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

_log = logging.getLogger(__name__)


def load_fitted(path: Path, about: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """The arrays in the file, or None where it is missing, broken or about something else."""
    try:
        # numpy leaves a file open that turns out to be no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if json.loads(str(stored["about"])) != about:
                return None
            return {name: stored[name] for name in stored.files if name != "about"}
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def store_fitted(path: Path, about: Mapping[str, Any], **values: np.ndarray) -> None:
    """Write the arrays with what they are about, whole or not at all; where that fails, say so."""
    partial = path.with_suffix(f".{os.getpid()}.partial.npz")
    try:
        np.savez(partial, **{"about": np.array(json.dumps(about)), **values})  # type: ignore[arg-type]
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):  # of a read-only disk not even a missing file can be removed
            partial.unlink()
        _log.info("%s is not kept: %s", path, error.strerror or error)
