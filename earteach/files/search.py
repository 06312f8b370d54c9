"""Find files below a folder, without those that systems put there and through links."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

# Made by Synology and QNAP, Windows, archives of macOS, and file system checks.
_SYSTEM_FOLDERS = frozenset(
    {"@eadir", "#recycle", "@recycle", "#snapshot", "$recycle.bin", "system volume information",
     "__macosx", "lost+found"}
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Files, sorted by path, and what was passed over: its path, and why.

    `folders` are those that were looked into, and `links` those among them that are links.
    """

    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)
    left_out: list[tuple[Path, str]] = field(default_factory=list)


def find_files(folder: Path, suffixes: Collection[str]) -> Found:
    """The files below a folder with one of these suffixes, which are in lower case.

    Links to folders are followed, but no folder is read twice. Hidden files and folders, and those of
    the system, are passed over.
    """
    found, links, seen = Found(), list[Path](), set[tuple[int, int]]()
    _walk(folder, frozenset(suffixes), found, links, seen)
    while links:  # after every folder that lies here itself, so that its files have its own name
        link = links.pop(0)
        if _identity(link) in seen:
            found.left_out.append((link, "a link to a folder that is read already"))
        else:
            found.links.append(link)
            _walk(link, frozenset(suffixes), found, links, seen)
    found.files.sort()
    return found


def _walk(
    top: Path, suffixes: Collection[str], found: Found, links: list[Path], seen: set[tuple[int, int]]
) -> None:  # fmt: skip
    def note(error: OSError) -> None:
        found.left_out.append((Path(error.filename), f"cannot be read: {error.strerror}"))

    for parent, folders, files in os.walk(top, onerror=note):
        here = Path(parent)
        seen.add(_identity(here))
        found.folders.append(here)
        entered = []
        for name in sorted(folders):
            path = here / name
            if name.lower() in _SYSTEM_FOLDERS:
                found.left_out.append((path, "a folder of the system"))
            elif path.is_symlink():
                links.append(path)
            elif not name.startswith("."):
                entered.append(name)
        folders[:] = entered
        for name in files:
            path = here / name
            if path.is_symlink() and not path.exists():
                found.left_out.append((path, "a link that leads nowhere"))
            elif not name.startswith(".") and path.suffix.lower() in suffixes and path.is_file():
                found.files.append(path)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
