"""What the readers of boxes share: the ears that they collect, and fields that are checked in words."""

from __future__ import annotations

import codecs
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from earteach.data.annotations.annotation import Annotation, Box, is_ear, side_of
from earteach.data.annotations.photograph_names import in_folder

MOST_BYTES = 2**24
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# A point that a hand put on an ear may lie a little outside of its box, as a fraction of the box.
_NEAR = 0.15


class Slip(Exception):
    """Something in an annotation file that cannot be read; the message says what, and why."""


@dataclass(frozen=True)
class NamedPoint:
    """A landmark, in pixels from the photograph's corner. `category` is that of its ear, if known."""

    name: str
    xy: tuple[float, float]
    group: str | None = None
    category: str | None = None


@dataclass
class Labels:
    """The ears of each photograph, by the name that the file gives to it, and what was left out.

    `path` is the file that is being read, and `folder` that of its photographs, perhaps. `own_names`
    are the names as the files give them, without these folders.
    """

    path: Path
    folder: str = ""
    by_name: defaultdict[str, list[Annotation]] = field(default_factory=lambda: defaultdict(list))
    slips: list[tuple[Path, str]] = field(default_factory=list)
    own_names: dict[str, str] = field(default_factory=dict)
    _points: dict[Annotation, tuple[Path, str, list[NamedPoint]]] = field(default_factory=dict)

    @contextmanager
    def reading(self, what: str = "") -> Iterator[None]:
        """A slip within costs no more than this annotation."""
        try:
            yield
        except Slip as slip:
            # Names from the file may hold line breaks.
            self.slips.append((self.path, " ".join(f"{what} {slip}".split())))

    def include(self, file: Labels) -> None:
        """Add what another file holds, whose photographs are taken to lie in its own folder."""
        for name, ears in file.by_name.items():
            full = in_folder(file.folder, name)
            self.by_name[full] += ears
            self.own_names[full] = name
        self._points |= file._points
        self.slips += file.slips

    def add_shapes(
        self,
        name: str,
        boxes: Mapping[Annotation, str | None],
        shapes: Iterable[Sequence[NamedPoint]],
        size: tuple[int, int] | None = None,
    ) -> None:
        """A photograph's boxes, each with its group, and its points, together where one shape has them.

        Points go to their box. Without one, those of a category are an ear, and so are single points
        of a group; but single points beside other ears may belong to none, and are left out.
        """
        shapes = [points for points in shapes if points]
        only_single = not boxes and all(points[0].category is None for points in shapes)
        without_box: dict[object, Annotation] = {}
        stray = []
        for points in shapes:
            first, ear = points[0], _box_of(points, boxes)
            if ear is None and (first.category or only_single):
                ear = without_box.setdefault(
                    object() if first.category else first.group,
                    Annotation(
                        side=side_of(first.category), category=first.category, photograph=size
                    ),
                )
            if ear is None:
                stray.append(first.name)
            else:
                self._points.setdefault(ear, (self.path, name, []))[2].extend(points)
        self.by_name[name] += [*boxes, *without_box.values()]
        if stray:
            with self.reading(name):
                raise Slip(
                    f"has points outside the boxes of ears ({', '.join(stray)[:100]}); if they are of "
                    "one, draw its box"
                )

    def with_points(
        self, by_name: Mapping[str, Sequence[Annotation]]
    ) -> dict[str, list[Annotation]]:
        """These ears with their points, in the order of the points' names; NaN for one that is missing.

        If all have one and the same name, they stay in the order of the file. An ear loses points whose
        order is unknown.
        """
        ears = [ear for its in by_name.values() for ear in its if ear in self._points]
        names = _names([self._points[ear][2] for ear in ears])
        complete: dict[Annotation, Annotation] = {}
        for ear in ears:
            self.path, name, points = self._points[ear]
            with self.reading(name):
                complete[ear] = replace(ear, points=_ordered(points, names))
        return {
            name: [
                complete.get(ear, ear)
                for ear in its
                if ear in complete or ear.box or ear not in self._points
            ]
            for name, its in by_name.items()
        }


def _box_of(
    points: Sequence[NamedPoint], boxes: Mapping[Annotation, str | None]
) -> Annotation | None:
    """The only box of the points' group, or the smallest on which most of them lie.

    A box of another category than theirs may be a face, so it must be one whose name says ear.
    """
    group, category = points[0].group, points[0].category
    same = [box for box, its in boxes.items() if group is not None and its == group]
    near = same or list(boxes)
    fitting = [
        box for box in near if box.category in (None, category) or is_ear(box.category or "")
    ]
    if not fitting and category is None:
        fitting = near
    if len(same) == 1:
        return next(iter(fitting), None)
    around = [box for box in fitting if _lie_on(points, box.box)]
    return min(around, key=lambda ear: ear.extent(0), default=None)


def _lie_on(points: Sequence[NamedPoint], box: Box | None) -> bool:
    """Whether most of the points do."""
    return box is not None and sum(_lies_on(point.xy, box) for point in points) * 2 > len(points)


def _lies_on(xy: tuple[float, float], box: Box) -> bool:
    return all(
        start - _NEAR * length <= at <= start + (1 + _NEAR) * length
        for at, start, length in zip(xy, box[:2], box[2:], strict=True)
    )


def _names(shares: Sequence[Sequence[NamedPoint]]) -> list[str]:
    """The landmarks' names in order; if all have one name, as often as most ears have it."""
    names = {point.name for points in shares for point in points}
    if len(names) == 1:
        ((usual, _),) = Counter(map(len, shares)).most_common(1)
        return [*names] * usual
    return sorted(names, key=_natural)


def _ordered(points: Sequence[NamedPoint], names: Sequence[str]) -> np.ndarray:
    """The points in the order of `names`; raises `Slip` for those whose order is unknown."""
    if len({*names}) == 1:
        if len(points) != len(names):
            raise Slip(
                f"has an ear with {len(points)} points of one name, where most have {len(names)}; "
                "give each landmark its own name"
            )
        return np.array([point.xy for point in points], float)
    where = {point.name: point.xy for point in points}
    if len(where) < len(points):
        twice = Counter(point.name for point in points).most_common(1)[0][0]
        raise Slip(
            f"has several points named {twice} for one ear; draw a box around each ear, or group its "
            "points"
        )
    return np.array([where.get(name, (np.nan, np.nan)) for name in names], float)


def _natural(name: str) -> list[tuple[int, int | str]]:
    """For sorting `p2` before `p10`."""
    return [
        (0, int(part)) if part.isdecimal() else (1, part)
        for part in re.split(r"(\d+)", name)
        if part
    ]


def small_file(path: Path) -> bytes:
    """What a file of labels holds; raises `Slip`."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise Slip("is too large for a file of labels")
        return path.read_bytes()
    except OSError as error:
        raise Slip(f"cannot be read ({error.strerror})") from error


def text_of(content: bytes) -> str:
    """Text in UTF-8, or in UTF-16 as Windows writes it; raises `Slip`."""
    encoding = "utf-16" if content[:2] in UTF_16 else "utf-8-sig"
    try:
        return content.decode(encoding)
    except ValueError as error:
        raise Slip("is not text in UTF-8; save it so") from error


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    """The value as an object with named fields; raises `Slip`."""
    if not isinstance(value, dict):
        raise Slip(f"{what} is not an object with named fields")
    return value


def sequence(value: Any, what: str) -> Sequence[Any]:
    """The value as a list; raises `Slip`."""
    if not isinstance(value, list):
        raise Slip(f"{what} is not a list")
    return value


def text(entry: Mapping[str, Any], name: str) -> str:
    """A field that holds text; raises `Slip`."""
    value = entry.get(name)
    if not isinstance(value, str) or not value:
        raise Slip(f"has no text in `{name}`")
    return value


def number(entry: Mapping[str, Any], name: str) -> float:
    """A field that holds a number; raises `Slip`."""
    if name not in entry:
        raise Slip(f"has no `{name}`")
    return numbers([entry[name]], f"`{name}`")[0]


def rotation(entry: Mapping[str, Any]) -> float:
    """The field `rotation`, from degrees to radians, 0 without one; raises `Slip`."""
    degrees = number(entry, "rotation") if entry.get("rotation") else 0.0
    if not math.isfinite(degrees):
        raise Slip(f"`rotation` is {degrees}")
    return math.radians(degrees)


def numbers(values: Any, what: str, count: int | None = None) -> list[float]:
    """A list of numbers, of `count` if given; raises `Slip`."""
    try:
        found = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError) as error:
        raise Slip(f"{what} holds something that is not a number".strip()) from error
    if count is not None and len(found) != count:
        raise Slip(f"{what} has {len(found)} numbers, not {count}")
    return found


def pairs(values: Any, what: str) -> np.ndarray:
    """A list of points, `[[x, y], …]`, as `(K, 2)`; raises `Slip`."""
    points = [numbers(point, what, 2) for point in sequence(values, what)]
    if not points:
        raise Slip(f"{what} holds no points")
    return np.array(points)


def whole_size(width: Any, height: Any) -> tuple[int, int] | None:
    """The photograph's size, if the file says it: some tools write zeros."""
    try:
        size = int(float(width)), int(float(height))
    except (TypeError, ValueError, OverflowError):
        return None
    return size if min(size) > 0 else None
