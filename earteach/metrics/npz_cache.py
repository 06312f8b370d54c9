"""What was fitted on an array, kept beside it: made once for each state of the array."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from earteach.errors import EarTeachError
from earteach.files.atomic_write import write_atomically

_log = logging.getLogger(__name__)


def load_npz(path: Path, about: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """The arrays in the file, or None where it is missing, broken or about something else."""
    try:
        # numpy leaves a file open that turns out to be no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if json.loads(str(stored["about"])) != about:
                return None
            return {name: stored[name] for name in stored.files if name != "about"}
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def store_npz(path: Path, about: Mapping[str, Any], **values: np.ndarray) -> None:
    """Write the arrays with what they are about, whole or not at all; where that fails, say so."""

    def write_to(partial: Path) -> None:
        with partial.open("wb") as file:  # a name of its own: numpy would add .npz
            np.savez(file, **{"about": np.array(json.dumps(about)), **values})  # type: ignore[arg-type]

    try:
        write_atomically(path, write_to)
    except EarTeachError as error:
        _log.info("%s; it is not kept", error)
