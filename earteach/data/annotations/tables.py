"""Boxes in a `.csv` with a row for each ear; also that of VGG Image Annotator."""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from earteach.data.annotations.annotation import Annotation, side_of
from earteach.data.annotations.labels import UTF_16, Labels, Slip, number, whole_size
from earteach.data.annotations.via import add_regions
from earteach.data.photographs import SUFFIXES as IMAGE_SUFFIXES
from earteach.errors import EarTeachError

PHOTOGRAPH_COLUMNS = (
    "image", "file", "filename", "file_name", "path", "image_path", "photograph", "imageid", "name",
    "source",
)  # fmt: skip
# Corners come first: beside them `width` and `height` are the photograph's.
_CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom")
)  # fmt: skip
_SIDES = (
    ("x", "y", "w", "h"), ("left", "top", "w", "h"),
    ("x", "y", "width", "height"), ("left", "top", "width", "height"),
)  # fmt: skip
# Beside the columns of a box, such a one belongs to another box, or is a landmark.
_COORDINATE = re.compile(
    r"[xy][ _.-]?(\d+|min|max|tl|br|end)?|(min|max)[ _.-]?[xy]|left|top|right|bottom"
    r"|b?box[ _.-]?(w|h|width|height)"
)
_SIDE = ("side", "ear")
_CATEGORY = ("class", "category", "label")
PERSON_COLUMNS = ("person", "subject", "identity", "group")
_DELIMITERS = (",", ";", "\t")
_DECIMAL_COMMA = re.compile(r"^(\s*[-+]?\d*),(\d+\s*)$")
_log = logging.getLogger(__name__)


def read_table(path: Path, labels: Labels) -> None:
    """The boxes of each photograph, in pixels from its upper left corner.

    Columns are recognized by name: the photograph's, then x, y, w, h (or left, top, width, height, or
    corners: xmin, ymin, xmax, ymax), and optionally the side, the category and the person. Raises
    `EarTeachError`.
    """
    (_, first), *rows = read_rows(path, "--boxes", "image,x,y,w,h")
    header = [" ".join(cell.lower().removeprefix("#").split()) for cell in first]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise EarTeachError(f"--boxes {path}: has two columns named {twice[0]}; rename one of them")
    if "region_shape_attributes" in header:
        _read_via(header, rows, labels)
        return
    photograph, box = _photograph_column(header, rows[0][1]), _box_columns(path, header)
    if photograph is None or box is None:
        raise EarTeachError(
            f"--boxes {path}: has the columns {', '.join(header)[:200]}; it needs one that names "
            "the photograph (image, file, path …), and x, y, w, h or xmin, ymin, xmax, ymax"
        )
    people = [name for name in PERSON_COLUMNS if name in header]
    if len(people) > 1:
        _log.info("the people of %s are in its column %s, not in %s", path, people[0], people[1])
    for line, cells in rows:
        with labels.reading(f"line {line}"):
            entry = _entry(header, cells)
            labels.by_name[entry[photograph]].append(_annotation(entry, box))


def _photograph_column(header: Sequence[str], cells: Sequence[str]) -> str | None:
    """The column that names photographs: if the first row has the name of an image, that one."""
    entry = dict(zip(header, cells, strict=False))
    columns = [name for name in PHOTOGRAPH_COLUMNS if name in header]
    images = [name for name in columns
              if PurePath(entry.get(name, "").strip()).suffix.lower() in IMAGE_SUFFIXES]  # fmt: skip
    return next(iter(images + columns), None)


def _box_columns(path: Path, header: Sequence[str]) -> tuple[str, ...] | None:
    """The columns of the box; raises `EarTeachError` if others may be those of the box."""
    box = next((names for names in (*_CORNERS, *_SIDES) if set(names) <= set(header)), None)
    others = [
        name for name in header if name not in (box or header) and _COORDINATE.fullmatch(name)
    ]
    if others:
        raise EarTeachError(
            f"--boxes {path}: has the columns {', '.join(others)[:200]} beside {', '.join(box or ())}; "
            "keep one box, as x, y, w, h or xmin, ymin, xmax, ymax; points belong in --landmarks"
        )
    return box


def _entry(header: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    if len(cells) != len(header):
        raise Slip(f"has {len(cells)} columns but the header has {len(header)}")
    return dict(zip(header, (cell.strip() for cell in cells), strict=True))


def _annotation(entry: Mapping[str, str], box: tuple[str, ...]) -> Annotation:
    """The ear in a row, with its box in the columns `box`."""

    def optional(names: Sequence[str]) -> str | None:
        return next((entry[name] for name in names if name in entry), None)

    category, photograph = optional(_CATEGORY), None
    a, b, c, d = (number(entry, name) for name in box)
    if box in _CORNERS:
        c, d = c - a, d - b
        photograph = whole_size(entry.get("width"), entry.get("height"))
    return Annotation(
        box=(a, b, c, d),
        side=side_of(optional(_SIDE)) or side_of(category),
        category=category,
        person=optional(PERSON_COLUMNS) or None,
        photograph=photograph,
    )


def _read_via(header: Sequence[str], rows: Sequence[tuple[int, list[str]]], labels: Labels) -> None:
    """A row for each region, whose shape is JSON."""
    by_name: dict[str, list[object]] = {}
    for line, cells in rows:
        with labels.reading(f"line {line}"):
            entry = _entry(header, cells)
            regions = by_name.setdefault(entry.get("filename", ""), [])
            try:
                shape = json.loads(entry["region_shape_attributes"] or "{}")
                said = json.loads(entry.get("region_attributes") or "{}")
            except (ValueError, RecursionError) as error:
                raise Slip("holds a region that is not JSON") from error
            if shape:  # a photograph without regions has an empty one
                regions.append({"shape_attributes": shape, "region_attributes": said})
    for name, regions in by_name.items():
        add_regions(name, regions, labels)


def read_rows(path: Path, option: str, example: str) -> list[tuple[int, list[str]]]:
    """The rows of a .csv, each with its line number; the first is the header, such as `example`.

    Columns are separated by commas, semicolons or tabs; beside the latter two, numbers may have decimal
    commas. Raises `EarTeachError` for a file that is not a .csv, or has no header or no rows below it.
    """
    try:
        with path.open("rb") as start:
            encoding = "utf-16" if start.read(2) in UTF_16 else "utf-8-sig"
        # A file name may hold bytes that are no text.
        with path.open(newline="", encoding=encoding, errors="surrogateescape") as file:
            header = file.readline()
            file.seek(0)
            delimiter = max(_DELIMITERS, key=header.count)
            reader = csv.reader(file, delimiter=delimiter)
            rows = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "is not a text file"
        raise EarTeachError(f"{option} {path}: {reason}; name a .csv") from error
    if rows and rows[0][1][0].startswith("sep="):  # the delimiter, for Excel
        del rows[0]
    if len(rows) < 2:
        raise EarTeachError(f"{option} {path}: holds no rows; it needs a header, and rows below it")
    if sum(map(_is_number, rows[0][1])) > 1:
        raise EarTeachError(
            f"{option} {path}: its first row holds numbers; put a header above it, as in {example}"
        )
    if delimiter == ",":
        return rows
    return [(line, [_DECIMAL_COMMA.sub(r"\1.\2", cell) for cell in cells]) for line, cells in rows]


def _is_number(cell: str) -> bool:
    try:
        return bool(float(cell) == float(cell))
    except ValueError:
        return False
