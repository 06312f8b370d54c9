"""Photographs from a folder: found, read upright, made square."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from earteach.config import Fit
from earteach.data.arrays import resized, to_channels
from earteach.errors import EarTeachError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
_MOST_PIXELS = 2**27

# OpenCV writes to stderr about each file that it cannot read; they are reported by name instead.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class Unreadable(Exception):
    """A photograph that cannot be read; the message says why."""


@dataclass(frozen=True)
class Square:
    """A photograph made square, and the box of the square in the photograph.

    The box is left, top, width, height in the photograph's pixels; it reaches outside where the
    photograph was extended by reflecting its edges.
    """

    image: np.ndarray  # uint8 (size, size, channels)
    box: tuple[int, int, int, int]


def find(source: Path) -> list[Path]:
    """The photographs below a folder, in order of their names; hidden files are left out.

    Raises `EarTeachError` where there is no such folder or nothing in it.
    """
    if not source.exists():
        raise EarTeachError(f"{source}: no such folder; name a folder of photographs")
    if not source.is_dir():
        raise EarTeachError(f"{source}: is a file; name the folder of photographs that it is in")
    found = sorted(path for path in _walk(source) if path.suffix.lower() in SUFFIXES)
    if not found:
        raise EarTeachError(
            f"{source}: holds no photographs; looked for {', '.join(sorted(SUFFIXES))} there and below"
        )
    return found


def _walk(folder: Path) -> Iterator[Path]:
    return (
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def read(path: Path) -> np.ndarray:
    """A photograph as uint8 RGB `(H, W, 3)`, turned as its EXIF orientation says.

    Raises `Unreadable` for a file that is no photograph.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error
    if not len(data):
        raise Unreadable("the file is empty")
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise Unreadable("too large or damaged") from error
    if image is None:
        raise Unreadable("not an image that can be read")
    if image.shape[0] * image.shape[1] > _MOST_PIXELS:
        raise Unreadable(f"{image.shape[1]}×{image.shape[0]} pixels are too many")
    return image


def square(image: np.ndarray, size: int, channels: int = 3, fit: Fit = "stretch") -> Square:
    """The whole photograph as a square of side `size`.

    "stretch" scales both sides to the same length; "reflect" keeps the proportions and extends the
    shorter side by reflecting its edges, which doubles the ear in a tight crop.
    """
    height, width = image.shape[:2]
    left = top = 0
    if fit == "reflect" and height != width:
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        image = cv2.copyMakeBorder(
            image, top, side - height - top, left, side - width - left, cv2.BORDER_REFLECT
        )
    box = (-left, -top, image.shape[1], image.shape[0])
    return Square(to_channels(resized(image, size), channels), box)
