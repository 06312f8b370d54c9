"""An ear annotated in a photograph, and the square that is cut around it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

Side = Literal["left", "right"]
Box = tuple[float, float, float, float]
Square = tuple[int, int, int, int]

# Share of a box that must lie in the photograph. Less means another photograph, or other units.
_INSIDE = 0.5

# Upright positions of points, by EXIF orientation, in a photograph stored with this width and height.
_TURNS: dict[int, Callable[[np.ndarray, int, int], np.ndarray]] = {
    5: lambda xy, width, height: xy[:, ::-1],
    6: lambda xy, width, height: np.stack([height - xy[:, 1], xy[:, 0]], axis=1),
    7: lambda xy, width, height: np.stack([height - xy[:, 1], width - xy[:, 0]], axis=1),
    8: lambda xy, width, height: np.stack([xy[:, 1], width - xy[:, 0]], axis=1),
}


class Misfit(Exception):
    """An annotation that does not fit its photograph; the message says why."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """One ear: its box (left, top, width, height) and its points `(K, 2)`, NaN for hidden ones.

    Coordinates are pixels from the upright photograph's corner (the first pixel's centre is at 0.5), or
    fractions of its sides (`relative`). `photograph` is its width and height when it was annotated.
    """

    box: Box | None = None
    points: np.ndarray | None = None
    side: Side | None = None
    person: str | None = None
    category: str | None = None
    relative: bool = False
    photograph: tuple[int, int] | None = None

    def in_pixels(
        self, size: tuple[int, int], orientation: Callable[[], int] = lambda: 1
    ) -> Annotation:
        """The same ear in pixels of the photograph, whose upright width and height are `size`.

        Some tools annotate photographs as they are stored. If width and height are swapped, the points
        are turned by the EXIF orientation that `orientation` returns. Raises `Misfit` if the
        photograph had another size.
        """
        if self.relative:
            return self._moved(lambda xy: xy * np.array(size))
        if self.photograph is None or self.photograph == size:
            return self
        width, height = self.photograph
        turn = _TURNS.get(orientation()) if (height, width) == size else None
        if turn is None:
            raise Misfit(f"has {size[0]}×{size[1]} pixels but was annotated at {width}×{height}")
        return self._moved(lambda xy: turn(xy, width, height))

    def _moved(self, move: Callable[[np.ndarray], np.ndarray]) -> Annotation:
        box = None
        if self.box is not None:
            left, top, width, height = self.box
            corners = np.array([(left, top), (left + width, top + height)], float)
            box = bounding_box(move(corners))
        points = None if self.points is None else move(self.points)
        return replace(self, box=box, points=points, relative=False, photograph=None)

    def square(self, size: tuple[int, int], margin: float) -> Square:
        """The square around the box, or around the points if there is no box.

        Its side is the box's longer side plus `margin` times that on each side; it may reach outside the
        photograph. Raises `Misfit` for a box without area, or outside the photograph.
        """
        box = self._bounds()
        if box is None:
            raise Misfit("has fewer than two landmarks")
        left, top, width, height = box
        where = f"{left:.0f}, {top:.0f}, {width:.0f}×{height:.0f}"
        if not (np.isfinite(box).all() and width > 0 and height > 0):
            raise Misfit(f"its box {where} has no area")
        if max(width, height) <= 1:
            raise Misfit("its box is smaller than a pixel; are its values fractions of the sides?")
        inside = _overlap(left, width, size[0]) * _overlap(top, height, size[1])
        if inside < _INSIDE * width * height:
            raise Misfit(f"its box {where} lies outside the {size[0]}×{size[1]} photograph")
        side = max(1, round(max(width, height) * (1 + 2 * margin)))
        return round(left + (width - side) / 2), round(top + (height - side) / 2), side, side

    def extent(self, short: float) -> float:
        """A lower bound for the box's longer side in a photograph whose shorter side is `short`."""
        box = self._bounds()
        return short if box is None else max(box[2:]) * (short if self.relative else 1)

    def _bounds(self) -> Box | None:
        """The box, or the one around the visible points; None if there are fewer than two."""
        if self.box is not None or self.points is None:
            return self.box
        visible = self.points[np.isfinite(self.points).all(axis=1)]
        return bounding_box(visible) if len(visible) > 1 else None

    def points_in(self, square: Square) -> np.ndarray | None:
        """The points as fractions of a square of the photograph, float32 `(K, 2)`."""
        if self.points is None:
            return None
        return ((self.points - np.array(square[:2])) / np.array(square[2:])).astype(np.float32)


def mostly_inside(points: np.ndarray) -> bool:
    """Whether more than half of the points `(K, 2)`, fractions of a square, lie in it."""
    return bool(((points >= 0) & (points <= 1)).all(axis=1).mean() > 0.5)


def bounding_box(points: np.ndarray) -> Box:
    """The smallest box around points `(K, 2)`."""
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return float(left), float(top), float(right - left), float(bottom - top)


def _overlap(start: float, length: float, end: float) -> float:
    return max(0.0, min(start + length, end) - max(start, 0.0))


def is_ear(category: str) -> bool:
    """Whether a category's name says ear: `ear`, `left_ear`, `LeftEar`, or no more than a side."""
    words = set(_words(category))
    return bool(words & {"ear", "ears", "leftear", "rightear"}) or (
        bool(words) and words <= {"left", "right"}
    )


def side_of(name: str | None) -> Side | None:
    """The side that a category or a column names; None if it names none, or both.

    A letter is a side at the end, or before `ear`; elsewhere it may be an article, as in "l'oreille".
    """
    listed = _words(name or "")
    letters = set(listed[-1:]) | {word for word, ear in pairwise(listed) if ear in ("ear", "ears")}
    words = {word for word in listed if len(word) > 1} | letters
    left, right = (bool(words & {side, side[0], f"{side}ear"}) for side in ("left", "right"))
    if left == right:
        return None
    return "left" if left else "right"


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)]
