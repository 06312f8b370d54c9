"""Photographs from a folder: found, read upright, made square."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from earteach.config import Fit
from earteach.data.arrays import resized, to_channels
from earteach.data.image_header import claimed_sides
from earteach.errors import EarTeachError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
_MOST_PIXELS = 2**27
_MOST_BYTES = 2**30
# By how much the decoder of JPEGs can divide the sides; other decoders read whole pictures. The small
# picture differs from the whole one's by 45 dB and more (AMI); 8, which it could too, by 40.
_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
}

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
    photograph: tuple[int, int]  # its width and height


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
    data = _bytes(path)
    _sides(data)
    return cv2.cvtColor(_decoded(data, 1), cv2.COLOR_BGR2RGB)


def read_square(path: Path, size: int, channels: int = 3, fit: Fit = "stretch") -> Square:
    """The photograph in the file made square, as `square` does.

    Of a JPEG several times as large as that the decoder makes a smaller picture at once, in a half to
    a quarter of the time. Raises `Unreadable` for a file that is no photograph.
    """
    data = _bytes(path)
    whole = _sides(data)
    scale = _decoding_scale(min(whole), size) if _is_jpeg(data) else 1
    image = _decoded(data, scale)
    small = square(image, size, 3, fit)
    height, width = image.shape[:2]
    if scale > 1:
        height, width = sorted(whole, reverse=height > width)
    rgb = cv2.cvtColor(small.image, cv2.COLOR_BGR2RGB)
    return Square(to_channels(rgb, channels), _extended(height, width, fit)[0], (width, height))


def _bytes(path: Path) -> np.ndarray:
    try:
        if path.exists() and not path.is_file():
            raise Unreadable("is no file")  # a pipe may never end
        if path.stat().st_size > _MOST_BYTES:
            raise Unreadable(f"{path.stat().st_size:,} bytes are too many")
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error
    if not len(data):
        raise Unreadable("the file is empty")
    return data


def _sides(data: np.ndarray) -> tuple[int, int]:
    """Height and width as stored; raises `Unreadable` before a picture fills the memory."""
    sides = claimed_sides(data.data)
    if sides is None:
        raise Unreadable("not an image that can be read")
    height, width = sides
    if height * width > _MOST_PIXELS:
        raise Unreadable(f"{width}×{height} pixels are too many")
    return sides


def _is_jpeg(data: np.ndarray) -> bool:
    return data[:3].tobytes() == b"\xff\xd8\xff"


def _decoded(data: np.ndarray, scale: int) -> np.ndarray:
    """Upright uint8 BGR; a JPEG with both sides divided by `scale`."""
    try:
        image = cv2.imdecode(data, _REDUCED[scale])
    except cv2.error as error:
        raise Unreadable("too large or damaged") from error
    if image is None:
        raise Unreadable("not an image that can be read")
    return image


def _decoding_scale(side: int, size: int) -> int:
    """The largest scale that leaves the shorter side twice as long as asked for."""
    return max((scale for scale in _REDUCED if side >= 2 * size * scale), default=1)


def square(image: np.ndarray, size: int, channels: int = 3, fit: Fit = "stretch") -> Square:
    """The whole photograph as a square of side `size`.

    "stretch" scales both sides to the same length; "reflect" keeps the proportions and extends the
    shorter side by reflecting its edges, which doubles the ear in a tight crop.
    """
    height, width = image.shape[:2]
    box, edges = _extended(height, width, fit)
    if any(edges):
        image = cv2.copyMakeBorder(image, *edges, cv2.BORDER_REFLECT)
    return Square(to_channels(_shrunk(image, size), channels), box, (width, height))


def _extended(
    height: int, width: int, fit: Fit
) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """The square's box, and how many pixels are added at the top, bottom, left and right."""
    if fit == "stretch":
        return (0, 0, width, height), (0, 0, 0, 0)
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    edges = (top, side - height - top, left, side - width - left)
    return (-left, -top, side, side), edges


def _shrunk(image: np.ndarray, size: int) -> np.ndarray:
    """As `resized`, in a third of the time where the sides are no whole multiples of `size`.

    OpenCV's area method is slow for such sides, slower than the JPEG decoder. A linear step to a power
    of two times `size`, where it skips no pixel, and exact halving from there differ from it by 0.4
    levels (RMS), as much as rounding does.
    """
    height, width = image.shape[:2]
    longer, shorter = max(height, width), min(height, width)
    if shorter < size or (height % size == 0 and width % size == 0):
        return resized(image, size)
    side = size * 2 ** max(1, int(math.log2(longer / size)))
    image = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
    while side > size:
        side //= 2
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return image
