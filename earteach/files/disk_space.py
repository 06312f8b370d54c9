"""Check before the work begins that its output fits on the disk."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from earteach.errors import EarTeachError


def check_space(folder: Path, needed: int, what: str, advice: str) -> None:
    """Raise `EarTeachError` if the disk of `folder`, which may not exist yet, lacks `needed` bytes.

    The message says `what` needs them, and `advice` besides freeing space.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        free = shutil.disk_usage(existing).free
    except OSError:
        return  # a file system that does not report it
    if needed > free:
        raise EarTeachError(
            f"{folder}: {what} needs {readable(needed)} there, but only {readable(free)} is free; "
            f"free space, or {advice}"
        )


def readable(size: float) -> str:
    """Bytes as `512 bytes`, `3.1 MB` or `12 TB`."""
    thousands = min(4, int(math.log10(max(size, 1)) // 3))
    unit, number = ("bytes", "kB", "MB", "GB", "TB")[thousands], size / 1000**thousands
    return f"{number:.1f} {unit}" if thousands and number < 10 else f"{number:,.0f} {unit}"
