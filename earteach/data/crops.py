"""Squares with ears in them, cut from photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earteach.config import Fit
from earteach.data.annotations.annotation import Annotation, Misfit, Side, mostly_inside
from earteach.data.array_writer import Rejected, Row
from earteach.data.manifest import ManifestRow
from earteach.data.photographs import Photograph, Unreadable
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


def cut_ears(photo: AnnotatedPhotograph, groups: Sequence[str], crop: Crop) -> list[Row | Rejected]:
    """The row of each ear in a photograph, or why there is none."""
    try:
        file = Photograph(photo.path)
        short = min(file.width, file.height)
        smallest = min(ear.extent(short) * (1 + 2 * crop.margin) for ear in photo.ears)
        decoded = file.decoded(smallest, crop.size)
    except Unreadable as error:
        return [Rejected(photo.path, str(error))]
    cut: list[Row | Rejected] = []
    for number, (ear, group) in enumerate(zip(photo.ears, groups, strict=True), start=1):
        try:
            annotation = ear.in_pixels(decoded.size, file.orientation)
            if annotation.box is None and annotation.points is None:
                square = decoded.square(crop.size, crop.shape[2], crop.fit)
            else:
                box = annotation.square(decoded.size, crop.margin)
                square = decoded.crop(box, crop.size, crop.shape[2])
            points = _points(photo, annotation, square.box, decoded.size)
        except (Misfit, Unreadable) as error:
            which = f"ear {number}: " if len(photo.ears) > 1 else ""
            cut.append(Rejected(photo.path, f"{which}{error}"))
            continue
        image, mirror = square.image, crop.side is not None and ear.side not in (None, crop.side)
        if mirror:
            image = image[:, ::-1]
            if points is not None:
                points = np.stack([1 - points[:, 0], points[:, 1]], axis=1)
        manifest = ManifestRow(str(photo.path), group, square.box, mirror, decoded.size)
        cut.append(Row(image, manifest, points))
    return cut


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
