"""A `.csv` of boxes: a header, and a row for each ear."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from earteach.data.annotations.annotation import Annotation, Box, side_of
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

    The columns are found by their names: the photograph's, then x, y, w, h (or left, top, width,
    height, or corners: xmin, ymin, xmax, ymax), and perhaps the side, the category and the person.
    Raises `EarTeachError`.
    """
    rows = read_rows(path, "--boxes")
    header = [" ".join(cell.lower().split()) for cell in rows[0][1]]
    columns = _Columns(path, header)
    found: defaultdict[str, list[Annotation]] = defaultdict(list)
    for line, cells in rows[1:]:
        if len(cells) != len(header):
            raise EarTeachError(
                f"--boxes {path}: line {line} has {len(cells)} columns, and the header {len(header)}; "
                "write them as the header says"
            )
        entry = dict(zip(header, (cell.strip() for cell in cells), strict=True))
        found[entry[columns.photograph]].append(columns.annotation(line, entry))
    return dict(found)


def read_rows(path: Path, option: str) -> list[tuple[int, list[str]]]:
    """The rows of a .csv, each with its line's number; the first is the header.

    Raises `EarTeachError` for what is no such file, or has no rows below the header.
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


class _Columns:
    """Which column is what."""

    def __init__(self, path: Path, header: Sequence[str]) -> None:
        self._path = path
        photograph = _first(_PHOTOGRAPH, header)
        box = next((names for names in (*_CORNERS, *_SIDES) if set(names) <= set(header)), None)
        if photograph is None or box is None:
            raise EarTeachError(
                f"--boxes {path}: has the columns {', '.join(header)[:200]}; it needs one that names "
                "the photograph (image, file, path …), and x, y, w, h or xmin, ymin, xmax, ymax"
            )
        self.photograph, self._box = photograph, box
        self._side, self._category = _first(_SIDE, header), _first(_CATEGORY, header)
        self._person = _first(_PERSON, header)
        self._size = box in _CORNERS and {"width", "height"} <= set(header)

    def annotation(self, line: int, entry: Mapping[str, str]) -> Annotation:
        category = entry[self._category] if self._category else None
        side = side_of(entry[self._side]) if self._side else None
        return Annotation(
            box=self._numbers(line, entry),
            side=side or (side_of(category) if category else None),
            category=category,
            person=entry[self._person] or None if self._person else None,
            photograph=self._photograph_size(line, entry),
        )

    def _numbers(self, line: int, entry: Mapping[str, str]) -> Box:
        try:
            a, b, c, d = (float(entry[name]) for name in self._box)
        except ValueError as error:
            raise self._no_number(line, error) from error
        return (a, b, c - a, d - b) if self._box in _CORNERS else (a, b, c, d)

    def _photograph_size(self, line: int, entry: Mapping[str, str]) -> tuple[int, int] | None:
        if not self._size:
            return None
        try:
            return int(float(entry["width"])), int(float(entry["height"]))
        except (ValueError, OverflowError) as error:
            raise self._no_number(line, error) from error

    def _no_number(self, line: int, error: Exception) -> EarTeachError:
        return EarTeachError(
            f"--boxes {self._path}: line {line} holds what is no number ({error}); correct it"
        )


def _first(names: Sequence[str], header: Sequence[str]) -> str | None:
    return next((name for name in names if name in header), None)
