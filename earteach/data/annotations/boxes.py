"""Boxes of ears: COCO, tables, Pascal VOC and YOLO."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from earteach.data.annotations.annotation import Annotation, is_ear
from earteach.data.annotations.box_formats import read_coco, read_table, read_voc, read_yolo
from earteach.data.annotations.photograph_names import Annotations
from earteach.data.patterns import compiled
from earteach.errors import EarTeachError

_ByName = dict[str, list[Annotation]]
_log = logging.getLogger(__name__)
_READERS: dict[str, Callable[[Path], _ByName]] = {".json": read_coco, ".csv": read_table}
_FOLDER_READERS: dict[str, Callable[[Path], _ByName]] = {".xml": read_voc, ".txt": read_yolo}
_PICKLES = (".pkl", ".pickle", ".p")
_SHOWN = 5


def read_boxes(path: Path, category: str | None = None) -> Annotations:
    """The boxes in a `.json` (COCO) or `.csv` file, or in a folder of `.xml` (VOC) or `.txt` (YOLO).

    If there are several categories, those are taken that match the regular expression `category`, or
    without it those whose name says ear. Raises `EarTeachError` for a path that is missing, damaged or
    holds no box of an ear.
    """
    by_name = _reader(path)(path)
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


def _reader(path: Path) -> Callable[[Path], _ByName]:
    if not path.exists():
        raise EarTeachError(
            f"--boxes {path}: no such file; name a .json (COCO), a .csv, or a folder of .xml "
            "(Pascal VOC) or .txt (YOLO)"
        )
    if path.is_dir():
        for suffix, reader in _FOLDER_READERS.items():
            if any(path.rglob(f"*{suffix}")):
                return reader
        raise EarTeachError(
            f"--boxes {path}: holds no .xml (Pascal VOC) and no .txt (YOLO); name their folder"
        )
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise EarTeachError(
            f"--boxes {path}: is a pickle, which could run anything; convert it to a .csv as "
            "docs/guides/photographs.md shows"
        )
    if suffix not in _READERS or not path.is_file():
        raise EarTeachError(
            f"--boxes {path}: is none of {', '.join(_READERS)}; name one, or a folder of .xml or .txt"
        )
    return _READERS[suffix]


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
