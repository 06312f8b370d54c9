"""Landmarks of photographs: read, found by the photograph's name, carried into its crop.

A `.csv` has a header and a row for each photograph: its name, then x and y of each point as fractions of
the photograph's width and height. A folder has a `.pts` file (the format of iBUG's 300-W) for each
photograph, in pixels.
"""

from __future__ import annotations

import csv
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from earteach.errors import EarTeachError

# Points may lie a little outside of the photograph; pixels lie farther.
_FARTHEST = 2.0
_log = logging.getLogger(__name__)


class Landmarks:
    """The landmarks of the photographs of a folder, `(K, 2)` each; NaN where there are none."""

    def __init__(self, origin: Path, points: Mapping[str, np.ndarray], *, in_pixels: bool) -> None:
        self.origin = origin
        self._points = points
        self._in_pixels = in_pixels
        self.count = len(next(iter(points.values())))

    def in_box(
        self, key: str | None, size: tuple[int, int], box: tuple[int, int, int, int]
    ) -> np.ndarray:
        """The points of one photograph as fractions of the box, float32 `(K, 2)`.

        `key` is what `keys` gave, `size` the photograph's width and height, `box` left, top, width and
        height of the crop in the photograph's pixels.
        """
        if key is None:
            return np.full((self.count, 2), np.nan, np.float32)
        pixels = self._points[key] * (1 if self._in_pixels else np.array(size))
        return ((pixels - np.array(box[:2])) / np.array(box[2:])).astype(np.float32)

    def keys(self, names: Sequence[Path]) -> list[str | None]:
        """Under which key each photograph's points are: its path, or the end of it.

        None where a photograph has no points; logs how many have none. Raises `EarTeachError` where
        none has any, and where one key fits several photographs.
        """
        found = [self._key(name) for name in names]
        missing = found.count(None)
        if missing == len(names):
            raise EarTeachError(
                f"--landmarks {self.origin}: has no points for {names[0].as_posix()} nor for any other "
                f"photograph; it names {next(iter(self._points))}"
            )
        repeated = [key for key, uses in Counter(found).items() if key is not None and uses > 1]
        if repeated:
            raise EarTeachError(
                f"--landmarks {self.origin}: {repeated[0]} fits {found.count(repeated[0])} photographs; "
                f"write their folders too, as in {names[found.index(repeated[0])].as_posix()}"
            )
        if missing:
            first = names[found.index(None)].as_posix()
            _log.info(
                "%d of %d photographs have no landmarks in %s (the first: %s); their rows are NaN",
                missing, len(names), self.origin, first,
            )  # fmt: skip
        return found

    def _key(self, name: Path) -> str | None:
        ends = [Path(*name.parts[place:]) for place in range(len(name.parts))]
        keys = [key.as_posix() for end in ends for key in (end, end.with_suffix(""))]
        return next((key for key in keys if key in self._points), None)


def read_landmarks(path: Path) -> Landmarks:
    """The landmarks in a `.csv`, or in the `.pts` files below a folder.

    Raises `EarTeachError` for what is missing, damaged, or has different numbers of points.
    """
    if not path.exists():
        raise EarTeachError(
            f"--landmarks {path}: no such file; name a .csv, or a folder with a .pts file for each "
            "photograph"
        )
    if path.is_dir():
        return Landmarks(path, _read_folder(path), in_pixels=True)
    return Landmarks(path, _read_csv(path), in_pixels=False)


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    points: dict[str, np.ndarray] = {}
    width = 0
    for number, cells in read_rows(path, "--landmarks"):
        width = width or len(cells)
        if len(cells) != width or width < 3 or width % 2 == 0:
            raise _bad(
                path, number, f"has {len(cells)} columns; each row has a name, x0, y0, x1, y1 …"
            )
        if cells[0] in points:
            raise _bad(path, number, f"names {cells[0]} again; keep one of the two")
        points[cells[0]] = _numbers(path, number, cells[1:])
        if np.abs(points[cells[0]]).max() > _FARTHEST:
            raise _bad(
                path,
                number,
                "holds values over 2; divide pixels by the photograph's width and height",
            )
    return points


def read_rows(path: Path, option: str) -> list[tuple[int, list[str]]]:
    """The rows of a .csv without its header, each with its line's number.

    Raises `EarTeachError` for what is no such file, or has none.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, cells) for cells in reader if cells]
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "is not a text file"
        raise EarTeachError(f"{option} {path}: {reason}; name a .csv") from error
    if len(rows) < 2:
        raise EarTeachError(f"{option} {path}: holds no rows; it needs a header, and rows below it")
    return rows[1:]


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


def _read_folder(folder: Path) -> dict[str, np.ndarray]:
    paths = sorted(folder.rglob("*.pts"))
    if not paths:
        raise EarTeachError(
            f"--landmarks {folder}: holds no .pts files; name a .csv or their folder"
        )
    points = {
        path.relative_to(folder).with_suffix("").as_posix(): _read_pts(path) for path in paths
    }
    count = len(_first(points))
    for path, found in zip(paths, points.values(), strict=True):
        if len(found) != count:
            raise EarTeachError(
                f"--landmarks {path}: holds {len(found)} points, and {paths[0]} {count}; all must have "
                "as many"
            )
    return points


def _first(points: Mapping[str, np.ndarray]) -> np.ndarray:
    return next(iter(points.values()))


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
