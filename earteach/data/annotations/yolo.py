"""YOLO's text files: for each photograph lines of a class and a box as fractions of its sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from earteach.data.annotations.annotation import Annotation, Box, bounding_box, side_of
from earteach.data.annotations.label_files import read_label_files, small_file
from earteach.errors import EarTeachError

# Files among the labels that name classes or list photographs.
_NAMES = ("classes.txt", "obj.names", "_darknet.labels")
_LISTS = frozenset({*_NAMES, "train.txt", "val.txt", "valid.txt", "test.txt"})


def read_yolo(folder: Path) -> dict[str, list[Annotation]]:
    """The boxes of each photograph, by the path of its `.txt` without suffix.

    A line is `class x y width height`, x and y of the centre, with or without a confidence; or a class
    and the corners of an outline, which the box encloses. Classes are named by `classes.txt` or by
    `names` in `data.yaml`, in the folder or in one of the two above it. Roboflow's `README.*.txt` are
    skipped. Raises `EarTeachError`.
    """
    names = _class_names(folder)
    labels = (
        path
        for path in folder.rglob("*.txt")
        if path.name not in _LISTS and not path.name.startswith("README.")
    )

    def parse(content: bytes) -> list[Annotation]:
        lines = content.decode("utf-8-sig").splitlines()
        return [_annotation(line.split(), names) for line in lines if line.strip()]

    return read_label_files(folder, labels, parse, standard="YOLO", label_folder="labels")


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
    return bounding_box(np.array(values).reshape(-1, 2))


def _class_names(folder: Path) -> dict[int, str]:
    for parent in (folder, *folder.absolute().parents[:2]):
        for name in ("data.yaml", *_NAMES):
            if (parent / name).is_file():
                return _names_in(parent / name)
    return {}


def _names_in(path: Path) -> dict[int, str]:
    try:
        text = small_file(path).decode("utf-8-sig")
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
