"""Pascal VOC: an `.xml` for each photograph, with `object`s that have a `bndbox`."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from earteach.data.annotations.annotation import Annotation, Box, side_of
from earteach.data.annotations.label_files import read_label_files


def read_voc(folder: Path) -> dict[str, list[Annotation]]:
    """The boxes of each photograph, by the path of its `.xml` without suffix.

    The format counts pixels from 1 and includes the last one. Raises `EarTeachError`.
    """
    return read_label_files(
        folder, folder.rglob("*.xml"), _annotations, standard="Pascal VOC",
        label_folder="Annotations",
    )  # fmt: skip


def _annotations(content: bytes) -> list[Annotation]:
    # Entities can be written to fill the memory; the format has none.
    if b"<!" in content.replace(b"<!--", b""):
        raise ValueError("it declares entities or a document type")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from error
    size = root.find("size")
    photograph = None if size is None else (_number(size, "width"), _number(size, "height"))
    if photograph is not None and min(photograph) <= 0:  # some tools write zeros
        photograph = None
    return [_annotation(entry, photograph) for entry in root.iter("object")]


def _annotation(entry: Element, photograph: tuple[int, int] | None) -> Annotation:
    name = entry.findtext("name")
    return Annotation(
        box=_box(entry),
        side=side_of(name),
        category=None if name is None else name.strip(),
        photograph=photograph,
    )


def _box(entry: Element) -> Box:
    box = entry.find("bndbox")
    if box is None:
        raise ValueError("an object has no bndbox")
    left, top, right, bottom = (
        float(box.findtext(name, "")) for name in ("xmin", "ymin", "xmax", "ymax")
    )
    return left - 1, top - 1, right - left + 1, bottom - top + 1


def _number(element: Element, name: str) -> int:
    return int(float(element.findtext(name, "")))
