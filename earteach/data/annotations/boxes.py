"""Boxes of ears, from the files of the tools that people draw them with.

To add a format, write its reader in a module of its own, and name it here: in `_JSON` if its files are
JSON, else in `_read_file`.
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
_PICKLES = (".pkl", ".pickle", ".p")
_SHOWN = 5
_TABLES = (".csv", ".tsv")
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
# By a field of the whole or of the first entry, the tools whose JSON is not read.
_OTHER_TOOLS = {
    "data_row": "Labelbox",
    "classTitle": "Supervisely",
    "objects": "Supervisely",
    "item": "Darwin (V7)",
    "instances": "SuperAnnotate",
    "items": "Datumaro",
    "coordinates": "CreateML",
    "assets": "VoTT",
    "features": "GeoJSON",
    "_via_settings": "a VIA project without regions",
}


def read_boxes(path: Path, category: str | None = None) -> Annotations:
    """The boxes in a file, or in a folder of files, of one of the formats.

    If there are several categories, those are taken that match the regular expression `category`, or
    without it those whose name says ear. An annotation that cannot be read is left out. Raises
    `EarTeachError` for a path that is missing, damaged or holds no box of an ear.
    """
    labels = _read(path)
    by_name = labels.with_points()
    if not any(by_name.values()):
        if labels.slips:
            where, why = labels.slips[0]
            raise EarTeachError(f"--boxes {where}: {why}; correct it, or export it again")
        raise EarTeachError(f"--boxes {path}: holds no boxes; name a file that has some")
    if labels.slips:
        where, why = labels.slips[0]
        more = f"; and {len(labels.slips) - 1} more" if len(labels.slips) > 1 else ""
        _log.info("left out of %s: %s%s", where, why, more)
    names = dict.fromkeys(ear.category for ear in _all(by_name) if ear.category is not None)
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
    _check_landmarks(path, ears)
    return Annotations(f"--boxes {path}", ears, labels.slips)


def _all(by_name: _ByName) -> Iterable[Annotation]:
    return (ear for its in by_name.values() for ear in its)


def _check_landmarks(path: Path, by_name: _ByName) -> None:
    counts = sorted({len(ear.points) for ear in _all(by_name) if ear.points is not None})
    if len(counts) > 1:
        raise EarTeachError(
            f"--boxes {path}: has ears with {counts[0]} landmarks and with {counts[-1]}; choose one "
            "kind with --category"
        )


def _read(path: Path) -> Labels:
    if not path.exists():
        raise EarTeachError(f"--boxes {path}: no such file; name {_KINDS}")
    labels = Labels(path)
    if path.is_dir():
        _read_folder(path, labels)
    else:
        _read_file(path, labels)
    return labels


def _read_file(path: Path, labels: Labels) -> None:
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise EarTeachError(
            f"--boxes {path}: is a pickle, which could run any code; convert it to a .csv as "
            "docs/guides/photographs.md shows"
        )
    if not path.is_file() or suffix not in (".json", ".xml", *_TABLES):
        raise EarTeachError(f"--boxes {path}: is not a file of boxes; name {_KINDS}")
    if suffix == ".json":
        _read_json(path, labels)
    elif suffix == ".xml":
        read_xml(path, path.stem, labels)
    else:
        read_table(path, labels)


def _read_folder(folder: Path, labels: Labels) -> None:
    """Files of the suffix that most of the labels in the folder have."""
    files = [path for path in find_files(folder, {".xml", ".txt", ".json"}).files
             if path.suffix.lower() != ".txt" or is_label_file(path)]  # fmt: skip
    if not files:
        raise EarTeachError(f"--boxes {folder}: a folder without labels; name {_KINDS}")
    ((suffix, _),) = Counter(path.suffix.lower() for path in files).most_common(1)
    files = [path for path in files if path.suffix.lower() == suffix]
    if suffix == ".txt":
        read_yolo(folder, [(path, _name(path, folder, "labels")) for path in files], labels)
        return
    for path in files:
        labels.path, labels.folder = path, path.relative_to(folder).parent.as_posix()
        if suffix == ".xml":
            read_xml(path, _name(path, folder, "Annotations"), labels)
        else:
            _read_json(path, labels)


def _name(path: Path, folder: Path, label_folder: str) -> str:
    """What a file and its photograph are both called: its path in `folder` without suffix.

    A leading `label_folder` is dropped: the photograph of `labels/train/1.txt` is `images/train/1.jpg`,
    which ends in `train/1`.
    """
    parts = path.relative_to(folder).with_suffix("").parts
    if parts[0] == label_folder and len(parts) > 1:
        parts = parts[1:]
    return "/".join(parts)


def _read_json(path: Path, labels: Labels) -> None:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise EarTeachError(
            f"--boxes {path}: is not a JSON file ({error}); export it again"
        ) from error
    for matches, read in _JSON:
        if matches(data):
            try:
                return read(data, labels)
            except Slip as slip:  # in what all annotations need
                raise EarTeachError(f"--boxes {path}: {slip}; export it again") from slip
    raise EarTeachError(
        f"--boxes {path}: {_kind(data)}, which is not read; export it as COCO 1.0, which has "
        "`images` and `annotations`"
    )


def _kind(data: Any) -> str:
    """What the file seems to be, from the names of its fields."""
    entry = data[0] if isinstance(data, list) and data else data
    if isinstance(entry, dict):
        fields = set(map(str, entry))
        for value in entry.values():
            first = value[0] if isinstance(value, list) and value else value
            fields |= set(map(str, first)) if isinstance(first, dict) else set()
        for field, tool in _OTHER_TOOLS.items():
            if field in fields:
                return f"seems to be JSON of {tool}"
        if fields:
            return f"is JSON with the fields {_listed(sorted(fields))}"
    return "is JSON of another kind"


def _chosen(path: Path, names: Sequence[str], pattern: str | None) -> set[str]:
    """The categories that are ears."""
    if pattern is not None:
        matching = {name for name in names if search("--category", pattern, name)}
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
    # A name may hold line breaks.
    return ", ".join(" ".join(name.split()) for name in names[:_SHOWN]) + more
