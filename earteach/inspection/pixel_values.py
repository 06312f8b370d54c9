"""Stored values to pixels, for arrays that may hold anything.

`EarArray` rejects bad values; here they become pixels too, so that an inspection can report them. Good
values become the same pixels as in `EarArray`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from earteach.data.arrays import DARKEST_BYTES, EarArray, Scale, sampled_rows

VALUES_PER_CHUNK = 2**21


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
    return ValueRange("unit", 0, 1) if high < DARKEST_BYTES else ValueRange("byte", 0, 255)


def chunk_size(array: EarArray) -> int:
    """How many images bounded memory holds at once."""
    return max(1, VALUES_PER_CHUNK // (array.height * array.width * array.channels))


def stored_images(array: EarArray, index: slice | Sequence[int] | np.ndarray) -> np.ndarray:
    """Images in their stored type and scale, `(n, H, W, C)`."""
    stored = np.asarray(array.raw[index])
    if array.layout == "nchw":
        return np.ascontiguousarray(stored.transpose(0, 2, 3, 1))
    return stored if array.layout == "nhwc" else stored[..., None]
