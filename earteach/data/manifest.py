"""What `prepare` wrote beside an array: where each row came from, and its landmarks."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from earteach.errors import EarTeachError

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class ManifestRow:
    """One row of an array: its file, its person, and left, top, width and height of its crop."""

    source: str
    group: str
    box: Box
    mirrored: bool


def beside(array: Path, what: str) -> Path:
    """`manifest.csv` or `landmarks.npy` of an array: `train_manifest.csv` for `train_teacher.npy`."""
    return array.with_name(f"{array.stem.removesuffix('_teacher')}_{what}")


def read_manifest(array: Path, length: int) -> list[ManifestRow] | None:
    """The manifest beside an array of `length` rows, or None where there is none.

    Raises `EarTeachError` where it is damaged or of another array.
    """
    path = beside(array, "manifest.csv")
    if not path.exists():
        return None
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = [_row(entry) for entry in csv.DictReader(file)]
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise EarTeachError(
            f"{path}: is damaged ({error!r}); run `earteach prepare` again"
        ) from error
    if len(rows) != length:
        raise EarTeachError(
            f"{path}: has {len(rows)} rows and {array} {length}; they are of different runs of "
            "`earteach prepare`: run it again"
        )
    return rows


def _row(entry: dict[str, str]) -> ManifestRow:
    left, top, width, height = (int(entry[name]) for name in ("left", "top", "width", "height"))
    return ManifestRow(
        entry["source"], entry["group"], (left, top, width, height), entry["mirrored"] == "1"
    )
