"""LabelMe's JSON, one file for each photograph (https://github.com/wkentaro/labelme)."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import PureWindowsPath
from typing import Any

import numpy as np

from earteach.data.annotations.annotation import Annotation, Box, bounding_box, side_of
from earteach.data.annotations.labels import (
    Labels,
    NamedPoint,
    Slip,
    mapping,
    pairs,
    sequence,
    text,
    whole_size,
)


def is_labelme(data: Any) -> bool:
    return isinstance(data, dict) and {"shapes", "imagePath"} <= data.keys()


def read_labelme(data: Mapping[str, Any], labels: Labels) -> None:
    """Rectangles, outlines and circles are boxes; points become landmarks.

    The photograph's path is relative to the file's own folder. One with a drive is of another computer:
    in a folder for each person, only its last part counts.
    """
    path = text(data, "imagePath").replace("\\", "/")
    if PureWindowsPath(path).drive and labels.folder not in ("", "."):
        path = posixpath.basename(path)
    name = posixpath.normpath(posixpath.join(labels.folder, path))
    name = name[3 * name.count("../") :]
    size = whole_size(data.get("imageWidth"), data.get("imageHeight"))
    boxes: dict[Annotation, str | None] = {}
    points: list[list[NamedPoint]] = []
    for index, value in enumerate(sequence(data["shapes"], "`shapes`")):
        with labels.reading(f"shape {index}"):
            shape = mapping(value, "it")
            said, group = text(shape, "label"), shape.get("group_id")
            group = None if group is None else str(group)
            xy = pairs(shape.get("points"), "`points`")
            if shape.get("shape_type") == "point":
                points.append([NamedPoint(said, (float(xy[0, 0]), float(xy[0, 1])), group)])
            else:
                box = _box(str(shape.get("shape_type") or "polygon"), xy)
                ear = Annotation(box=box, side=side_of(said), category=said, photograph=size)
                boxes[ear] = group
    labels.add_shapes(name, boxes, points, size)


def _box(kind: str, xy: np.ndarray) -> Box:
    if kind == "circle" and len(xy) == 2:  # its centre, and a point on it
        radius = float(np.linalg.norm(xy[1] - xy[0]))
        return float(xy[0, 0]) - radius, float(xy[0, 1]) - radius, 2 * radius, 2 * radius
    if len(xy) < 2:
        raise Slip(f"is a {kind} with fewer than two points")
    return bounding_box(xy)
