"""Squares with ears in them, cut from photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from earteach.config import Fit
from earteach.data.annotations.annotation import Annotation, Misfit, Side, mostly_inside
from earteach.data.array_writer import CutEars, Rejected, Row
from earteach.data.manifest import ManifestRow
from earteach.data.photographs import Decoded, Photograph, Square, Unreadable
from earteach.errors import EarTeachError


@dataclass(frozen=True)
class Crop:
    """How ears are cut from photographs.

    A crop is the box, or the box around the landmarks, extended on each side by `margin` times its
    longer side. Without either, or with `whole`, it is the whole photograph, made square by `fit`.
    `side` mirrors ears of the other side; an ear's side comes from its annotation, or from what
    `side_pattern` matches in the photograph's path.
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
    """A photograph, the ears in it, and separately given landmarks of one of them."""

    path: Path
    name: Path  # relative to the source folder
    ears: tuple[Annotation, ...]
    landmarks: Annotation | None = None

    def smallest_crop(self, photograph: Photograph, margin: float) -> float:
        """A lower bound for the side of the smallest crop, in pixels."""
        short = min(photograph.width, photograph.height)
        return min(ear.extent(short) * (1 + 2 * margin) for ear in self.ears)


def cut_ears(photo: AnnotatedPhotograph, groups: Sequence[str], crop: Crop) -> CutEars:
    """The rows cut from a photograph, and the ears in it that were rejected."""
    try:
        file = Photograph(photo.path)
        decoded = file.decoded(photo.smallest_crop(file, crop.margin), crop.size)
    except Unreadable as error:
        return CutEars(rejected=(Rejected(photo.path, str(error)),))
    rows, rejected = [], []
    for number, (ear, group) in enumerate(zip(photo.ears, groups, strict=True), start=1):
        try:
            annotation = ear.in_pixels(decoded.size, file.orientation)
            square = _square(decoded, annotation, crop)
            points = _points(photo, annotation, square.box, decoded.size)
        except (Misfit, Unreadable) as error:
            which = f"ear {number}: " if len(photo.ears) > 1 else ""
            rejected.append(Rejected(photo.path, f"{which}{error}"))
            continue
        manifest = ManifestRow(str(photo.path), group, square.box, False, decoded.size)
        row = Row(square.image, manifest, points)
        rows.append(_mirrored(row) if crop.side and ear.side not in (None, crop.side) else row)
    return CutEars(tuple(rows), tuple(rejected))


def _square(decoded: Decoded, ear: Annotation, crop: Crop) -> Square:
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
    """The ear's landmarks as fractions of the crop; those of the photograph if most lie in it."""
    if ear.points is not None or photo.landmarks is None:
        return ear.points_in(box)
    points = photo.landmarks.in_pixels(size).points_in(box)
    assert points is not None
    return points if len(photo.ears) == 1 or mostly_inside(points) else None


def _mirrored(row: Row) -> Row:
    points = row.landmarks
    if points is not None:
        points = np.stack([1 - points[:, 0], points[:, 1]], axis=1)
    return Row(row.image[:, ::-1], replace(row.manifest, mirrored=True), points)
