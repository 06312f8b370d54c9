"""Landmarks of photographs, one ear in each.

A `.csv` has a header and a row for each photograph: its name, then x and y of each point as fractions of
the photograph's width and height. A folder has a `.pts` file (the format of iBUG's 300-W) for each
photograph, in pixels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from earteach.data.annotations.annotation import Annotation
from earteach.data.annotations.box_formats import read_rows
from earteach.data.annotations.photograph_names import Annotations
from earteach.errors import EarTeachError

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
    rows = read_rows(path, "--landmarks")[1:]
    width = len(rows[0][1])
    for line, cells in rows:
        try:
            if len(cells) != width or width < 3 or width % 2 == 0:
                raise ValueError(f"has {len(cells)} columns; each row has a name, x0, y0, x1, y1 …")
            if cells[0] in by_name:
                raise ValueError(f"names {cells[0]} again; keep one of the two")
            by_name[cells[0]] = Annotation(points=_points(cells[1:]), relative=True)
        except ValueError as error:
            raise EarTeachError(f"--landmarks {path}: line {line} {error}") from error
    return by_name


def _points(cells: Sequence[str]) -> np.ndarray:
    try:
        values = np.array([float(cell) for cell in cells])
    except ValueError as error:
        raise ValueError(f"holds a value that is not a number ({error})") from error
    if not np.isfinite(values).all():
        raise ValueError("holds NaN or infinity; leave out photographs without landmarks")
    if np.abs(values).max() > _FARTHEST:
        raise ValueError("holds values over 2; divide pixels by the photograph's width and height")
    return values.reshape(-1, 2)


def _read_folder(folder: Path) -> dict[str, Annotation]:
    paths = sorted(folder.rglob("*.pts"))
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
