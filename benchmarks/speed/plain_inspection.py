"""The checks of `inspect-data` as one would write them: one image after another, NumPy and SciPy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import ndimage

_LUMA = np.array([0.299, 0.587, 0.114])
_SMALL, _BLUR, _ALIKE = 16, 1.5, 0.93
_BAR, _BAR_NOISE = 0.03, 8


@dataclass
class Found:
    """Rows with each finding, and what is measured of all images."""

    bad: list[int] = field(default_factory=list)
    constant: list[int] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    alike: list[int] = field(default_factory=list)
    gray: list[int] = field(default_factory=list)
    barred: list[int] = field(default_factory=list)
    values: list[tuple[np.ndarray, ...]] = field(default_factory=list)


def inspect(path: Path) -> Found:
    """NaN, extremes, means, deviations, constant images, exact and near repeats (mirrored too), gray
    stored as colour, exposure, clipping, sharpness, bars, colour balance; uint8 `(N, S, S, 3)`."""
    array = np.load(path, mmap_mode="r")
    found, digests = Found(), set()
    pictures = np.zeros((len(array), _SMALL**2), np.float32)
    for row, image in enumerate(array):
        if not np.isfinite(image).all():
            found.bad.append(row)
        if (image == image[0, 0]).all():
            found.constant.append(row)
        if (image == image[..., :1]).all():
            found.gray.append(row)
        if max(_bars(image), _bars(image.swapaxes(0, 1))) >= _BAR:
            found.barred.append(row)
        digest = hashlib.sha256(image.tobytes()).digest()
        if digest in digests:
            found.repeated.append(row)
        digests.add(digest)
        luma = image @ _LUMA
        found.values.append(_measured(image, luma))
        picture = _picture(luma)
        mirrored = picture[:, ::-1].ravel()
        earlier = pictures[:row]
        likeness = np.maximum(earlier @ picture.ravel(), earlier @ mirrored)
        if row and likeness.max() > _ALIKE:
            found.alike.append(row)
        pictures[row] = picture.ravel()
    return found


def _measured(image: np.ndarray, luma: np.ndarray) -> tuple[np.ndarray, ...]:
    means = image.mean(axis=(0, 1))
    return (
        image.min(), image.max(), means, image.std(axis=(0, 1)), luma.mean(),
        ((luma < 0.5) | (luma > 254.5)).mean(),
        ndimage.laplace(luma).var() / max(luma.var(), 1e-9),
        means[0] - means[2],
    )  # fmt: skip


def _bars(image: np.ndarray) -> float:
    """The thinner of two bars of one colour, above and below, as a share of the height."""
    off = (np.abs(image - image[0, 0].astype(np.int16)).max(axis=2) > _BAR_NOISE).mean(axis=1)
    picture = np.flatnonzero(off)
    if len(picture) < 3 or min(off[picture[1]], off[picture[-2]]) <= 0.5:
        return 0.0
    return float(min(picture[0], len(off) - 1 - picture[-1]) / len(off))


def _picture(luma: np.ndarray) -> np.ndarray:
    """A small high-pass picture of unit norm."""
    cell = len(luma) // _SMALL
    small = luma.reshape(_SMALL, cell, _SMALL, cell).mean(axis=(1, 3))
    sharp = small - ndimage.gaussian_filter(small, _BLUR)
    sharp -= sharp.mean()
    unit: np.ndarray = (sharp / max(float(np.linalg.norm(sharp)), 1e-9)).astype(np.float32)
    return unit
