"""Pascal VOC: an `.xml` for each photograph, with `object`s that have a `bndbox`."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from earteach.data.annotations.annotation import Annotation, Box, side_of
from earteach.errors import EarTeachError

_MOST_BYTES = 2**24


def read_voc(folder: Path) -> dict[str, list[Annotation]]:
    """The boxes of each photograph, which has the name of its `.xml`, folder by folder.

    The format counts pixels from 1 and includes the last one. Raises `EarTeachError`.
    """
    return {_name(path.relative_to(folder)): _read(path) for path in sorted(folder.rglob("*.xml"))}


def _name(below: Path) -> str:
    """Of `Annotations/anna/1.xml`, `anna/1`: its photograph lies in `JPEGImages/anna`."""
    parts = below.with_suffix("").parts
    return "/".join(parts[1:] if parts[0] == "Annotations" and len(parts) > 1 else parts)


def _read(path: Path) -> list[Annotation]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("too large")
        text = path.read_bytes()
        # Entities can be written to fill the memory; the format has none.
        if b"<!" in text.replace(b"<!--", b""):
            raise ValueError("it declares entities or a document type")
        root = ElementTree.fromstring(text)
        size = root.find("size")
        photograph = None if size is None else (_number(size, "width"), _number(size, "height"))
        if photograph is not None and min(photograph) <= 0:  # some tools write zeros
            photograph = None
        return [_annotation(entry, photograph) for entry in root.iter("object")]
    except (OSError, ValueError, LookupError, RecursionError, ElementTree.ParseError) as error:
        raise EarTeachError(
            f"--boxes {path}: is not as Pascal VOC has it ({error}); write it again"
        ) from error


def _annotation(entry: Element, photograph: tuple[int, int] | None) -> Annotation:
    name = entry.findtext("name")
    return Annotation(
        box=_box(entry),
        side=None if name is None else side_of(name),
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
