"""The manifest that `prepare` writes beside an array: where each row came from."""

from __future__ import annotations

import csv
import errno
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earteach.errors import EarTeachError

Box = tuple[int, int, int, int]

_COLUMNS = ("row", "source", "group", "left", "top", "width", "height", "mirrored")
_SIZE_COLUMNS = ("photograph_width", "photograph_height")
MANIFEST_COLUMNS = (*_COLUMNS, *_SIZE_COLUMNS)


@dataclass(frozen=True)
class ManifestRow:
    """One row of an array: its file, its person, and left, top, width and height of its crop.

    `photograph` is the photograph's width and height; None in older manifests.
    """

    source: str
    group: str
    box: Box
    mirrored: bool = False
    photograph: tuple[int, int] | None = None


def beside(array: Path, what: str) -> Path:
    """A file beside an array: `train_manifest.csv` beside `train_teacher.npy`, for `manifest.csv`."""
    return array.with_name(f"{array.stem.removesuffix('_teacher')}_{what}")


def read_points(path: Path, length: int) -> np.ndarray:
    """The landmarks in a `.npy`: a float `(length, K, 2)`, as fractions of the images, NaN if unknown.

    Raises `EarTeachError` for a file that holds anything else.
    """
    try:
        with path.open("rb") as file:
            points: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
            if file.read(1):
                raise ValueError("bytes after the array")
    except Exception as error:  # numpy evaluates the header: a damaged one can raise anything
        problem = getattr(error, "strerror", None) or "is not a .npy file"
        raise EarTeachError(
            f"{path}: {problem}; name landmarks as `earteach prepare --landmarks` writes them"
        ) from error
    count = points.shape[1] if points.ndim == 3 else 0
    if count < 2 or points.shape != (length, count, 2) or points.dtype.kind != "f":
        raise EarTeachError(
            f"{path}: holds {points.dtype} of shape {points.shape}; the array's landmarks are floats of "
            f"shape ({length}, K, 2)"
        )
    return points


def is_manifest(path: Path) -> bool:
    """Whether the file has a manifest's header."""
    try:
        with path.open("rb") as file:
            start = file.readline(4096).decode(errors="replace").strip().split(",")
    except OSError:
        return False
    return tuple(start) in (MANIFEST_COLUMNS, _COLUMNS)


def write_manifest(path: Path, rows: Iterable[ManifestRow]) -> None:
    """Write a header, and a line for each row of the array, in order."""
    # A file name may hold bytes that are not UTF-8; they are kept as they are.
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(MANIFEST_COLUMNS)
        for number, row in enumerate(rows):
            size = row.photograph or ("", "")
            writer.writerow([number, row.source, row.group, *row.box, int(row.mirrored), *size])


def read_manifest(array: Path, length: int) -> list[ManifestRow] | None:
    """The manifest beside an array of `length` rows; None if there is none.

    Raises `EarTeachError` if it is damaged or belongs to another array.
    """
    path = beside(array, "manifest.csv")
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = [_row(entry) for entry in csv.DictReader(file)]
    except FileNotFoundError:
        return None
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            return None  # so there can be none
        raise EarTeachError(
            f"{path}: is damaged ({error!r}); run `earteach prepare` again"
        ) from error
    if len(rows) != length:
        raise EarTeachError(
            f"{path}: has {len(rows)} rows but {array} has {length}; they come from different runs "
            "of `earteach prepare`: run it again"
        )
    return rows


def _row(entry: dict[str, str]) -> ManifestRow:
    left, top, width, height = (int(entry[name]) for name in ("left", "top", "width", "height"))
    sides = [int(entry[name]) for name in _SIZE_COLUMNS if entry.get(name)]
    box, size = (left, top, width, height), (sides[0], sides[1]) if len(sides) == 2 else None
    return ManifestRow(entry["source"], entry["group"], box, entry["mirrored"] == "1", size)
