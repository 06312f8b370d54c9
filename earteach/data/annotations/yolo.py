"""YOLO's text files: for each photograph lines of a class and a box as fractions of its sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from earteach.data.annotations.annotation import Annotation, Box, side_of
from earteach.errors import EarTeachError

# What lies among the labels and holds names.
_NAMES = ("classes.txt", "obj.names", "_darknet.labels")
_LISTS = frozenset({*_NAMES, "train.txt", "val.txt", "valid.txt", "test.txt"})
_MOST_BYTES = 2**24


def read_yolo(folder: Path) -> dict[str, list[Annotation]]:
    """The boxes of each photograph, which has the name of its `.txt`, folder by folder.

    A line is `class x y width height`, x and y of the centre, perhaps with a confidence; or a class and
    the corners of an outline, which the box encloses. Classes are named by `classes.txt` or by `names`
    in `data.yaml`, in the folder or in one of the two above it. Roboflow's `README.*.txt` are passed
    over. Raises `EarTeachError`.
    """
    names = _class_names(folder)
    return {
        _name(path.relative_to(folder)): _read(path, names)
        for path in sorted(folder.rglob("*.txt"))
        if path.name not in _LISTS and not path.name.startswith("README.")
    }


def _name(below: Path) -> str:
    """Of `labels/train/1.txt`, `train/1`: its photograph lies in `images/train`."""
    parts = below.with_suffix("").parts
    return "/".join(parts[1:] if parts[0] == "labels" and len(parts) > 1 else parts)


def _read(path: Path, names: dict[int, str]) -> list[Annotation]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("too large")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        return [_annotation(line.split(), names) for line in lines if line.strip()]
    except (OSError, ValueError, OverflowError) as error:
        raise EarTeachError(
            f"--boxes {path}: is not as YOLO has it ({error}); write it again"
        ) from error


def _annotation(cells: list[str], names: dict[int, str]) -> Annotation:
    number = int(float(cells[0]))
    category = names.get(number, str(number))
    return Annotation(
        box=_box([float(cell) for cell in cells[1:]]),
        side=side_of(category),
        category=category,
        relative=True,
    )


def _box(values: list[float]) -> Box:
    if len(values) in (4, 5):
        x, y, width, height = values[:4]
        return x - width / 2, y - height / 2, width, height
    if len(values) < 6 or len(values) % 2:
        raise ValueError(
            f"a line has {len(values) + 1} columns; it has class x y width height, or an outline"
        )
    corners = np.array(values).reshape(-1, 2)
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return float(left), float(top), float(right - left), float(bottom - top)


def _class_names(folder: Path) -> dict[int, str]:
    for place in (folder, *folder.absolute().parents[:2]):
        for name in ("data.yaml", *_NAMES):
            path = place / name
            if path.is_file() and path.stat().st_size <= _MOST_BYTES:
                return _names_in(path)
    return {}


def _names_in(path: Path) -> dict[int, str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix != ".yaml":
            return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
        names = yaml.safe_load(text)["names"]
        entries = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(number): str(name) for number, name in entries}
    except (OSError, ValueError, TypeError, LookupError, RecursionError, yaml.YAMLError) as error:
        reason = type(error).__name__
        raise EarTeachError(
            f"--boxes {path}: does not name the classes as YOLO has it ({reason}); it needs `names`"
        ) from error
