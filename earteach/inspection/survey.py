"""One pass over an array that measures every image.

`EarArray` rejects bad values; here they become pixels too, so that an inspection can report them. Good
values become the same pixels as in `EarArray`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import cv2
import numpy as np

from earteach.data.arrays import MOST_OVER_ONE, EarArray, Scale, sampled_rows
from earteach.hardware import at_most_cores

VALUES_PER_CHUNK = 2**21
THUMBNAIL_SIZE = 16
# In levels: how far JPEG compression moves the pixels of a bar from the colour of its corner.
BAR_NOISE = 8


@dataclass(frozen=True)
class ValueRange:
    """The stored values of black and white; `scale` is None if they are not a supported range."""

    scale: Scale | None
    black: float
    white: float

    @property
    def extent(self) -> float:
        return self.white - self.black

    def to_rgb(self, stored: np.ndarray) -> np.ndarray:
        """Stored `(n, H, W, 1 or 3)` to uint8 `(n, H, W, 3)`; NaN is black, the rest is clipped."""
        pixels = stored if self.scale == "uint8" else self._to_uint8(stored)
        return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:3], 3)))

    def _to_uint8(self, stored: np.ndarray) -> np.ndarray:
        # Clip before converting, so that a huge float64 does not overflow. float32 is the working
        # type of EarArray, so both round alike.
        clipped = np.clip(np.nan_to_num(stored, nan=self.black), self.black, self.white)
        working = clipped.astype(np.float32 if self.scale else np.float64)
        factor = 255 / self.extent
        return np.rint((working - self.black) * factor).astype(np.uint8)


def find_value_range(array: EarArray) -> ValueRange:
    """The range of the array's type; for floats, of the typical one of 64 sampled images.

    The typical one, the median, so that a single bad image does not change how all others are read.
    """
    if array.dtype.kind == "u":
        is_bytes = array.dtype == np.uint8
        return ValueRange("uint8", 0, 255) if is_bytes else ValueRange("uint16", 0, 65535)
    sampled = [array.raw[int(index)] for index in sampled_rows(len(array))]
    finite = [image[np.isfinite(image)] for image in sampled]
    ranges = [(float(values.min()), float(values.max())) for values in finite if values.size]
    low, high = np.median(ranges or [(0.0, 1.0)], axis=0).tolist()
    if low < 0 or high > 255:
        return ValueRange(None, low, high if high > low else low + 1)
    # Values a little over 1 become a problem in `findings`.
    return ValueRange("unit", 0, 1) if high < MOST_OVER_ONE else ValueRange("byte", 0, 255)


def chunk_size(array: EarArray) -> int:
    """How many images bounded memory holds at once."""
    return max(1, VALUES_PER_CHUNK // (array.height * array.width * array.channels))


def stored_images(array: EarArray, index: slice | Sequence[int] | np.ndarray) -> np.ndarray:
    """Images in their stored type and scale, `(n, H, W, C)`."""
    rows = range(len(array))[index] if isinstance(index, slice) else index
    return np.ascontiguousarray(np.stack([array.stored(int(row)) for row in rows]))


@dataclass(frozen=True)
class ImageStats:
    """Measurements of N images: first of their stored values, then of their pixels."""

    counts: np.ndarray  # (N, C) number of finite values
    means: np.ndarray  # (N, C) of the finite values
    squares: np.ndarray  # (N, C) sum of their squared deviations from the mean
    minima: np.ndarray  # (N,) infinity without a finite value
    maxima: np.ndarray  # (N,) minus infinity without a finite value
    finite: np.ndarray  # (N,) whether all values are finite
    constant: np.ndarray  # (N,) whether all pixels are equal

    digests: np.ndarray  # (N,) 16 bytes, the same for equal images
    brightness: np.ndarray  # (N,) mean luma, 0 to 255
    clipped: np.ndarray  # (N,) share of pixels that are black or white
    sharpness: np.ndarray  # (N,) variance of the Laplacian over that of the image
    bars: np.ndarray  # (N,) thickness of two opposite bars of one colour, as a share of the side
    redness: np.ndarray  # (N,) mean red minus mean blue, in levels
    thumbnails: np.ndarray  # (N, 16, 16) luma


@dataclass(frozen=True)
class Survey:
    """An array, the range of its values, and the statistics of its images."""

    array: EarArray
    values: ValueRange
    stats: ImageStats

    @property
    def count(self) -> int:
        return len(self.array)


def survey(array: EarArray) -> Survey:
    """Measure every image, reading the array once, in chunks, on all cores."""
    values = find_value_range(array)
    step = chunk_size(array)

    def measure(start: int) -> dict[str, np.ndarray]:
        stored = stored_images(array, slice(start, start + step))
        stored_stats = _uint8_stats if stored.dtype == np.uint8 else _value_stats
        return {**stored_stats(stored), **_pixel_stats(values.to_rgb(stored))}

    starts = range(0, len(array), step)
    with ThreadPoolExecutor(at_most_cores(len(starts))) as pool:
        chunks = list(pool.map(measure, starts))
    names = [field.name for field in fields(ImageStats)]
    stats = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in names}
    return Survey(array, values, ImageStats(**stats))


def _uint8_stats(stored: np.ndarray) -> dict[str, np.ndarray]:
    """The stored statistics of uint8 images. OpenCV sums exactly and without a wider copy."""
    size, channels = stored[0, ..., 0].size, stored.shape[3]
    sums = np.array([[_sum_and_squares(plane) for plane in cv2.split(image)] for image in stored])
    ranges = np.array([cv2.minMaxLoc(image.reshape(len(image), -1))[:2] for image in stored])
    return {
        "counts": np.full((len(stored), channels), size),
        "means": sums[..., 0] / size,
        "squares": sums[..., 1],
        "minima": ranges[:, 0],
        "maxima": ranges[:, 1],
        "finite": np.full(len(stored), True),
        "constant": (sums[..., 1] == 0).all(axis=1),
    }


def _sum_and_squares(plane: np.ndarray) -> tuple[float, float]:
    """The sum of integers, and of their squared deviations from the mean; both exact."""
    total = int(cv2.sumElems(plane)[0])
    squares = round(cv2.norm(plane, cv2.NORM_L2SQR))  # OpenCV squares a root
    return total, (plane.size * squares - total**2) / plane.size


def _value_stats(stored: np.ndarray) -> dict[str, np.ndarray]:
    """The stored statistics of wider types, over their finite values.

    The mean is subtracted before squaring: the difference of two large sums would lose the digits that
    a nearly constant image needs.
    """
    values = stored.reshape(len(stored), -1, stored.shape[3]).astype(np.float64)  # (n, P, C)
    finite = np.isfinite(values)
    minima = np.where(finite, values, np.inf).min(axis=(1, 2))
    maxima = np.where(finite, values, -np.inf).max(axis=(1, 2))
    counts = finite.sum(axis=1)
    values[~finite] = 0
    with np.errstate(over="ignore", invalid="ignore"):  # a huge float64 may square to infinity
        means = _channel_sums(values) / np.maximum(counts, 1)
        values -= means[:, None]
        values[~finite] = 0
        squares = _channel_sums(np.square(values, out=values))
    all_finite = finite.all(axis=(1, 2))
    return {
        "counts": counts,
        "means": means,
        "squares": squares,
        "minima": minima,
        "maxima": maxima,
        "finite": all_finite,
        "constant": all_finite & (stored == stored[:, :1, :1]).all(axis=(1, 2, 3)),
    }


def _channel_sums(values: np.ndarray) -> np.ndarray:
    """Sums over axis 1 of `(n, P, C)`; a product with ones is many times faster than `sum`."""
    return (np.ones((1, values.shape[1])) @ values)[:, 0]


def _pixel_stats(rgb: np.ndarray) -> dict[str, np.ndarray]:
    luma = to_luma(rgb)
    means = np.array([cv2.mean(image)[:3] for image in rgb])
    digests = b"".join(hashlib.sha256(image.data).digest()[:16] for image in rgb)
    return {
        "digests": np.frombuffer(digests, dtype="V16"),
        "brightness": np.array([cv2.mean(plane)[0] for plane in luma]),
        "clipped": np.array([_clipped(plane) for plane in luma]),
        "sharpness": np.array([_sharpness(plane) for plane in luma]),
        "bars": np.maximum(_bars(rgb), _bars(rgb.transpose(0, 2, 1, 3))),
        "redness": means[:, 0] - means[:, 2],
        "thumbnails": shrink(luma, THUMBNAIL_SIZE),
    }


def _clipped(plane: np.ndarray) -> float:
    not_black, not_white = cv2.countNonZero(plane), cv2.countNonZero(cv2.bitwise_not(plane))
    return (2 * plane.size - not_black - not_white) / plane.size


def _sharpness(plane: np.ndarray) -> float:
    """The Laplacian's variance over that of the luma, so that a dim image does not count as blurred."""
    (_, edges), (_, contrast) = map(_sum_and_squares, (cv2.Laplacian(plane, cv2.CV_16S), plane))
    return edges / max(contrast, 1e-9 * plane.size)


def _bars(rgb: np.ndarray) -> np.ndarray:
    """The thinner of the bars at the top and bottom of each image, as a share of its height."""
    corners = rgb[:, :1, :1].astype(np.int16)
    edges = np.abs(rgb[:, [0, -1]] - corners).max(axis=(1, 2, 3))
    shares = np.zeros(len(rgb))
    # Most images have more than one colour in the first or last row: skip them early.
    for index in np.flatnonzero(edges <= BAR_NOISE):
        differs = (np.abs(rgb[index] - corners[index]).max(axis=2) > BAR_NOISE).mean(axis=1)
        content = np.flatnonzero(differs)
        # A bar ends abruptly across the whole image; a plain background ends where the ear begins.
        # The first row after a bar may be a blend of both, so look at the second.
        if len(content) > 2 and differs[content[1]] > 0.5 < differs[content[-2]]:
            shares[index] = min(content[0], len(differs) - 1 - content[-1]) / len(differs)
    return shares


def to_luma(rgb: np.ndarray) -> np.ndarray:
    """uint8 `(n, H, W, 3)` to `(n, H, W)`, in one call on all images stacked vertically."""
    count, height, width, _ = rgb.shape
    stacked = cv2.cvtColor(rgb.reshape(-1, width, 3), cv2.COLOR_RGB2GRAY)
    return stacked.reshape(count, height, width)


def shrink(luma: np.ndarray, size: int) -> np.ndarray:
    """uint8 `(n, H, W)` to float32 `(n, size, size)`, by area."""
    planes = [cv2.resize(plane, (size, size), interpolation=cv2.INTER_AREA) for plane in luma]
    return np.stack(planes).astype(np.float32)
