"""COCO's JSON (https://cocodataset.org/#format-data), as the tools that export it write it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from earteach.data.annotations.annotation import Annotation, Box, bounding_box, side_of
from earteach.data.annotations.labels import (
    Labels,
    Slip,
    mapping,
    numbers,
    sequence,
    whole_size,
)

# Some tools name the photograph in one of the others.
_NAMES = ("file_name", "path", "coco_url", "flickr_url", "url")


def is_coco(data: Any) -> bool:
    return isinstance(data, dict) and {"images", "annotations"} <= data.keys()


def read_coco(data: Mapping[str, Any], labels: Labels) -> None:
    """The annotations of each image; images without any have an empty list.

    Keypoints become landmarks. They count pixels, so half a pixel is added (as in detectron2); those
    with visibility 0 are NaN. A box that is missing or empty is that of the outline. CVAT marks masks
    with `iscrowd`, so these are read too.
    """
    images: dict[str, Mapping[str, Any]] = {}
    repeated = set[str]()
    for index, value in enumerate(sequence(data["images"], "`images`")):
        with labels.reading(f"image {index}"):
            image = mapping(value, "it")
            labels.by_name[_name(image)]
            key = _id(image.get("id"))
            if key in images:
                repeated.add(key)
            images[key] = image
    names = dict[str, str]()
    for value in sequence(data.get("categories") or [], "`categories`"):
        named = mapping(value, "an entry of `categories`")
        names[_id(named.get("id"))] = str(named.get("name"))
    for index, value in enumerate(sequence(data["annotations"], "`annotations`")):
        with labels.reading(f"annotation {index}"):
            entry = mapping(value, "it")
            key, kind = _id(entry.get("image_id")), entry.get("category_id")
            if key not in images or key in repeated:
                several = "an id of several" if key in repeated else "which is not in `images`"
                raise Slip(f"is of image {key}, {several}")
            if names and kind is not None and _id(kind) not in names:
                raise Slip(f"is of category {kind}, which is not in `categories`")
            image, category = images[key], names.get(_id(kind))
            labels.by_name[_name(image)].append(_annotation(entry, image, category))


def _id(value: Any) -> str:
    """An id for comparison: some tools write 7, others "7" or 7.0."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _name(image: Mapping[str, Any]) -> str:
    name = next((image[key] for key in _NAMES if image.get(key)), None)
    if not isinstance(name, str):
        raise Slip("has no text in `file_name`")
    return name


def _annotation(
    entry: Mapping[str, Any], image: Mapping[str, Any], category: str | None
) -> Annotation:
    points = _keypoints(entry["keypoints"]) if entry.get("keypoints") else None
    box = _box(entry.get("bbox")) or _box_of_outline(entry.get("segmentation"))
    if box is None and points is None:
        raise Slip("has no box with an area in `bbox`, and no outline or keypoints")
    return Annotation(
        box=box,
        points=points,
        side=side_of(category),
        category=category,
        photograph=whole_size(image.get("width"), image.get("height")),
    )


def _box(value: Any) -> Box | None:
    if value is None or value == []:
        return None
    left, top, width, height = numbers(value, "`bbox`", 4)
    return None if width == 0 and height == 0 else (left, top, width, height)


def _box_of_outline(value: Any) -> Box | None:
    """The box around the polygons of `segmentation`."""
    if isinstance(value, dict):  # run-length encoded
        raise Slip("has a mask and no box; export boxes")
    outlines = [np.array(numbers(each, "`segmentation`")) for each in value or [] if each]
    if any(len(each) % 2 for each in outlines):
        raise Slip("`segmentation` has an odd number of values")
    return bounding_box(np.concatenate(outlines).reshape(-1, 2)) if outlines else None


def _keypoints(value: Any) -> np.ndarray:
    values = numbers(value, "`keypoints`")
    if len(values) % 3:
        raise Slip("`keypoints` has a number of values that is not a multiple of 3")
    triples = np.array(values).reshape(-1, 3)
    return np.where(triples[:, 2:] > 0, triples[:, :2] + 0.5, np.nan)
