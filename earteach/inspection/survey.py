"""One pass over an array: a row of measurements for each image."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import cv2
import numpy as np

from earteach.data.arrays import EarArray
from earteach.inspection.reading import Reading, chunks, find_reading

THUMBNAIL = 16


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
    redness: np.ndarray  # (N,) mean of red minus mean of blue, in levels
    thumbnails: np.ndarray  # (N, 16, 16) luma


@dataclass(frozen=True)
class Survey:
    """An array, how its values are read, and the facts about its images."""

    array: EarArray
    reading: Reading
    facts: Facts


def survey(array: EarArray) -> Survey:
    """Measure every image; the array is read once, and never held whole."""
    reading = find_reading(array)
    parts = [_measure(stored, reading.rgb(stored)) for stored in chunks(array)]
    columns = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Facts)
    }
    return Survey(array, reading, Facts(**columns))


def _measure(stored: np.ndarray, rgb: np.ndarray) -> Facts:
    return Facts(**_stored_facts(stored), **_pixel_facts(rgb))


def _stored_facts(stored: np.ndarray) -> dict[str, np.ndarray]:
    flat = stored.reshape(len(stored), -1)
    finite = np.isfinite(flat).all(axis=1) if stored.dtype.kind == "f" else np.full(len(flat), True)
    first = np.tile(stored[:, 0, 0], stored.shape[1] * stored.shape[2])
    return {
        **_moments(stored, bool(finite.all())),
        **_extremes(flat, bool(finite.all())),
        "finite": finite,
        "constant": finite & (flat == first).all(axis=1),
    }


def _extremes(flat: np.ndarray, all_finite: bool) -> dict[str, np.ndarray]:
    if all_finite:
        low, high = flat, flat
    else:
        known = np.isfinite(flat)
        low, high = np.where(known, flat, np.inf), np.where(known, flat, -np.inf)
    return {
        "lows": low.min(axis=1).astype(np.float64),
        "highs": high.max(axis=1).astype(np.float64),
    }


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
        "clipped": ((luma == 0) | (luma == 255)).reshape(len(luma), -1).mean(axis=1),
        "sharpness": np.array([_sharpness(plane) for plane in luma]),
        "redness": means[:, 0] - means[:, 2],
        "thumbnails": shrunk(luma, THUMBNAIL),
    }


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(image.data, digest_size=16).digest()


def _sharpness(plane: np.ndarray) -> float:
    """The Laplacian's variance over that of the luma: a dim image is not for that a blurred one."""
    edges = cv2.meanStdDev(cv2.Laplacian(plane, cv2.CV_16S))[1].item()
    contrast = cv2.meanStdDev(plane)[1].item()
    return float(edges**2 / max(contrast**2, 1e-9))


def to_luma(rgb: np.ndarray) -> np.ndarray:
    """uint8 `(n, H, W, 3)` to `(n, H, W)`: one call, on all images stacked to a tall one."""
    count, height, width, _ = rgb.shape
    tall = cv2.cvtColor(rgb.reshape(count * height, width, 3), cv2.COLOR_RGB2GRAY)
    return tall.reshape(count, height, width)


def shrunk(luma: np.ndarray, size: int) -> np.ndarray:
    """uint8 `(n, H, W)` to float32 `(n, size, size)`, by area."""
    planes = [cv2.resize(plane, (size, size), interpolation=cv2.INTER_AREA) for plane in luma]
    return np.stack(planes).astype(np.float32)
