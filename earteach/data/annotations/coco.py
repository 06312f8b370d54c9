"""COCO's JSON: images, annotations with `bbox` and perhaps `keypoints`, categories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from earteach.data.annotations.annotation import Annotation, side_of
from earteach.errors import EarTeachError

_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)


def read_coco(path: Path) -> dict[str, list[Annotation]]:
    """The annotations of each image, without crowds; images without any have an empty list.

    Keypoints become landmarks. They count pixels, so half a pixel is added (as in detectron2); those
    with visibility 0 are NaN. Raises `EarTeachError`.
    """
    data = _json(path)
    where = "its `images`"
    try:
        images = {entry["id"]: entry for entry in data["images"]}
        where = "its `categories`"
        names = {entry["id"]: str(entry["name"]) for entry in data.get("categories", ())}
        by_name: dict[str, list[Annotation]] = {_name(image): [] for image in images.values()}
        for number, entry in enumerate(data["annotations"]):
            where = f"annotation {number}"
            if not entry.get("iscrowd"):
                image = images[entry["image_id"]]
                category = names.get(entry.get("category_id"))
                by_name[_name(image)].append(_annotation(entry, image, category))
    except _DAMAGE as error:
        raise EarTeachError(
            f"--boxes {path}: {where} is not as COCO has it ({type(error).__name__}: {error}); export "
            "it again"
        ) from error
    return by_name


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise EarTeachError(
            f"--boxes {path}: is not a JSON file ({error}); export it again"
        ) from error
    if not isinstance(data, dict) or not {"images", "annotations"} <= data.keys():
        raise EarTeachError(
            f"--boxes {path}: is not COCO's JSON, which has `images` and `annotations`; export it as "
            "that"
        )
    return data


def _name(image: dict[str, Any]) -> str:
    name = image["file_name"]
    if not isinstance(name, str):
        raise TypeError("`file_name` is no text")
    return name


def _annotation(entry: dict[str, Any], image: dict[str, Any], category: str | None) -> Annotation:
    points = _keypoints(entry["keypoints"]) if entry.get("keypoints") else None
    width, height = int(image.get("width") or 0), int(image.get("height") or 0)
    box = None
    if points is None or "bbox" in entry:
        left, top, box_width, box_height = map(float, entry["bbox"])
        box = left, top, box_width, box_height
    return Annotation(
        box=box,
        points=points,
        side=side_of(category),
        category=category,
        photograph=(width, height) if width > 0 and height > 0 else None,
    )


def _keypoints(values: Sequence[float]) -> np.ndarray:
    triples = np.array(values, float).reshape(-1, 3)
    return np.where(triples[:, 2:] > 0, triples[:, :2] + 0.5, np.nan)
