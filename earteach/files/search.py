"""Find files below a folder, without those that systems put there and through links."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

# Made by Synology, QNAP and NetApp, Windows, macOS and its archives, and file system checks.
_SYSTEM_FOLDERS = frozenset(
    {"@eadir", "@tmp", "#recycle", "@recycle", "#snapshot", "@recently-snapshot", "~snapshot",
     "$recycle.bin", "recycler", "recycled", "system volume information", "network trash folder",
     "temporary items", "thevolumesettingsfolder", "__macosx", "lost+found"}
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Files, sorted by path, and what was passed over: its path, and why."""

    files: list[Path] = field(default_factory=list)
    left_out: list[tuple[Path, str]] = field(default_factory=list)


def find_files(folder: Path, suffixes: Collection[str]) -> Found:
    """The files below a folder with one of these suffixes, which are in lower case.

    Links to folders are followed, but no folder is read twice. Hidden files and folders, and those of
    the system, are passed over.
    """
    found, tops, seen = Found(), [folder], set[tuple[int, int]]()
    # Links come after every folder that lies here itself, so that its files have its own name.
    for top in tops:
        _walk(top, frozenset(suffixes), found, tops, seen)
    found.files.sort()
    return found


def without_repeats(found: Found) -> Found:
    """The same without links to files that are found already, which are left out."""
    links = [path for path in found.files if path.is_symlink()]
    seen = {_identity(path) for path in set(found.files).difference(links)} if links else set()
    repeats = set[Path]()
    for link in links:
        if _identity(link) in seen:
            repeats.add(link)
        seen.add(_identity(link))
    files = [path for path in found.files if path not in repeats]
    left_out = [(link, "a link to a file that is read already") for link in sorted(repeats)]
    return replace(found, files=files, left_out=found.left_out + left_out)


def _walk(
    top: Path, suffixes: Collection[str], found: Found, tops: list[Path], seen: set[tuple[int, int]]
) -> None:  # fmt: skip
    def note(error: OSError) -> None:
        found.left_out.append((Path(error.filename), f"cannot be read: {error.strerror}"))

    for parent, folders, files in os.walk(top, onerror=note):
        here = Path(parent)
        if (identity := _identity(here)) in seen:  # a link leads to it, or to a folder above it
            found.left_out.append((here, "a folder that is read already"))
            folders.clear()
            continue
        seen.add(identity)
        entered = []
        for name in sorted(folders):
            path = here / name
            if name.lower() in _SYSTEM_FOLDERS:
                found.left_out.append((path, "a folder of the system"))
            elif name.startswith("."):
                continue
            elif path.is_symlink():
                tops.append(path)
            else:
                entered.append(name)
        folders[:] = entered
        for name in files:
            path = here / name
            if path.is_symlink() and not path.exists():
                found.left_out.append((path, "a link that leads nowhere"))
            elif not name.startswith(".") and path.suffix.lower() in suffixes and path.is_file():
                found.files.append(path)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
