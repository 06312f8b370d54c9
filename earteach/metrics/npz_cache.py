"""Fitted arrays stored beside what they were fitted to, with a key that says what that was."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from earteach.errors import EarTeachError
from earteach.files.atomic_write import write_atomically

_log = logging.getLogger(__name__)


def load_npz(path: Path, key: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """The arrays in the file; None if it is missing, damaged or stored under another key."""
    try:
        # If the file is no archive, numpy does not close it.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if json.loads(str(stored["about"])) != key:
                return None
            return {name: stored[name] for name in stored.files if name != "about"}
    except Exception:  # whatever a damaged archive makes zipfile or numpy raise
        return None


def write_npz(path: Path, key: Mapping[str, Any], **arrays: np.ndarray) -> None:
    """Write the arrays and their key atomically; raises `EarTeachError` if that fails."""

    def write_to(partial: Path) -> None:
        with partial.open("wb") as file:  # given a name, numpy would append .npz
            np.savez(file, **{"about": np.array(json.dumps(key)), **arrays})  # type: ignore[arg-type]

    write_atomically(path, write_to)


def store_npz(path: Path, key: Mapping[str, Any], **arrays: np.ndarray) -> None:
    """As `write_npz`, but if that fails, only log a note."""
    try:
        write_npz(path, key, **arrays)
    except EarTeachError as error:
        _log.info("%s; the result is not cached", error)
