"""Stored values to pixels, for arrays with anything in them.

`EarArray` refuses bad values. Here they are read, so that an inspection can tell of them; good
values become the same pixels as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from earteach.data.arrays import DARKEST_BYTES, EarArray, Scale, sampled_rows

VALUES_PER_CHUNK = 2**21


@dataclass(frozen=True)
class Reading:
    """Which stored value is black and which is white; `scale` is None for one not supported."""

    scale: Scale | None
    black: float
    white: float

    def rgb(self, stored: np.ndarray) -> np.ndarray:
        """Stored `(n, H, W, 1 or 3)` to uint8 `(n, H, W, 3)`; NaN is black, the rest is clipped."""
        pixels = stored if self.scale == "uint8" else self._to_uint8(stored)
        repeated = np.repeat(pixels, 3, axis=3) if pixels.shape[3] == 1 else pixels
        return np.ascontiguousarray(repeated)

    def _to_uint8(self, stored: np.ndarray) -> np.ndarray:
        values = stored
        if stored.dtype.kind == "f":
            values = np.nan_to_num(stored, nan=self.black, posinf=self.white, neginf=self.black)
        # The working type of EarArray, so that rounding falls the same way; clipped before, so
        # that a huge float64 cannot overflow in it.
        clipped = np.clip(values, self.black, self.white)
        working = clipped.astype(np.float32 if self.scale else np.float64)
        factor = 255 / (self.white - self.black)
        return np.rint((working - self.black) * factor).astype(np.uint8)


def find_reading(array: EarArray) -> Reading:
    """The array's scale; for floats what most of 64 sampled images say.

    The most and not the extreme, so that one bad image does not decide how all others are read.
    """
    if array.dtype == np.uint8:
        return Reading("uint8", 0, 255)
    if array.dtype == np.uint16:
        return Reading("uint16", 0, 65535)
    low, high = _typical_range(array)
    if low < 0 or high > 255:
        return Reading(None, low, high if high > low else low + 1)
    # What is a little over 1 is told as a problem.
    return Reading("unit", 0, 1) if high < DARKEST_BYTES else Reading("byte", 0, 255)


def _typical_range(array: EarArray) -> tuple[float, float]:
    """Median over the sampled images of their lowest and highest finite value."""
    ranges = []
    for index in sampled_rows(len(array)):
        row = array.raw[int(index)]
        finite = row[np.isfinite(row)]
        if finite.size:
            ranges.append((float(finite.min()), float(finite.max())))
    if not ranges:
        return 0.0, 1.0
    low, high = np.median(ranges, axis=0)
    return float(low), float(high)


def chunks(array: EarArray) -> list[slice]:
    """The whole array once, in pieces of bounded size."""
    step = images_at_once(array)
    return [slice(start, start + step) for start in range(0, len(array), step)]


def images_at_once(array: EarArray) -> int:
    return max(1, VALUES_PER_CHUNK // (array.height * array.width * array.channels))


def rows(array: EarArray, which: slice | Sequence[int] | np.ndarray) -> np.ndarray:
    """Some images in their stored type and scale, contiguous `(n, H, W, C)`."""
    stored = np.asarray(array.raw[which])
    if array.layout == "nchw":
        return np.ascontiguousarray(stored.transpose(0, 2, 3, 1))
    return stored if array.layout == "nhwc" else stored[..., None]
