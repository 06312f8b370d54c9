"""Boxes of ears, from any of `box_formats.FORMATS`."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from earteach.data.annotations.annotation import Annotation, is_ear
from earteach.data.annotations.box_formats import FORMATS, BoxFormat
from earteach.data.annotations.photograph_names import Annotations
from earteach.data.patterns import compiled
from earteach.errors import EarTeachError

_ByName = dict[str, list[Annotation]]
_log = logging.getLogger(__name__)
_PICKLES = (".pkl", ".pickle", ".p")
_SHOWN = 5
_FILES = " or ".join(str(entry) for entry in FORMATS if not entry.is_folder)
_FOLDERS = " or ".join(str(entry) for entry in FORMATS if entry.is_folder)
_KINDS = f"a file, {_FILES}, or a folder of {_FOLDERS}"


def read_boxes(path: Path, category: str | None = None) -> Annotations:
    """The boxes in a file, or in a folder of files, of one of the formats.

    If there are several categories, those are taken that match the regular expression `category`, or
    without it those whose name says ear. Raises `EarTeachError` for a path that is missing, damaged or
    holds no box of an ear.
    """
    by_name = _format(path).read(path)
    if not any(by_name.values()):
        raise EarTeachError(f"--boxes {path}: holds no boxes; name a file that has some")
    names = dict.fromkeys(ear.category for ear in _all(by_name) if ear.category is not None)
    taken = _chosen(path, list(names), category)
    skipped = [name for name in names if name not in taken]
    if skipped:
        _log.info(
            "boxes of %s are taken, not of %s", _listed(sorted(taken)), _listed(sorted(skipped))
        )
    ears = {
        name: [ear for ear in its if ear.category is None or ear.category in taken]
        for name, its in by_name.items()
    }
    _check_landmarks(path, ears)
    return Annotations(f"--boxes {path}", ears)


def _all(by_name: _ByName) -> Iterable[Annotation]:
    return (ear for its in by_name.values() for ear in its)


def _check_landmarks(path: Path, by_name: _ByName) -> None:
    counts = sorted({len(ear.points) for ear in _all(by_name) if ear.points is not None})
    if len(counts) > 1:
        raise EarTeachError(
            f"--boxes {path}: has ears with {counts[0]} landmarks and with {counts[-1]}; choose one "
            "kind with --category"
        )


def _format(path: Path) -> BoxFormat:
    if not path.exists():
        raise EarTeachError(f"--boxes {path}: no such file; name {_KINDS}")
    if path.is_dir():
        for entry in FORMATS:
            if entry.is_folder and any(path.rglob(f"*{entry.suffix}")):
                return entry
        raise EarTeachError(f"--boxes {path}: a folder without labels; name {_KINDS}")
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise EarTeachError(
            f"--boxes {path}: is a pickle, which could run anything; convert it to a .csv as "
            "docs/guides/photographs.md shows"
        )
    for entry in FORMATS:
        if suffix == entry.suffix and not entry.is_folder and path.is_file():
            return entry
    raise EarTeachError(f"--boxes {path}: is not a file of boxes; name {_KINDS}")


def _chosen(path: Path, names: Sequence[str], pattern: str | None) -> set[str]:
    """The categories that are ears."""
    if pattern is not None:
        matching = {name for name in names if compiled("--category", pattern).search(name)}
        if not matching:
            raise EarTeachError(
                f"--category {pattern}: matches none of the categories of {path}: {_listed(names)}"
            )
        return matching
    if len(names) <= 1:
        return set(names)
    ears = {name for name in names if is_ear(name)}
    if not ears:
        raise EarTeachError(
            f"--boxes {path}: has the categories {_listed(names)}, and none is named ear; say with "
            f"--category which are ears, as in --category '^{re.escape(names[0])}$'"
        )
    return ears


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
