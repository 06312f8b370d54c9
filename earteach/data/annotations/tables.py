"""A `.csv` of boxes: a header, and a row for each ear."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from earteach.data.annotations.annotation import Annotation, side_of
from earteach.errors import EarTeachError

_PHOTOGRAPH = (
    "image", "file", "filename", "file_name", "path", "image_path", "photograph", "name", "source",
)  # fmt: skip
# Corners come first: beside them `width` and `height` are the photograph's.
_CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"))
_SIDES = (("x", "y", "w", "h"), ("x", "y", "width", "height"), ("left", "top", "width", "height"))
_SIDE = ("side", "ear")
_CATEGORY = ("class", "category", "label")
_PERSON = ("person", "group", "subject", "identity")


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
                f"--boxes {path}: line {line} has {len(cells)} columns, and the header {len(header)}; "
                "write them as the header says"
            )
        entry = dict(zip(header, (cell.strip() for cell in cells), strict=True))
        try:
            by_name[entry[photograph]].append(_annotation(entry, box))
        except (ValueError, OverflowError) as error:
            raise EarTeachError(
                f"--boxes {path}: line {line} holds what is no number ({error}); correct it"
            ) from error
    return dict(by_name)


def read_rows(path: Path, option: str) -> list[tuple[int, list[str]]]:
    """The rows of a .csv, each with its line number; the first is the header.

    Raises `EarTeachError` for a file that is no .csv, or has no rows below the header.
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


def _annotation(entry: dict[str, str], box: tuple[str, ...]) -> Annotation:
    """The ear in a row, whose columns `box` hold its box; raises `ValueError` for what is no number."""

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
