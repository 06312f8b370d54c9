"""Label Studio's JSON and JSON-MIN (https://labelstud.io/guide/export)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
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
)

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
            name = _photograph(mapping(task.get("data", task), "`data`"))
            ears, points = list[Annotation](), list[NamedPoint]()
            for number_of, result in enumerate(_results_of(task)):
                with labels.reading(f"task {index}, result {number_of}"):
                    _read_result(mapping(result, "it"), ears, points)
            labels.add_shapes(name, ears, [None] * len(ears), points)


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


def _photograph(data: Mapping[str, Any]) -> str:
    """The name of the photograph, from the address that it has in Label Studio."""
    address = data.get("image") or next(
        (value for value in data.values() if isinstance(value, str) and "/" in value), None
    )
    if not isinstance(address, str):
        raise Slip("names no photograph in `data`")
    local = address.partition("?d=")[2]  # /data/local-files/?d=folder/1.jpg
    if "/upload/" in address:
        return address.rpartition("/")[2]
    return unquote(local) if local else address


def _read_result(
    result: Mapping[str, Any], ears: list[Annotation], points: list[NamedPoint]
) -> None:
    value = mapping(result.get("value", result), "`value`")
    kind = next((kind for kind in _KINDS if _is_of(kind, result, value)), None)
    if kind is None:
        if "points" not in value and "width" not in value and "rle" not in value:
            return  # a choice or a text about the photograph
        raise Slip(f"is a {result.get('type', 'shape')}, which is not read; export it as COCO")
    size = tuple(number(result, f"original_{side}") for side in ("width", "height"))
    said = next(_said(value), None)
    if kind == "keypoint":
        x, y = number(value, "x") * size[0] / 100, number(value, "y") * size[1] / 100
        points.append(NamedPoint(said or "", (x, y), result.get("parentID")))
        return
    box = _box(kind, value, size)
    whole = (round(size[0]), round(size[1])) if min(size) >= 1 else None
    ears.append(Annotation(box=box, side=side_of(said), category=said, photograph=whole))


def _is_of(kind: str, result: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    return str(result.get("type", "")).startswith(kind) or f"{kind}labels" in value


def _said(value: Mapping[str, Any]) -> Iterator[str]:
    for name, entry in value.items():
        if name.endswith("labels") and isinstance(entry, list):
            yield from (str(each) for each in entry)


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
    angle = math.radians(number(value, "rotation")) if value.get("rotation") else 0.0
    cos, sin = math.cos(angle), math.sin(angle)
    return bounding_box(corners @ np.array([(cos, sin), (-sin, cos)]) + np.array([x, y]) * scale)
