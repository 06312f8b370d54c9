"""YOLO's labels: a `.txt` for each photograph, with a line for each ear (https://docs.ultralytics.com)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from earteach.data.annotations.annotation import Annotation, Box, bounding_box, side_of
from earteach.data.annotations.labels import Labels, Slip, numbers, small_file, text_of
from earteach.errors import EarTeachError

# Files among the labels that name classes or list photographs.
_NAMES = ("classes.txt", "obj.names", "_darknet.labels")
_YAML = ("data.yaml", "dataset.yaml", "data.yml")
_LISTS = frozenset({*_NAMES, "train.txt", "val.txt", "valid.txt", "test.txt"})
_BOX = 4


@dataclass(frozen=True)
class _Dataset:
    """The names of the classes, and how many points of how many numbers a pose has.

    `pose` is None for boxes and outlines; `is_known` is whether a file says so.
    """

    names: dict[int, str]
    pose: tuple[int, int] | None = None
    is_known: bool = False


def is_label_file(path: Path) -> bool:
    """Whether it is no list; Roboflow also puts `README.*.txt` beside the labels."""
    return path.name not in _LISTS and not path.name.startswith("README.")


def read_yolo(folder: Path, files: Iterable[tuple[Path, str]], labels: Labels) -> None:
    """The ears in each file, by the name that it shares with its photograph.

    A line is `class x y width height`, x and y of the centre, with or without a confidence; in a dataset
    with `kpt_shape`, the points of a pose follow; else a class and the corners of an outline, which the
    box encloses. Classes are named in the folder or in one of the two above it.
    """
    dataset = _dataset(folder)
    lines = list[tuple[Path, int, str, list[float]]]()
    for path, name in files:
        labels.path = path
        with labels.reading():
            labels.by_name[name]
            content = text_of(small_file(path)).splitlines()
            for count, line in enumerate(content, start=1):
                if line.strip():
                    with labels.reading(f"line {count}"):
                        lines.append((path, count, name, numbers(line.split(), "")))
    _refuse_uncertain(dataset, lines)
    for path, count, name, values in lines:
        labels.path = path
        with labels.reading(f"line {count}"):
            labels.by_name[name].append(_annotation(values, dataset))


def _annotation(values: list[float], dataset: _Dataset) -> Annotation:
    try:
        index = int(values[0])
    except (ValueError, OverflowError) as error:
        raise Slip(f"has the class {values[0]}") from error
    category = dataset.names.get(index, str(index))
    box, points = _shape(values[1:], dataset.pose)
    return Annotation(
        box=box, points=points, side=side_of(category), category=category, relative=True
    )


def _shape(values: list[float], pose: tuple[int, int] | None) -> tuple[Box, np.ndarray | None]:
    if pose is not None:
        count, size = pose
        if len(values) - _BOX - count * size not in (0, 1):  # a confidence may follow
            raise Slip(
                f"has {len(values) + 1} numbers; a pose of `kpt_shape: [{count}, {size}]` has "
                f"{1 + _BOX + count * size}"
            )
        return _box(values), _points(values, count, size)
    if len(values) in (_BOX, _BOX + 1):
        return _box(values), None
    if len(values) == _BOX + 2 and values[-1].is_integer() and values[-1] > 0:
        if values[-1] > 1:  # of a track; an outline lies in the photograph
            return _box(values), None
        raise Slip("may be a box with a confidence and the number of a track, or an outline")
    if len(values) < 6 or len(values) % 2:
        raise Slip(
            f"has {len(values) + 1} numbers; it needs class x y width height, or an outline, or "
            "`kpt_shape` in data.yaml if they are points"
        )
    return bounding_box(np.array(values).reshape(-1, 2)), None


def _box(values: list[float]) -> Box:
    x, y, width, height = values[:_BOX]
    return x - width / 2, y - height / 2, width, height


def _points(values: list[float], count: int, size: int) -> np.ndarray:
    """The points of a pose `(K, 2)`; NaN without visibility, or at 0, 0 if it is not given."""
    points = np.array(values[_BOX : _BOX + count * size]).reshape(count, size)
    known = points[:, 2] > 0 if size == 3 else (points != 0).any(axis=1)
    return np.where(known[:, None], points[:, :2], np.nan)


def _refuse_uncertain(dataset: _Dataset, lines: list[tuple[Path, int, str, list[float]]]) -> None:
    """Without a data.yaml, long lines that are all as poses would be may be poses or outlines."""
    long = [line for line in lines if len(line[3]) > _BOX + 2]
    if dataset.is_known or not long or len({len(line[3]) for line in long}) > 1:
        return
    if all(_may_be_pose(line[3][1:]) for line in long):
        path, count, *_ = long[0]
        raise EarTeachError(
            f"--boxes {path}: line {count} may be an outline or the points of a pose; put the data.yaml "
            "of the labels beside them, with `kpt_shape` if they are points"
        )


def _may_be_pose(values: list[float]) -> bool:
    """Whether all points, with visibilities or without, lie in the box that the first numbers make."""
    left, top, width, height = _box(values)
    rest = np.array(values[_BOX:])
    for size in (2, 3):
        if len(rest) % size:
            continue
        points = rest.reshape(-1, size)
        if size == 3 and not np.isin(points[:, 2], (0, 1, 2)).all():
            continue
        x, y = points[:, 0], points[:, 1]
        inside = (x >= left) & (x <= left + width) & (y >= top) & (y <= top + height)
        if (inside | ((x == 0) & (y == 0))).all():
            return True
    return False


def _dataset(folder: Path) -> _Dataset:
    above = (folder, *folder.absolute().parents[:2])
    path = next(
        (path for each in above for name in (*_YAML, *_NAMES) if (path := each / name).is_file()),
        None,
    )
    if path is None:
        return _Dataset({})
    try:
        content = text_of(small_file(path))
        if path.name not in _YAML:
            listed = enumerate(line.strip() for line in content.splitlines() if line.strip())
            return _Dataset(dict(listed))
        return _described(yaml.safe_load(content))
    except (Slip, ValueError, LookupError, TypeError, AttributeError, OverflowError,
            RecursionError, yaml.YAMLError) as error:  # fmt: skip
        reason = error if isinstance(error, Slip) else "does not describe labels as YOLO does"
        raise EarTeachError(
            f"--boxes {path}: {reason}; it needs a list of `names`, and for poses `kpt_shape: [points, "
            "2 or 3]`"
        ) from error


def _described(data: Any) -> _Dataset:
    names = data["names"]
    if isinstance(names, str):  # a file of names, say
        raise ValueError("names")
    entries = names.items() if isinstance(names, dict) else enumerate(names)
    pose = data.get("kpt_shape")
    if pose is not None:
        count, size = map(int, pose)
        if count < 1 or size not in (2, 3):
            raise ValueError("kpt_shape")
        pose = count, size
    return _Dataset({int(number): str(name) for number, name in entries}, pose, is_known=True)
