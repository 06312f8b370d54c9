"""One pass over an array: a row of measurements for each image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import cv2
import numpy as np

from earteach.data.arrays import EarArray
from earteach.hardware import at_most_cores
from earteach.inspection.pixel_values import Reading, chunks, find_reading, rows

THUMBNAIL = 16
# Levels by which a bar's pixels may differ from its corner: what JPEG leaves of one colour.
BAR_NOISE = 8


@dataclass(frozen=True)
class Facts:
    """Measurements of N images, one row each: of the stored values, then of the pixels as read."""

    counts: np.ndarray  # (N, C) finite values
    means: np.ndarray  # (N, C) of these
    spreads: np.ndarray  # (N, C) sum of their squared distances from the mean
    lows: np.ndarray  # (N,) infinity where no value is finite
    highs: np.ndarray  # (N,) minus infinity there
    finite: np.ndarray  # (N,) whether all values are
    constant: np.ndarray  # (N,) whether all pixels are equal

    digests: np.ndarray  # (N,) 16 bytes that equal images share
    brightness: np.ndarray  # (N,) mean luma, 0 to 255
    clipped: np.ndarray  # (N,) share of pixels that are black or white
    sharpness: np.ndarray  # (N,) Laplacian's variance over the image's own
    bars: np.ndarray  # (N,) share of the side that each of two opposite bars of one colour takes
    redness: np.ndarray  # (N,) mean of red minus mean of blue, in levels
    thumbnails: np.ndarray  # (N, 16, 16) luma


@dataclass(frozen=True)
class Survey:
    """An array, how its values are read, and the facts about its images."""

    array: EarArray
    reading: Reading
    facts: Facts


def survey(array: EarArray) -> Survey:
    """Measure every image; the array is read once, on all cores, and never held whole."""
    reading = find_reading(array)

    def measured(some: slice) -> Facts:
        stored = rows(array, some)
        return _measure(stored, reading.rgb(stored))

    pieces = chunks(array)
    with ThreadPoolExecutor(at_most_cores(len(pieces))) as pool:
        parts = list(pool.map(measured, pieces))
    columns = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Facts)
    }
    return Survey(array, reading, Facts(**columns))


def _measure(stored: np.ndarray, rgb: np.ndarray) -> Facts:
    facts = _level_facts if stored.dtype == np.uint8 else _stored_facts
    return Facts(**facts(stored), **_pixel_facts(rgb))


def _level_facts(stored: np.ndarray) -> dict[str, np.ndarray]:
    """Of uint8 images. OpenCV's sums are exact and need no copy in a wider type."""
    size, channels = stored[0, ..., 0].size, stored.shape[3]
    planes = [_planes(image) for image in stored]
    sums = np.array([[_sum_and_spread(plane) for plane in image] for image in planes])
    ranges = np.array([cv2.minMaxLoc(image.reshape(len(image), -1))[:2] for image in stored])
    return {
        "counts": np.full((len(stored), channels), size),
        "means": sums[..., 0] / size,
        "spreads": sums[..., 1],
        "lows": ranges[:, 0],
        "highs": ranges[:, 1],
        "finite": np.full(len(stored), True),
        "constant": (sums[..., 1] == 0).all(axis=1),
    }


def _planes(image: np.ndarray) -> Sequence[np.ndarray]:
    return cv2.split(image) if image.shape[2] > 1 else [image[..., 0]]


def _sum_and_spread(plane: np.ndarray) -> tuple[float, float]:
    """Sum of whole numbers, and of their squared distances from the mean; both exact."""
    total = int(cv2.sumElems(plane)[0])
    squares = round(cv2.norm(plane, cv2.NORM_L2SQR))  # a root of it was squared
    return total, (plane.size * squares - total**2) / plane.size


def _stored_facts(stored: np.ndarray) -> dict[str, np.ndarray]:
    flat = stored.reshape(len(stored), -1)
    with np.errstate(invalid="ignore"):  # NaN and infinity show in the extremes
        lows, highs = flat.min(axis=1), flat.max(axis=1)
    finite = np.isfinite(lows) & np.isfinite(highs)
    if not finite.all():
        known = np.isfinite(flat)
        lows = np.where(known, flat, np.inf).min(axis=1)
        highs = np.where(known, flat, -np.inf).max(axis=1)
    return {
        **_moments(stored, bool(finite.all())),
        "lows": lows.astype(np.float64),
        "highs": highs.astype(np.float64),
        "finite": finite,
        "constant": finite & _constant(stored),
    }


def _constant(stored: np.ndarray) -> np.ndarray:
    """Whether every pixel is the first; only images whose first row is of one colour are read."""
    alike = (stored[:, 0] == stored[:, :1, 0]).all(axis=(1, 2))
    for place in np.flatnonzero(alike):
        alike[place] = (stored[place] == stored[place, 0, 0]).all()
    return alike


def _moments(stored: np.ndarray, all_finite: bool) -> dict[str, np.ndarray]:
    """Count, mean and summed squared distance of each image's channels, in float64.

    Distances are taken from the mean before they are squared: the textbook difference of two
    large sums loses the digits that a nearly constant image needs.
    """
    count, channels = len(stored), stored.shape[3]
    values = stored.reshape(count, -1, channels).astype(np.float64)
    known = None if all_finite else np.isfinite(values)
    if known is not None:
        values[~known] = 0
    counts = np.full((count, channels), values.shape[1]) if known is None else known.sum(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):  # an absurd float64 may square to infinity
        means = _channel_sums(values) / np.maximum(counts, 1)
        values -= means[:, None]
        if known is not None:
            values[~known] = 0
        spreads = _channel_sums(np.square(values, out=values))
    return {"counts": counts, "means": means, "spreads": spreads}


def _channel_sums(values: np.ndarray) -> np.ndarray:
    """Sums over axis 1 of `(n, P, C)`; a product with ones is many times faster than `sum` here."""
    sums: np.ndarray = (np.ones((1, values.shape[1])) @ values)[:, 0]
    return sums


def _pixel_facts(rgb: np.ndarray) -> dict[str, np.ndarray]:
    luma = to_luma(rgb)
    means = np.array([cv2.mean(image)[:3] for image in rgb])
    return {
        "digests": np.frombuffer(b"".join(map(_digest, rgb)), dtype="V16"),
        "brightness": np.array([cv2.mean(plane)[0] for plane in luma]),
        "clipped": np.array([_clipped(plane) for plane in luma]),
        "sharpness": np.array([_sharpness(plane) for plane in luma]),
        "bars": np.maximum(_bars(rgb), _bars(rgb.transpose(0, 2, 1, 3))),
        "redness": means[:, 0] - means[:, 2],
        "thumbnails": shrunk(luma, THUMBNAIL),
    }


def _digest(image: np.ndarray) -> bytes:
    # Processors have instructions for this hash.
    return hashlib.sha256(image.data).digest()[:16]


def _clipped(plane: np.ndarray) -> float:
    not_black, not_white = cv2.countNonZero(plane), cv2.countNonZero(cv2.bitwise_not(plane))
    return (2 * plane.size - not_black - not_white) / plane.size


def _sharpness(plane: np.ndarray) -> float:
    """The Laplacian's variance over that of the luma: a dim image is not for that a blurred one."""
    (_, edges), (_, contrast) = map(_sum_and_spread, (cv2.Laplacian(plane, cv2.CV_16S), plane))
    return edges / max(contrast, 1e-9 * plane.size)


def _bars(rgb: np.ndarray) -> np.ndarray:
    """The thinner of the bars at the top and bottom of each image, as a share of its height."""
    corners = rgb[:, :1, :1].astype(np.int16)
    edges = np.abs(rgb[:, [0, -1]] - corners).max(axis=(1, 2, 3))
    shares = np.zeros(len(rgb))
    # Only images whose first and last row are of one colour are read whole.
    for place in np.flatnonzero(edges <= BAR_NOISE):
        off = (np.abs(rgb[place] - corners[place]).max(axis=2) > BAR_NOISE).mean(axis=1)
        picture = np.flatnonzero(off)
        # A bar ends at once, across the image; a plain background ends where the ear begins. The
        # very first row may be a blend of both.
        if len(picture) > 2 and off[picture[1]] > 0.5 < off[picture[-2]]:
            shares[place] = min(picture[0], len(off) - 1 - picture[-1]) / len(off)
    return shares


def to_luma(rgb: np.ndarray) -> np.ndarray:
    """uint8 `(n, H, W, 3)` to `(n, H, W)`: one call, on all images stacked to a tall one."""
    count, height, width, _ = rgb.shape
    tall = cv2.cvtColor(rgb.reshape(count * height, width, 3), cv2.COLOR_RGB2GRAY)
    return tall.reshape(count, height, width)


def shrunk(luma: np.ndarray, size: int) -> np.ndarray:
    """uint8 `(n, H, W)` to float32 `(n, size, size)`, by area."""
    planes = [cv2.resize(plane, (size, size), interpolation=cv2.INTER_AREA) for plane in luma]
    return np.stack(planes).astype(np.float32)
