"""The formats of boxes: COCO's JSON, a `.csv` with a row for each ear, Pascal VOC and YOLO.

To add a format, write its reader and name it in `FORMATS`, at the end of this file. The suffix decides
which reader is used, so two formats with the same suffix need one reader for both.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import yaml

from earteach.data.annotations.annotation import Annotation, Box, bounding_box, side_of
from earteach.errors import EarTeachError

_DAMAGE = (OSError, ValueError, LookupError, ArithmeticError, RecursionError)
_PHOTOGRAPH = (
    "image", "file", "filename", "file_name", "path", "image_path", "photograph", "name", "source",
)  # fmt: skip
# Corners come first: beside them `width` and `height` are the photograph's.
_CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"))
_SIDES = (("x", "y", "w", "h"), ("x", "y", "width", "height"), ("left", "top", "width", "height"))
_SIDE = ("side", "ear")
_CATEGORY = ("class", "category", "label")
_PERSON = ("person", "group", "subject", "identity")
_MOST_BYTES = 2**24
# Files among YOLO's labels that name classes or list photographs.
_NAMES = ("classes.txt", "obj.names", "_darknet.labels")
_LISTS = frozenset({*_NAMES, "train.txt", "val.txt", "valid.txt", "test.txt"})


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
                by_name[_name(image)].append(_coco_annotation(entry, image, category))
    except (*_DAMAGE, TypeError, AttributeError) as error:
        raise EarTeachError(
            f"--boxes {path}: {where} is not valid COCO ({type(error).__name__}: {error}); export "
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
            f"--boxes {path}: is not COCO JSON, which has `images` and `annotations`; export it in "
            "that format"
        )
    return data


def _name(image: dict[str, Any]) -> str:
    name = image["file_name"]
    if not isinstance(name, str):
        raise TypeError("`file_name` is not text")
    return name


def _coco_annotation(
    entry: dict[str, Any], image: dict[str, Any], category: str | None
) -> Annotation:
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


def read_table(path: Path) -> dict[str, list[Annotation]]:
    """The boxes of each photograph, in pixels from its upper left corner.

    Columns are recognized by name: the photograph's, then x, y, w, h (or left, top, width, height, or
    corners: xmin, ymin, xmax, ymax), and optionally the side, the category and the person. Raises
    `EarTeachError`.
    """
    rows = read_rows(path, "--boxes")
    header = [" ".join(cell.lower().split()) for cell in rows[0][1]]
    photograph = _first(_PHOTOGRAPH, header)
    box = next((names for names in (*_CORNERS, *_SIDES) if set(names) <= set(header)), None)
    if photograph is None or box is None:
        raise EarTeachError(
            f"--boxes {path}: has the columns {', '.join(header)[:200]}; it needs one that names "
            "the photograph (image, file, path …), and x, y, w, h or xmin, ymin, xmax, ymax"
        )
    by_name: defaultdict[str, list[Annotation]] = defaultdict(list)
    for line, cells in rows[1:]:
        if len(cells) != len(header):
            raise EarTeachError(
                f"--boxes {path}: line {line} has {len(cells)} columns but the header has "
                f"{len(header)}; make them match"
            )
        entry = dict(zip(header, (cell.strip() for cell in cells), strict=True))
        try:
            by_name[entry[photograph]].append(_table_annotation(entry, box))
        except (ValueError, OverflowError) as error:
            raise EarTeachError(
                f"--boxes {path}: line {line} holds a value that is not a number ({error}); correct it"
            ) from error
    return dict(by_name)


def read_rows(path: Path, option: str) -> list[tuple[int, list[str]]]:
    """The rows of a .csv, each with its line number; the first is the header.

    Raises `EarTeachError` for a file that is not a .csv, or has no rows below the header.
    """
    try:
        # A file name may hold bytes that are no text.
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, cells) for cells in reader if cells]
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "is not a text file"
        raise EarTeachError(f"{option} {path}: {reason}; name a .csv") from error
    if len(rows) < 2:
        raise EarTeachError(f"{option} {path}: holds no rows; it needs a header, and rows below it")
    return rows


def _table_annotation(entry: dict[str, str], box: tuple[str, ...]) -> Annotation:
    """The ear in a row, with its box in the columns `box`; raises `ValueError` for other text."""

    def optional(names: Sequence[str]) -> str | None:
        column = _first(names, list(entry))
        return entry[column] if column else None

    category, photograph = optional(_CATEGORY), None
    a, b, c, d = (float(entry[name]) for name in box)
    if box in _CORNERS:
        c, d = c - a, d - b
        if {"width", "height"} <= entry.keys():
            photograph = int(float(entry["width"])), int(float(entry["height"]))
    return Annotation(
        box=(a, b, c, d),
        side=side_of(optional(_SIDE)) or side_of(category),
        category=category,
        person=optional(_PERSON) or None,
        photograph=photograph,
    )


def _first(names: Sequence[str], header: Sequence[str]) -> str | None:
    return next((name for name in names if name in header), None)


def read_voc(folder: Path) -> dict[str, list[Annotation]]:
    """The boxes of each photograph, by the path of its `.xml` without suffix.

    The format counts pixels from 1 and includes the last one. Raises `EarTeachError`.
    """
    return _read_label_files(folder, folder.rglob("*.xml"), _parse_voc, "Pascal VOC", "Annotations")


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
        return [_yolo_annotation(line.split(), names) for line in lines if line.strip()]

    return _read_label_files(folder, labels, parse, "YOLO", "labels")


def _read_label_files(
    folder: Path,
    paths: Iterable[Path],
    parse: Callable[[bytes], list[Annotation]],
    standard: str,
    label_folder: str,
) -> dict[str, list[Annotation]]:
    """The annotations in each file, by its path in `folder` without suffix.

    A leading `label_folder` is dropped from the names: the photograph of `labels/train/1.txt` is
    `images/train/1.jpg`, which ends in `train/1`.
    """
    by_name = {}
    for path in sorted(paths):
        parts = path.relative_to(folder).with_suffix("").parts
        if parts[0] == label_folder and len(parts) > 1:
            parts = parts[1:]
        try:
            by_name["/".join(parts)] = parse(_small_file(path))
        except _DAMAGE as error:
            raise EarTeachError(
                f"--boxes {path}: is not valid {standard} ({error}); export it again"
            ) from error
    return by_name


def _small_file(path: Path) -> bytes:
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError("too large")
    return path.read_bytes()


def _parse_voc(content: bytes) -> list[Annotation]:
    # Entities can be written to fill the memory; the format has none.
    if b"<!" in content.replace(b"<!--", b""):
        raise ValueError("it declares entities or a document type")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from error
    size = root.find("size")
    photograph = None
    if size is not None:
        width, height = (int(float(size.findtext(name, ""))) for name in ("width", "height"))
        if min(width, height) > 0:  # some tools write zeros
            photograph = width, height
    return [_voc_annotation(entry, photograph) for entry in root.iter("object")]


def _voc_annotation(entry: Element, photograph: tuple[int, int] | None) -> Annotation:
    box, name = entry.find("bndbox"), entry.findtext("name")
    if box is None:
        raise ValueError("an object has no bndbox")
    left, top, right, bottom = (
        float(box.findtext(edge, "")) for edge in ("xmin", "ymin", "xmax", "ymax")
    )
    return Annotation(
        box=(left - 1, top - 1, right - left + 1, bottom - top + 1),
        side=side_of(name),
        category=None if name is None else name.strip(),
        photograph=photograph,
    )


def _yolo_annotation(cells: list[str], names: dict[int, str]) -> Annotation:
    number = int(float(cells[0]))
    category = names.get(number, str(number))
    box = _yolo_box([float(cell) for cell in cells[1:]])
    return Annotation(box=box, side=side_of(category), category=category, relative=True)


def _yolo_box(values: list[float]) -> Box:
    if len(values) in (4, 5):
        x, y, width, height = values[:4]
        return x - width / 2, y - height / 2, width, height
    if len(values) < 6 or len(values) % 2:
        raise ValueError(
            f"a line has {len(values) + 1} columns; it needs class x y width height, or an outline"
        )
    return bounding_box(np.array(values).reshape(-1, 2))


def _class_names(folder: Path) -> dict[int, str]:
    candidates = (
        parent / name
        for parent in (folder, *folder.absolute().parents[:2])
        for name in ("data.yaml", *_NAMES)
    )
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        return {}
    try:
        text = _small_file(path).decode("utf-8-sig")
        if path.suffix != ".yaml":
            return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
        names = yaml.safe_load(text)["names"]
        entries = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(number): str(name) for number, name in entries}
    except (*_DAMAGE, TypeError, yaml.YAMLError) as error:
        reason = type(error).__name__
        raise EarTeachError(
            f"--boxes {path}: does not list class names as YOLO does ({reason}); it needs `names`"
        ) from error


@dataclass(frozen=True)
class BoxFormat:
    """A format, the suffix of its files, whether one file or a folder of them holds it, its reader."""

    name: str
    suffix: str
    is_folder: bool
    read: Callable[[Path], dict[str, list[Annotation]]]

    def __str__(self) -> str:
        return f"{self.suffix} ({self.name})"


FORMATS = (
    BoxFormat("COCO", ".json", False, read_coco),
    BoxFormat("a table", ".csv", False, read_table),
    BoxFormat("Pascal VOC", ".xml", True, read_voc),
    BoxFormat("YOLO", ".txt", True, read_yolo),
)
