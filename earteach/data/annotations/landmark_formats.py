"""Landmarks of photographs, one ear in each.

A `.csv` has a header and a row for each photograph: its name, then x and y of each point, as fractions
of the photograph's width and height or, if any value is above 2, in pixels. A folder has a `.pts` file
(the format of iBUG's 300-W) for each photograph, in pixels.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from earteach.data.annotations.annotation import Annotation
from earteach.data.annotations.photograph_names import Annotations
from earteach.data.annotations.tables import read_rows
from earteach.errors import EarTeachError
from earteach.files.atomic_write import write_atomically
from earteach.files.overwrite_guard import carries
from earteach.files.search import find_files

# Points may lie a little outside of the photograph; values farther out are pixels.
_FARTHEST = 2.0


def read_landmarks(path: Path) -> Annotations:
    """The landmarks in a `.csv`, or in the `.pts` files below a folder.

    Raises `EarTeachError` for a path that is missing or damaged, or has different numbers of points.
    """
    if not path.exists():
        raise EarTeachError(
            f"--landmarks {path}: no such file; name a .csv, or a folder with a .pts file for each "
            "photograph"
        )
    by_name = _read_folder(path) if path.is_dir() else _read_csv(path)
    return Annotations(f"--landmarks {path}", {name: [ear] for name, ear in by_name.items()})


def _read_csv(path: Path) -> dict[str, Annotation]:
    by_name: dict[str, Annotation] = {}
    (_, header), *rows = read_rows(path, "--landmarks", "name,x0,y0,x1,y1")
    width = len(header)
    for x, y in zip(header[1::2], header[2::2], strict=False):
        if not _is_point(x.strip().lower(), y.strip().lower()):
            raise EarTeachError(
                f"--landmarks {path}: has the columns {x}, {y} where x and y of a point belong; the "
                "header is name, x0, y0, x1, y1 … and no more; boxes belong in --boxes"
            )
    for line, cells in rows:
        try:
            if len(cells) != width or width < 3 or width % 2 == 0:
                raise ValueError(f"has {len(cells)} columns; each row has a name, x0, y0, x1, y1 …")
            if cells[0] in by_name:
                raise ValueError(f"names {cells[0]} again; keep one of the two")
            by_name[cells[0]] = Annotation(points=_points(cells[1:]))
        except ValueError as error:
            raise EarTeachError(f"--landmarks {path}: line {line} {error}") from error
    farthest = max(np.abs(ear.points).max() for ear in by_name.values() if ear.points is not None)
    return {
        name: replace(ear, relative=bool(farthest <= _FARTHEST)) for name, ear in by_name.items()
    }


def _is_point(x: str, y: str) -> bool:
    """Whether two names of columns differ in the axis alone, as `x0` and `y0`."""
    return any(axis == "x" and f"{x[:at]}y{x[at + 1 :]}" == y for at, axis in enumerate(x))


def _points(cells: Sequence[str]) -> np.ndarray:
    try:
        values = np.array([float(cell) for cell in cells])
    except ValueError as error:
        raise ValueError(f"holds a value that is not a number ({error})") from error
    if not np.isfinite(values).all():
        raise ValueError("holds NaN or infinity; leave out photographs without landmarks")
    return values.reshape(-1, 2)


def _read_folder(folder: Path) -> dict[str, Annotation]:
    paths = find_files(folder, {".pts"}).files
    if not paths:
        raise EarTeachError(
            f"--landmarks {folder}: holds no .pts files; name a .csv or their folder"
        )
    by_name: dict[str, Annotation] = {}
    count: int | None = None
    for path in paths:
        points = _read_pts(path)
        count = len(points) if count is None else count
        if len(points) != count:
            raise EarTeachError(
                f"--landmarks {path}: holds {len(points)} points, but {paths[0]} holds {count}; "
                "all need the same number"
            )
        by_name[path.relative_to(folder).with_suffix("").as_posix()] = Annotation(points=points)
    return by_name


def _read_pts(path: Path) -> np.ndarray:
    """Points `(K, 2)` between braces, one pair per line, counted from 1 as the format does."""
    try:
        text = path.read_text(encoding="utf-8")
        inside = re.search(r"\{(.*)\}", text, re.DOTALL)
        pairs = [line.split() for line in inside[1].strip().splitlines()] if inside else []
        points = np.array(pairs, float)
        if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
            raise ValueError("no pairs of numbers")
    except (OSError, ValueError) as error:
        raise EarTeachError(f"--landmarks {path}: is not a .pts file; write it again") from error
    # The first pixel's centre is 1 there, and half a pixel from the edge here.
    return points - 0.5


def write_csv(path: Path, rows: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write a row for each ear: the photograph's name, and points `(K, 2)` in pixels."""

    def write(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            for number, (name, points) in enumerate(rows):
                if number == 0:
                    axes = (f"{axis}{point}" for point in range(len(points)) for axis in "xy")
                    writer.writerow(["file", *axes])
                writer.writerow([name, *(f"{value:.2f}" for value in points.flatten())])

    write_atomically(path, write)


def write_pts(path: Path, points: np.ndarray) -> None:
    """Write points `(K, 2)` in pixels in iBUG's format, where the first pixel's centre is 1."""
    lines = "\n".join(f"{x:.3f} {y:.3f}" for x, y in points + 0.5)
    text = f"version: 1\nn_points: {len(points)}\n{{\n{lines}\n}}\n"
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def is_landmark_file(path: Path) -> bool:
    """Whether the file begins as those of `write_csv` and `write_pts` do."""
    return carries(path, "file,x0,y0,x1,y1") or carries(path, "version: 1\nn_points: ")
