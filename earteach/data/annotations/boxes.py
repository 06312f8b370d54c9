"""Boxes of ears: COCO, tables, Pascal VOC, YOLO and old pickled dictionaries."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from earteach.data.annotations.annotation import Annotation, is_ear
from earteach.data.annotations.coco import read_coco
from earteach.data.annotations.photograph_names import Annotations
from earteach.data.annotations.pickled import read_pickled
from earteach.data.annotations.tables import read_table
from earteach.data.annotations.voc import read_voc
from earteach.data.annotations.yolo import read_yolo
from earteach.data.patterns import compiled
from earteach.errors import EarTeachError

_Found = dict[str, list[Annotation]]
_log = logging.getLogger(__name__)
_READERS: dict[str, Callable[[Path], _Found]] = {
    ".json": read_coco,
    ".csv": read_table,
    ".pkl": read_pickled,
    ".pickle": read_pickled,
    ".p": read_pickled,
}
_MOST_BYTES = 2**30
_SHOWN = 5


def read_boxes(path: Path, category: str | None = None) -> Annotations:
    """The boxes in a `.json` (COCO), a `.csv` or a `.pkl`, or a folder of `.xml` (VOC) or `.txt` (YOLO).

    Of several categories those are taken whose name says ear, or that match the regular expression
    `category`. Raises `EarTeachError` for what is missing, damaged, or has no box of an ear.
    """
    by_name = _reader(path)(path)
    if not any(by_name.values()):
        raise EarTeachError(f"--boxes {path}: holds no boxes; name a file that has some")
    ears = _of_ears(path, by_name, category)
    _check_landmarks(path, ears)
    return Annotations(f"--boxes {path}", ears)


def _check_landmarks(path: Path, ears: Mapping[str, Sequence[Annotation]]) -> None:
    every = (a.points for found in ears.values() for a in found)
    counts = sorted({len(points) for points in every if points is not None})
    if len(counts) > 1:
        raise EarTeachError(
            f"--boxes {path}: has ears with {counts[0]} landmarks and with {counts[-1]}; choose one "
            "kind with --category"
        )


def _reader(path: Path) -> Callable[[Path], _Found]:
    if not path.exists():
        raise EarTeachError(
            f"--boxes {path}: no such file; name a .json (COCO), a .csv, a .pkl, or a folder of .xml "
            "(Pascal VOC) or .txt (YOLO)"
        )
    if path.is_dir():
        if any(path.rglob("*.xml")):
            return read_voc
        if any(path.rglob("*.txt")):
            return read_yolo
        raise EarTeachError(
            f"--boxes {path}: holds no .xml (Pascal VOC) and no .txt (YOLO); name their folder"
        )
    reader = _READERS.get(path.suffix.lower())
    if reader is None or not path.is_file():
        raise EarTeachError(
            f"--boxes {path}: is none of {', '.join(_READERS)}; name one, or a folder of .xml or .txt"
        )
    if path.stat().st_size > _MOST_BYTES:
        raise EarTeachError(f"--boxes {path}: has over {_MOST_BYTES:,} bytes; divide it")
    return reader


def _of_ears(
    path: Path, by_name: Mapping[str, Sequence[Annotation]], pattern: str | None
) -> dict[str, list[Annotation]]:
    every = (a.category for found in by_name.values() for a in found)
    names = dict.fromkeys(category for category in every if category is not None)
    wanted = _chosen(path, list(names), pattern)
    left_out = [name for name in names if name not in wanted]
    if left_out:
        _log.info(
            "boxes of %s are taken, not of %s", _listed(sorted(wanted)), _listed(sorted(left_out))
        )
    return {
        name: [a for a in found if a.category is None or a.category in wanted]
        for name, found in by_name.items()
    }


def _chosen(path: Path, names: Sequence[str], pattern: str | None) -> set[str]:
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
