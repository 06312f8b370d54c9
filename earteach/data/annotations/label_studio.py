"""Label Studio's JSON and JSON-MIN (https://labelstud.io/guide/export)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np

from earteach.data.annotations.annotation import Annotation, Box, bounding_box, side_of
from earteach.data.annotations.labels import (
    Labels,
    NamedPoint,
    Slip,
    mapping,
    number,
    pairs,
    rotation,
    whole_size,
)
from earteach.data.photographs import SUFFIXES as IMAGE_SUFFIXES

_KINDS = ("rectangle", "polygon", "keypoint", "ellipse")


def is_label_studio(data: Any) -> bool:
    return (
        isinstance(data, list)
        and bool(data)
        and all(isinstance(task, dict) for task in data)
        and ("data" in data[0] or any(map(_results_of, data)))
    )


def read_label_studio(data: Sequence[Any], labels: Labels) -> None:
    """The first finished annotation of each task. Its units are percent of the photograph."""
    for index, value in enumerate(data):
        with labels.reading(f"task {index}"):
            task = mapping(value, "it")
            if task.get("predictions") and not task.get("annotations"):
                raise Slip("holds only predictions; submit them as annotations in Label Studio")
            names = _photographs(mapping(task.get("data", task), "`data`"))
            boxes: dict[str, dict[Annotation, str | None]] = {name: {} for name in names.values()}
            points: dict[str, list[list[NamedPoint]]] = {name: [] for name in boxes}
            for region, results in _regions(_results_of(task)).items():
                with labels.reading(f"task {index}, result {region}"):
                    shape = _shape([mapping(result, "it") for result in results])
                    if isinstance(shape, Annotation):
                        boxes[_name_of(results[0], names)][shape] = region
                    elif shape is not None:
                        points[_name_of(results[0], names)].append([shape])
            for name in boxes:
                labels.add_shapes(name, boxes[name], points[name])


def _results_of(task: Mapping[str, Any]) -> list[Any]:
    finished = task.get("annotations", task.get("completions"))
    if isinstance(finished, list):
        for entry in finished:
            if isinstance(entry, dict) and not entry.get("was_cancelled"):
                results = entry.get("result")
                return results if isinstance(results, list) else []
        return []
    # JSON-MIN: the results are fields of the task.
    return [
        result
        for results in task.values()
        if isinstance(results, list)
        for result in results
        if isinstance(result, dict) and "original_width" in result
    ]


def _regions(results: Sequence[Any]) -> dict[str, list[Any]]:
    """The results about each region: its shape, and its labels and choices if they are apart."""
    regions: defaultdict[str, list[Any]] = defaultdict(list)
    for number_of, result in enumerate(results):
        known = result.get("id") if isinstance(result, dict) else None
        regions[str(known or number_of)].append(result)
    return regions


def _photographs(data: Mapping[str, Any]) -> dict[str, str]:
    """The name of the photograph in each field, from the address that it has in Label Studio."""
    addresses = {
        field: _name(value)
        for field, value in data.items()
        if isinstance(value, str) and value and ("/" in value or field == "image")
    }
    images = {
        field: name
        for field, name in addresses.items()
        if PurePosixPath(name.partition("?")[0]).suffix.lower() in IMAGE_SUFFIXES
    }
    if not addresses:
        raise Slip("names no photograph in `data`")
    first = "image" if "image" in addresses else next(iter(addresses))
    return images or {first: addresses[first]}


def _name(address: str) -> str:
    local = address.partition("?d=")[2]  # /data/local-files/?d=folder/1.jpg
    if "/upload/" in address:
        return unquote(address.rpartition("/")[2])
    return unquote(local) if local else address


def _name_of(result: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The photograph that a result is about; raises `Slip` if it may be on any of several."""
    field = result.get("to_name")
    if isinstance(field, str) and field in names:
        return names[field]
    if len({*names.values()}) > 1:
        raise Slip(
            f"may be on any of {', '.join(names.values())[:100]}; export JSON, and name the fields of "
            "`data` like `to_name` of their results"
        )
    return next(iter(names.values()))


def _shape(results: Sequence[Mapping[str, Any]]) -> Annotation | NamedPoint | None:
    """The box or the point that the results of a region describe; None if it has neither."""
    value: dict[str, Any] = {}
    for result in results:
        value |= mapping(result.get("value", result), "`value`")
    kind = next((kind for kind in _KINDS for each in results if _is_of(kind, each, value)), None)
    if kind is None:
        if "points" not in value and "width" not in value and "rle" not in value:
            return None  # a choice or a text about the photograph
        raise Slip(f"is a {results[0].get('type', 'shape')}, which is not read; export it as COCO")
    size = tuple(number(results[0], f"original_{side}") for side in ("width", "height"))
    if not all(map(math.isfinite, size)):
        raise Slip(f"`original_width` and `original_height` are {size[0]} and {size[1]}")
    names = _said(value)
    said = next(iter(names), None)
    if kind == "keypoint":
        x, y = number(value, "x") * size[0] / 100, number(value, "y") * size[1] / 100
        parent = results[0].get("parentID")
        return NamedPoint(said or "", (x, y), None if parent is None else str(parent))
    box = _box(kind, value, size)
    whole = whole_size(*size)
    side = next((side for name in names if (side := side_of(name))), None)
    return Annotation(box=box, side=side, category=said, photograph=whole)


def _is_of(kind: str, result: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    return str(result.get("type", "")).startswith(kind) or f"{kind}labels" in value


def _said(value: Mapping[str, Any]) -> list[str]:
    """The labels of a region, then its choices."""
    lists = [value[name] for name in value if name.endswith("labels")] + [value.get("choices")]
    return [str(each) for entry in lists if isinstance(entry, list) for each in entry]


def _box(kind: str, value: Mapping[str, Any], size: Sequence[float]) -> Box:
    """In pixels; a rectangle is turned around its upper left corner, an ellipse around its centre."""
    scale = np.array(size) / 100
    if kind == "polygon":
        return bounding_box(pairs(value.get("points"), "`points`") * scale)
    x, y = number(value, "x"), number(value, "y")
    if kind == "rectangle":
        wide, high = number(value, "width"), number(value, "height")
        corners = np.array([(0, 0), (wide, 0), (0, high), (wide, high)]) * scale
    else:
        across, down = number(value, "radiusX"), number(value, "radiusY")
        turn = np.linspace(0, 2 * math.pi, 64, endpoint=False)
        corners = np.stack([across * np.cos(turn), down * np.sin(turn)], axis=1) * scale
    angle = rotation(value)
    cos, sin = math.cos(angle), math.sin(angle)
    return bounding_box(corners @ np.array([(cos, sin), (-sin, cos)]) + np.array([x, y]) * scale)
