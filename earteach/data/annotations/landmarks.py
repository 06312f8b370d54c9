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
from earteach.data.annotations.photograph_names import Annotations
from earteach.data.annotations.tables import read_rows
from earteach.errors import EarTeachError

# Points may lie a little outside of the photograph; pixels lie farther.
_FARTHEST = 2.0


def read_landmarks(path: Path) -> Annotations:
    """The landmarks in a `.csv`, or in the `.pts` files below a folder.

    Raises `EarTeachError` for what is missing, damaged, or has different numbers of points.
    """
    if not path.exists():
        raise EarTeachError(
            f"--landmarks {path}: no such file; name a .csv, or a folder with a .pts file for each "
            "photograph"
        )
    found = _read_folder(path) if path.is_dir() else _read_csv(path)
    return Annotations(f"--landmarks {path}", {name: [ear] for name, ear in found.items()})


def _read_csv(path: Path) -> dict[str, Annotation]:
    found: dict[str, Annotation] = {}
    width = 0
    for number, cells in read_rows(path, "--landmarks")[1:]:
        width = width or len(cells)
        if len(cells) != width or width < 3 or width % 2 == 0:
            raise _bad(
                path, number, f"has {len(cells)} columns; each row has a name, x0, y0, x1, y1 …"
            )
        if cells[0] in found:
            raise _bad(path, number, f"names {cells[0]} again; keep one of the two")
        points = _numbers(path, number, cells[1:])
        if np.abs(points).max() > _FARTHEST:
            raise _bad(
                path,
                number,
                "holds values over 2; divide pixels by the photograph's width and height",
            )
        found[cells[0]] = Annotation(points=points, relative=True)
    return found


def _numbers(path: Path, line: int, cells: Sequence[str]) -> np.ndarray:
    try:
        values = np.array([float(cell) for cell in cells])
    except ValueError as error:
        raise _bad(path, line, f"holds what is no number ({error})") from error
    if not np.isfinite(values).all():
        raise _bad(path, line, "holds NaN or infinity; leave out photographs without landmarks")
    return values.reshape(-1, 2)


def _bad(path: Path, line: int, what: str) -> EarTeachError:
    return EarTeachError(f"--landmarks {path}: line {line} {what}")


def _read_folder(folder: Path) -> dict[str, Annotation]:
    paths = sorted(folder.rglob("*.pts"))
    if not paths:
        raise EarTeachError(
            f"--landmarks {folder}: holds no .pts files; name a .csv or their folder"
        )
    points = [_read_pts(path) for path in paths]
    for path, found in zip(paths, points, strict=True):
        if len(found) != len(points[0]):
            raise EarTeachError(
                f"--landmarks {path}: holds {len(found)} points, and {paths[0]} {len(points[0])}; all "
                "must have as many"
            )
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    return {name: Annotation(points=found) for name, found in zip(names, points, strict=True)}


def _read_pts(path: Path) -> np.ndarray:
    """Points `(K, 2)` between braces, a pair a line, counted from 1 as the format does."""
    try:
        text = path.read_text(encoding="utf-8")
        inside = re.search(r"\{(.*)\}", text, re.DOTALL)
        pairs = [line.split() for line in inside[1].strip().splitlines()] if inside else []
        points = np.array(pairs, float)
    except (OSError, ValueError) as error:
        raise EarTeachError(f"--landmarks {path}: is not a .pts file; write it again") from error
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise EarTeachError(f"--landmarks {path}: is not a .pts file; write it again")
    # The first pixel's centre is 1 there, and half a pixel from the edge here.
    return points - 0.5
