"""Squares with ears in them, cut from photographs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from earteach.config import Fit
from earteach.data.annotations.annotation import Annotation, Misfit, Side, mostly_inside
from earteach.data.array_file import Row
from earteach.data.array_writer import Entry, Rejected
from earteach.data.manifest import ManifestRow
from earteach.data.photographs import Decoded, Photograph, Square, Unreadable
from earteach.errors import EarTeachError


@dataclass(frozen=True)
class Crop:
    """How ears are cut from photographs.

    Around the box, or the landmarks, with `margin` times its longer side on either hand; or, where none
    are known or `whole` says so, all of the photograph, made square as `fit` says. `side` mirrors ears
    of the other side; which side one is, its annotation says, or what `side_pattern` finds in the path.
    """

    size: int = 256
    gray: bool = False
    fit: Fit = "stretch"
    margin: float = 0.15
    whole: bool = False
    side: Side | None = None
    side_pattern: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 2:
            raise EarTeachError(f"--margin {self.margin}: must lie between 0 and 2")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image in the array."""
        return self.size, self.size, 1 if self.gray else 3


@dataclass(frozen=True)
class AnnotatedPhotograph:
    """A photograph, the ears in it, and the landmarks of one of them that were given beside."""

    path: Path
    name: Path  # below its source
    ears: tuple[Annotation, ...]
    landmarks: Annotation | None = None

    def stamp(self) -> tuple[object, ...]:
        """What tells whether the same ears would be cut from the same file."""
        with suppress(OSError):
            status = self.path.stat()
            return repr(self), status.st_size, status.st_mtime_ns
        return (repr(self),)

    def smallest(self, photograph: Photograph, margin: float) -> float:
        """At least how many pixels wide the smallest square is that will be cut."""
        short = min(photograph.width, photograph.height)
        return min(ear.extent(short) * (1 + 2 * margin) for ear in self.ears)


def cut_ears(photo: AnnotatedPhotograph, groups: Sequence[str], crop: Crop) -> Entry:
    """The rows that a photograph comes to, and what of it is left out."""
    try:
        file = Photograph(photo.path)
        decoded = file.decoded(photo.smallest(file, crop.margin), crop.size)
    except Unreadable as error:
        return Entry(rejected=(Rejected(photo.path, str(error)),))
    rows, rejected = [], []
    for number, (ear, group) in enumerate(zip(photo.ears, groups, strict=True), start=1):
        try:
            placed = ear.in_pixels(decoded.size, file.orientation)
            cut = _cut(decoded, placed, crop)
            points = _points(photo, placed, cut.box, decoded.size)
        except (Misfit, Unreadable) as error:
            which = f"ear {number}: " if len(photo.ears) > 1 else ""
            rejected.append(Rejected(photo.path, f"{which}{error}"))
            continue
        about = ManifestRow(str(photo.path), group, cut.box, False, decoded.size)
        row = Row(cut.image, about, points)
        rows.append(_mirrored(row) if crop.side and ear.side not in (None, crop.side) else row)
    return Entry(tuple(rows), tuple(rejected))


def _cut(decoded: Decoded, ear: Annotation, crop: Crop) -> Square:
    channels = crop.shape[2]
    if ear.box is None and ear.points is None:
        return decoded.square(crop.size, channels, crop.fit)
    return decoded.crop(ear.square(decoded.size, crop.margin), crop.size, channels)


def _points(
    photo: AnnotatedPhotograph,
    ear: Annotation,
    box: tuple[int, int, int, int],
    size: tuple[int, int],
) -> np.ndarray | None:
    """Landmarks as fractions of the crop: the ear's own, or those given beside, if most lie in it."""
    if ear.points is not None or photo.landmarks is None:
        return ear.points_in(box)
    points = photo.landmarks.in_pixels(size).points_in(box)
    assert points is not None
    return points if len(photo.ears) == 1 or mostly_inside(points) else None


def _mirrored(row: Row) -> Row:
    points = row.landmarks
    if points is not None:
        points = np.stack([1 - points[:, 0], points[:, 1]], axis=1)
    return Row(row.image[:, ::-1], replace(row.about, mirrored=True), points)
