"""Folders with one label file per photograph: Pascal VOC's `.xml` and YOLO's `.txt`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import yaml

from earteach.data.annotations.annotation import Annotation, Box, bounding_box, side_of
from earteach.errors import EarTeachError

_MOST_BYTES = 2**24
_DAMAGE = (OSError, ValueError, LookupError, ArithmeticError, RecursionError)
# Files among YOLO's labels that name classes or list photographs.
_NAMES = ("classes.txt", "obj.names", "_darknet.labels")
_LISTS = frozenset({*_NAMES, "train.txt", "val.txt", "valid.txt", "test.txt"})


def read_voc(folder: Path) -> dict[str, list[Annotation]]:
    """The boxes of each photograph, by the path of its `.xml` without suffix.

    The format counts pixels from 1 and includes the last one. Raises `EarTeachError`.
    """
    return _read(folder, folder.rglob("*.xml"), _parse_voc, "Pascal VOC", "Annotations")


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

    return _read(folder, labels, parse, "YOLO", "labels")


def _read(
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
                f"--boxes {path}: is not as {standard} has it ({error}); write it again"
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
            f"a line has {len(values) + 1} columns; it has class x y width height, or an outline"
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
            f"--boxes {path}: does not name the classes as YOLO has it ({reason}); it needs `names`"
        ) from error
