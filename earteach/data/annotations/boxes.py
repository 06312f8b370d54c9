"""Boxes of ears, from the files of the tools that people draw them with.

To add a format, write its reader in a module of its own, and name it here: in `_JSON` if its files are
JSON, else in `_read`.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from earteach.data.annotations.annotation import Annotation, is_ear
from earteach.data.annotations.coco import is_coco, read_coco
from earteach.data.annotations.label_studio import is_label_studio, read_label_studio
from earteach.data.annotations.labelme import is_labelme, read_labelme
from earteach.data.annotations.labels import Labels, Slip
from earteach.data.annotations.photograph_names import Annotations
from earteach.data.annotations.tables import read_table
from earteach.data.annotations.via import is_via, read_via
from earteach.data.annotations.xml_labels import read_xml
from earteach.data.annotations.yolo import is_label_file, read_yolo
from earteach.data.patterns import search
from earteach.errors import EarTeachError
from earteach.files.search import find_files

_ByName = dict[str, list[Annotation]]
_log = logging.getLogger(__name__)
_SHOWN = 5
_TABLES = (".csv", ".tsv")
# Folders of labels, and those of their photographs: of YOLO and of Pascal VOC.
_PHOTOGRAPHS_OF = {"labels": "images", "Annotations": "JPEGImages"}
_KINDS = (
    "a .json (COCO, LabelMe, Label Studio, VIA), a .csv, a .xml (CVAT), or a folder of .xml (Pascal "
    "VOC), .txt (YOLO) or .json (LabelMe)"
)
_JSON: tuple[tuple[Callable[[Any], bool], Callable[[Any, Labels], None]], ...] = (
    (is_coco, read_coco),
    (is_labelme, read_labelme),
    (is_label_studio, read_label_studio),
    (is_via, read_via),
)


def read_boxes(path: Path, category: str | None = None) -> Annotations:
    """The boxes in a file, or in a folder of files, of one of the formats.

    If there are several categories, those are taken that match the regular expression `category`, or
    without it those whose name says ear. An annotation that cannot be read is left out. Raises
    `EarTeachError` for a path that is missing, damaged or holds no box of an ear.
    """
    labels = _read(path)
    by_name = labels.by_name
    _check_any(path, by_name, labels)
    every = (ear.category for its in by_name.values() for ear in its)
    names = dict.fromkeys(name for name in every if name is not None)
    taken = _chosen(path, list(names), category)
    skipped = [name for name in names if name not in taken]
    if skipped:
        _log.info(
            "using the boxes of %s, not of %s", _listed(sorted(taken)), _listed(sorted(skipped))
        )
    ears = {
        name: [ear for ear in its if ear.category is None or ear.category in taken]
        for name, its in by_name.items()
    }
    ears = labels.with_points(ears)
    _check_any(path, ears, labels)
    once = {name: _without_repeats(its) for name, its in ears.items()}
    if repeats := sum(map(len, ears.values())) - sum(map(len, once.values())):
        _log.info("--boxes %s: %d boxes are repeated; each is used once", path, repeats)
    if labels.slips:
        where, why = labels.slips[0]
        more = f"; and {len(labels.slips) - 1} more" if len(labels.slips) > 1 else ""
        _log.info("left out of %s: %s%s", where, why, more)
    return Annotations(f"--boxes {path}", once, labels.slips, labels.own_names)


def _check_any(path: Path, by_name: _ByName, labels: Labels) -> None:
    if any(by_name.values()):
        return
    if labels.slips:
        where, why = labels.slips[0]
        raise EarTeachError(f"--boxes {where}: {why}; correct it, or export it as COCO 1.0")
    raise EarTeachError(f"--boxes {path}: holds no boxes; name a file that has some")


def _without_repeats(ears: Iterable[Annotation]) -> list[Annotation]:
    """Each box once, with landmarks if one of its copies has some."""
    kept = dict[Any, Annotation]()
    for ear in ears:
        key = ear if ear.box is None else (ear.box, ear.side, ear.person)
        if kept.setdefault(key, ear).points is None:
            kept[key] = ear
    return list(kept.values())


def _read(path: Path) -> Labels:
    if not path.exists():
        raise EarTeachError(f"--boxes {path}: no such file; name {_KINDS}")
    labels, suffix = Labels(path), path.suffix.lower()
    if path.is_dir():
        _read_folder(path, labels)
    elif not path.is_file() or suffix not in (".json", ".xml", *_TABLES):
        raise EarTeachError(f"--boxes {path}: is not a file of boxes; name {_KINDS}")
    elif suffix in _TABLES:
        read_table(path, labels)
    else:
        _read_labels(path, path.stem, labels)
    return labels


def _read_labels(path: Path, name: str, labels: Labels) -> None:
    if path.suffix.lower() == ".xml":
        read_xml(path, name, labels)
    else:
        with labels.reading():
            _read_json(path, labels)


def _read_folder(folder: Path, labels: Labels) -> None:
    """Files of the suffix that most of the labels in the folder have."""
    files = [path for path in find_files(folder, {".xml", ".txt", ".json"}).files
             if path.suffix.lower() != ".txt" or is_label_file(path)]  # fmt: skip
    if not files:
        raise EarTeachError(f"--boxes {folder}: a folder without labels; name {_KINDS}")
    counts = Counter(path.suffix.lower() for path in files)
    (suffix, count), *others = counts.most_common()
    if others:
        _log.info(
            "--boxes %s: using its %d %s files, not its %s; move those to a folder of their own",
            folder, count, suffix, ", ".join(f"{other} ({number})" for other, number in others),
        )  # fmt: skip
    taken = [path for path in files if path.suffix.lower() == suffix]
    if suffix == ".txt":
        read_yolo(folder, [(path, _name(path, folder)) for path in taken], labels)
        return
    for path in taken:
        name = _name(path, folder)
        file = Labels(path, Path(name).parent.as_posix())
        _read_labels(path, name, file)
        labels.include(file)


def _name(path: Path, folder: Path) -> str:
    """What a file and its photograph are both called: its path in `folder` without suffix.

    The photograph of `a/labels/1.txt` is `a/images/1.jpg`. If `labels` comes first it is dropped: the
    photograph of `labels/train/1.txt` ends in `train/1`, in whatever folder.
    """
    first, *parts = path.relative_to(folder).with_suffix("").parts
    if first not in _PHOTOGRAPHS_OF or not parts:
        parts = [first, *parts]
    return "/".join([*(_PHOTOGRAPHS_OF.get(part, part) for part in parts[:-1]), parts[-1]])


def _read_json(path: Path, labels: Labels) -> None:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise Slip(f"is not a JSON file ({error})") from error
    for matches, read in _JSON:
        if matches(data):
            return read(data, labels)
    raise Slip("is JSON of another kind, which is not read")


def _chosen(path: Path, names: Sequence[str], pattern: str | None) -> set[str]:
    """The categories that are ears; a single one may have any name."""
    if pattern is not None:
        matching = {name for name in names if search("--category", pattern, name)}
        if not matching:
            raise EarTeachError(
                f"--category {pattern}: matches none of the categories of {path}: {_listed(names)}"
            )
        return matching
    ears = {name for name in names if is_ear(name)}
    if ears or not names:
        return ears
    if len(names) == 1:
        _log.info("using the boxes of %s, the only category, as ears", _listed(names))
        return set(names)
    raise EarTeachError(
        f"--boxes {path}: has boxes of {_listed(names)}, and none is named ear; say with --category "
        f"which are ears, as in --category '^{re.escape(names[0])}$'"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    # A name may hold line breaks.
    return ", ".join(" ".join(name.split()) for name in names[:_SHOWN]) + more
