"""Whether what will be written fits on the disk, asked before the work begins."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from earteach.errors import EarTeachError


def check_space(folder: Path, needed: int, what: str, advice: str) -> None:
    """Raise `EarTeachError` where fewer than `needed` bytes are free where `folder` is or will be.

    `what` needs them; `advice` says what else can be done than free space.
    """
    existing = _existing(folder)
    try:
        free = shutil.disk_usage(existing).free
    except OSError:
        return  # a file system that does not tell
    if needed > free:
        raise EarTeachError(
            f"{folder}: {what} needs {readable(needed)} there, and {readable(free)} are free; free "
            f"space, or {advice}"
        )


def readable(size: float) -> str:
    """Bytes as `512 bytes`, `3.1 MB` or `12 TB`."""
    thousands = min(4, int(math.log10(max(size, 1)) // 3))
    unit, number = ("bytes", "kB", "MB", "GB", "TB")[thousands], size / 1000**thousands
    return f"{number:.1f} {unit}" if thousands and number < 10 else f"{number:,.0f} {unit}"


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())
