"""VGG Image Annotator's project and export (https://www.robots.ox.ac.uk/~vgg/software/via)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from earteach.data.annotations.annotation import Annotation, Box, bounding_box, side_of
from earteach.data.annotations.labels import (
    Labels,
    NamedPoint,
    Slip,
    mapping,
    number,
    numbers,
    sequence,
    text,
)


def is_via(data: Any) -> bool:
    if not isinstance(data, dict):
        return False
    images = data.get("_via_img_metadata", data)
    return (
        isinstance(images, dict)
        and bool(images)
        and all(isinstance(image, dict) and "regions" in image for image in images.values())
    )


def read_via(data: Mapping[str, Any], labels: Labels) -> None:
    """The regions of each image; points become landmarks."""
    for key, value in data.get("_via_img_metadata", data).items():
        with labels.reading(f"image {key}"):
            image = mapping(value, "it")
            regions = image["regions"]
            if isinstance(regions, dict):  # as version 1 has them
                regions = list(regions.values())
            add_regions(text(image, "filename"), sequence(regions, "`regions`"), labels)


def add_regions(name: str, regions: Iterable[Any], labels: Labels) -> None:
    """The regions of a photograph, as objects with `shape_attributes` and `region_attributes`."""
    ears: list[Annotation] = []
    points: list[tuple[list[str], tuple[float, float]]] = []
    for index, value in enumerate(regions):
        with labels.reading(f"{name}, region {index}"):
            region = mapping(value, "it")
            shape = mapping(region.get("shape_attributes"), "`shape_attributes`")
            values = _values(region.get("region_attributes"))
            if shape.get("name") == "point":
                points.append((values, (number(shape, "cx"), number(shape, "cy"))))
            else:
                said = next(filter(None, values), None)
                ears.append(Annotation(box=_box(shape), side=side_of(said), category=said))
    names = _point_names([values for values, _ in points])
    shapes = [[NamedPoint(said, xy)] for said, (_, xy) in zip(names, points, strict=True)]
    labels.add_shapes(name, dict.fromkeys(ears), shapes)


def _point_names(points: Sequence[Sequence[str]]) -> Sequence[str]:
    """What the first attribute says that tells the points apart; else the first thing said of each."""
    for said in zip(*points, strict=False):
        if all(said) and len({*said}) == len(said):
            return said
    return [next(filter(None, values), "") for values in points]


def _box(shape: Mapping[str, Any]) -> Box:
    kind = shape.get("name")
    if kind == "rect":
        left, top, width, height = (number(shape, name) for name in ("x", "y", "width", "height"))
        return left, top, width, height
    if kind in ("polygon", "polyline"):
        x, y = (numbers(shape.get(f"all_points_{axis}"), "an outline") for axis in "xy")
        if len(x) != len(y) or not x:
            raise Slip("has an outline with different numbers of x and y")
        return bounding_box(np.stack([x, y], axis=1))
    if kind in ("circle", "ellipse"):
        names = ("cx", "cy", "r", "r") if kind == "circle" else ("cx", "cy", "rx", "ry")
        middle_x, middle_y, across, down = (number(shape, name) for name in names)
        return middle_x - across, middle_y - down, 2 * across, 2 * down
    raise Slip(f"has the shape {kind!r}, which is not read; draw a rectangle or an outline")


def _values(attributes: Any) -> list[str]:
    """What each attribute says of a region, such as `ear`; of several choices, the first."""
    if not isinstance(attributes, dict):
        return []
    firsts = (
        next(iter(value), "") if isinstance(value, dict) else value for value in attributes.values()
    )
    return [first.strip() if isinstance(first, str) else "" for first in firsts]
