"""YOLO's labels: a `.txt` for each photograph, with a line for each ear (https://docs.ultralytics.com)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
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
# A point may lie a little outside of a box that a hand drew, as a fraction of the box.
_NEAR = 0.15


@dataclass(frozen=True)
class _Dataset:
    """The names of the classes, and how many points of how many numbers a pose has.

    `pose` is None for boxes and outlines; `is_known` is whether a file says so, with `kpt_shape: null`.
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
                        values = numbers(line.split(), "is not a YOLO label: it")
                        lines.append((path, count, name, values))
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
    if max(values) >= 2:  # an outline may reach a little outside
        raise Slip(
            f"has the value {max(values):g}, which is not a fraction of a side; if the line is a pose, "
            "put `kpt_shape` in data.yaml"
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
    """Without `kpt_shape`, long lines that are all as poses would be may be poses or outlines."""
    long = [line for line in lines if len(line[3]) > _BOX + 2]
    if dataset.is_known or not long or len({len(line[3]) for line in long}) > 1:
        return
    if all(_may_be_pose(line[3][1:]) for line in long):
        path, count, *_ = long[0]
        raise EarTeachError(
            f"--boxes {path}: line {count} may be an outline or the points of a pose; write in the "
            "labels' data.yaml `kpt_shape: [points, 2 or 3]`, or `kpt_shape: null` for outlines"
        )


def _may_be_pose(values: list[float]) -> bool:
    """Whether most points, with visibilities or confidences or without, lie by the box before them."""
    x, y, width, height, *rest = values
    if len(values) == 8:
        first, second, third, fourth = np.array(values).reshape(4, 2)
        if np.allclose(first + third, second + fourth, atol=0.005):  # a turned box
            return False
    for size in (2, 3):
        count, left_over = divmod(len(rest), size)
        if count <= left_over:  # more than the box's confidence and the number of a track
            continue
        points = np.array(rest[: count * size]).reshape(count, size)
        reach = np.array([width, height]) * (0.5 + _NEAR)
        near = (np.abs(points[:, :2] - (x, y)) <= reach).all(axis=1)
        hidden = (points[:, :2] == 0).all(axis=1)
        visibilities = points[:, 2:]
        known = ((visibilities >= 0) & (visibilities <= 1)) | (visibilities == 2)
        if (near | hidden).mean() > 0.5 and known.all():
            return True
    return False


def _dataset(folder: Path) -> _Dataset:
    """The nearest names, and the pose of the nearest data.yaml."""
    # Without following links: a data.yaml lies beside a link to the labels, perhaps.
    above = Path(os.path.abspath(folder))  # noqa: PTH100
    files = [
        path
        for each in (folder, *above.parents[:2])
        for name in (*_YAML, *_NAMES)
        if (path := each / name).is_file()
    ]
    if not files:
        return _Dataset({})
    described = next((path for path in files if path.name in _YAML), files[0])
    return replace(_read_dataset(described), names=_read_dataset(files[0]).names)


def _read_dataset(path: Path) -> _Dataset:
    try:
        content = text_of(small_file(path))
        if path.name not in _YAML:
            return _Dataset(
                {n: name for n, line in enumerate(content.splitlines()) if (name := line.strip())}
            )
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
    entries = list(names.items() if isinstance(names, dict) else enumerate(names))
    if any(isinstance(name, dict | list) for _, name in entries):  # whose text may have no end
        raise ValueError("names")
    pose = data.get("kpt_shape")
    if pose is not None:
        count, size = map(int, pose)
        if count < 1 or size not in (2, 3):
            raise ValueError("kpt_shape")
        pose = count, size
    names = {int(number): str(name) for number, name in entries}
    return _Dataset(names, pose, is_known="kpt_shape" in data)
