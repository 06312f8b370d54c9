"""What the readers of boxes share: the ears that they collect, and fields that are checked in words."""

from __future__ import annotations

import codecs
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from earteach.data.annotations.annotation import Annotation

MOST_BYTES = 2**24
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# A point that a hand put on an ear may lie a little outside of its box, as a fraction of the box.
_NEAR = 0.15


class Slip(Exception):
    """Something in an annotation file that cannot be read; the message says what, and why."""


@dataclass(frozen=True)
class NamedPoint:
    """A landmark that stands for itself in the file, in pixels from the photograph's corner."""

    name: str
    xy: tuple[float, float]
    group: str | None = None


@dataclass
class Labels:
    """The ears of each photograph, by the name that the file gives to it, and what was left out.

    `path` is the file that is being read, and `folder` its place in the folder of labels.
    """

    path: Path
    folder: str = ""
    by_name: defaultdict[str, list[Annotation]] = field(default_factory=lambda: defaultdict(list))
    slips: list[tuple[Path, str]] = field(default_factory=list)
    _points: list[tuple[str, Annotation, list[NamedPoint]]] = field(default_factory=list)

    @contextmanager
    def reading(self, what: str = "") -> Iterator[None]:
        """A slip within costs no more than this annotation."""
        try:
            yield
        except Slip as slip:
            # Names from the file may hold line breaks.
            self.slips.append((self.path, " ".join(f"{what} {slip}".split())))

    def add_shapes(
        self,
        name: str,
        ears: Sequence[Annotation],
        groups: Sequence[str | None],
        points: Sequence[NamedPoint],
        size: tuple[int, int] | None = None,
    ) -> None:
        """Ears and single points of a photograph of this size; each point goes to the ear it lies on."""
        self.by_name[name].extend(ears)
        if points:
            without_box = Annotation(photograph=size)
            for ear, its in _divided(ears, groups, points):
                self._points.append((name, ear or without_box, its))

    def with_points(self) -> dict[str, list[Annotation]]:
        """The ears of each photograph, with their single points.

        Points are ordered by name, and one that an ear lacks is NaN. If an ear has several of one name,
        they stay in the order of the file.
        """
        ears = self._points
        distinct = all(len({point.name for point in its}) == len(its) for *_, its in ears)
        names = sorted({point.name for *_, its in ears for point in its}, key=_natural)
        by_name = {name: list(its) for name, its in self.by_name.items()}
        for name, ear, its in ears:
            if distinct:
                where = {point.name: point.xy for point in its}
                xy = np.array([where.get(name, (np.nan, np.nan)) for name in names], float)
            else:
                xy = np.array([point.xy for point in its], float)
            with_points = replace(ear, points=xy)
            by_name[name] = [each for each in by_name[name] if each is not ear] + [with_points]
        return by_name


def _divided(
    ears: Sequence[Annotation], groups: Sequence[str | None], points: Sequence[NamedPoint]
) -> Iterator[tuple[Annotation | None, list[NamedPoint]]]:
    """The points of each ear; None for those of an ear without a box."""
    shares: dict[int | str | None, list[NamedPoint]] = {}
    for point in points:
        shares.setdefault(_ear_of(point, ears, groups), []).append(point)
    for key, its in shares.items():
        yield (ears[key] if isinstance(key, int) else None), its


def _ear_of(
    point: NamedPoint, ears: Sequence[Annotation], groups: Sequence[str | None]
) -> int | str | None:
    """The number of the ear of the same group, or of the smallest around the point; else its group."""
    if point.group is not None and point.group in groups:
        return groups.index(point.group)
    around = {
        number: ear.box[2] * ear.box[3]
        for number, ear in enumerate(ears)
        if ear.box is not None and _lies_on(point.xy, ear.box)
    }
    return min(around, key=around.__getitem__) if around else point.group


def _lies_on(xy: tuple[float, float], box: tuple[float, float, float, float]) -> bool:
    return all(
        start - _NEAR * length <= at <= start + (1 + _NEAR) * length
        for at, start, length in zip(xy, box[:2], box[2:], strict=True)
    )


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
