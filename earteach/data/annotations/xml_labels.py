"""XML: Pascal VOC, one file for each photograph, and CVAT for images 1.1, one file for all."""

from __future__ import annotations

import math
import re
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from earteach.data.annotations.annotation import Annotation, Box, bounding_box, side_of
from earteach.data.annotations.labels import (
    Labels,
    NamedPoint,
    Slip,
    number,
    numbers,
    pairs,
    rotation,
    small_file,
    whole_size,
)


def read_xml(path: Path, name: str, labels: Labels) -> None:
    """The ears in a file. A VOC file and its photograph share `name`, without suffix."""
    with labels.reading():
        root = _root(small_file(path))
        if root.tag == "annotation":
            _read_voc(root, name, labels)
        elif root.tag == "annotations" and root.find("image") is not None:
            _read_cvat(root, labels)
        elif root.tag == "annotations" and root.find("track") is not None:
            raise Slip("is CVAT for video; export it as CVAT for images 1.1, or COCO 1.0")
        else:
            raise Slip(
                f"is XML of the kind `{root.tag}`; export it as Pascal VOC, CVAT for images 1.1 or "
                "COCO 1.0"
            )


def _root(content: bytes) -> Element:
    # Entities can be written to fill the memory; neither format has any. UTF-16 has zeros between.
    if re.search(rb"<!(?!--|\[CDATA\[)", content.replace(b"\0", b"")):
        raise Slip("is not valid: it declares entities or a document type")
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise Slip(f"is not valid XML ({error})") from error


def _read_voc(root: Element, name: str, labels: Labels) -> None:
    """It counts pixels from 1 and includes the last one (http://host.robots.ox.ac.uk/pascal/VOC)."""
    # The photograph may have another name by now; where it has not, its suffix tells it from others.
    said = PurePosixPath((root.findtext("filename") or "").replace("\\", "/"))
    if said.stem == PurePosixPath(name).name:
        name += said.suffix
    size = root.find("size")
    photograph = None
    if size is not None:
        photograph = whole_size(size.findtext("width"), size.findtext("height"))
    labels.by_name[name]
    for index, entry in enumerate(root.iter("object")):
        with labels.reading(f"object {index}"):
            box, category = entry.find("bndbox"), entry.findtext("name")
            if box is None:
                raise Slip("has no `bndbox`")
            fields = {edge.tag: edge.text for edge in box}
            left, top, right, bottom = (
                number(fields, edge) for edge in ("xmin", "ymin", "xmax", "ymax")
            )
            labels.by_name[name].append(
                Annotation(
                    box=(left - 1, top - 1, right - left + 1, bottom - top + 1),
                    side=side_of(category),
                    category=None if category is None else category.strip(),
                    photograph=photograph,
                )
            )


def _read_cvat(root: Element, labels: Labels) -> None:
    """https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat"""
    for image in root.iter("image"):
        name = image.get("name")
        if not name:
            labels.slips.append((labels.path, "an image has no name"))
            continue
        size = whole_size(image.get("width"), image.get("height"))
        boxes: dict[Annotation, str | None] = {}
        points: list[list[NamedPoint]] = []
        for index, shape in enumerate(image):
            with labels.reading(f"{name}, shape {index}"):
                if shape.tag in ("points", "skeleton"):
                    points.append(_cvat_points(shape))
                elif shape.tag != "tag":  # of the whole photograph
                    box, said = _cvat_box(shape), shape.get("label")
                    ear = Annotation(box=box, side=side_of(said), category=said, photograph=size)
                    boxes[ear] = shape.get("group_id")
        labels.add_shapes(name, boxes, points, size)


def _cvat_box(shape: Element) -> Box:
    """The box around a shape."""
    fields = dict(shape.items())
    if shape.tag == "box":
        left, top, right, bottom = (number(fields, edge) for edge in ("xtl", "ytl", "xbr", "ybr"))
        return _turned((left, top, right - left, bottom - top), fields)
    if shape.tag in ("polygon", "polyline"):
        return bounding_box(_cvat_pairs(shape))
    if shape.tag == "ellipse":
        x, y, across, down = (number(fields, name) for name in ("cx", "cy", "rx", "ry"))
        return _turned((x - across, y - down, 2 * across, 2 * down), fields)
    if shape.tag == "mask":
        left, top, width, height = (
            number(fields, edge) for edge in ("left", "top", "width", "height")
        )
        return left, top, width, height
    raise Slip(f"is a {shape.tag}, which is not read; draw a box")


def _turned(box: Box, fields: dict[str, str]) -> Box:
    """The box around a box that is turned around its centre by `rotation` degrees."""
    angle = rotation(fields)
    if not angle:
        return box
    left, top, width, height = box
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    wide, high = width * cos + height * sin, width * sin + height * cos
    return left + (width - wide) / 2, top + (height - high) / 2, wide, high


def _cvat_points(shape: Element) -> list[NamedPoint]:
    """A skeleton's points have names of their own; a shape of one point is named by its label."""
    label, group = shape.get("label"), shape.get("group_id")
    if shape.tag == "skeleton":
        return [
            NamedPoint(point.get("label", ""), _xy(_cvat_pairs(point)[0]), group, label)
            for point in shape.findall("points")
            if point.get("outside") != "1"
        ]
    xy = [_xy(pair) for pair in _cvat_pairs(shape)]
    if len(xy) == 1:
        return [NamedPoint(label or "", xy[0], group)]
    return [NamedPoint("unnamed", each, group, label) for each in xy]


def _xy(point: np.ndarray) -> tuple[float, float]:
    return float(point[0]), float(point[1])


def _cvat_pairs(shape: Element) -> np.ndarray:
    pieces = [piece for piece in (shape.get("points") or "").split(";") if piece]
    return pairs([numbers(piece.split(","), "`points`", 2) for piece in pieces], "`points`")
