"""Photometric augmentation at full strength: colour, and obstructions before the camera.

The transforms are albumentations', except for faster replacements of its fog and noise.
"""

from __future__ import annotations

import os
from statistics import NormalDist
from typing import Any

# Importing albumentations opens a network connection (its update check) unless this is set first.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np

from earteach.data.geometric import Range


def colour(channels: int) -> A.Compose:
    """Saturation, hue and brightness in the range of skin for three channels; nothing for one."""
    jitter = A.ColorJitter(
        brightness=(0.9, 1.1), contrast=(0.9, 1.1), saturation=(0.85, 1.15), hue=(-0.02, 0.02), p=1
    )
    shift = A.HueSaturationValue(hue_shift_limit=4, sat_shift_limit=15, val_shift_limit=10, p=1)
    return A.Compose([A.OneOf([jitter, shift], p=0.3)] if channels == 3 else [])


def obstructions(channels: int) -> A.Compose:
    """Noise, blur and occlusion, and for three channels shadow and fog."""
    weather = [
        A.RandomShadow(num_shadows_limit=(1, 1), shadow_intensity_range=(0.2, 0.45), p=1),
        Fog(density=(0.05, 0.25), opacity=0.06, p=0.15),
    ]
    return A.Compose([
        *([A.OneOf(weather, p=0.08)] if channels == 3 else []),
        Noise(std=(0.01, 0.04), p=0.1),
        A.OneOf(
            [A.GaussianBlur(blur_limit=(3, 3), sigma_limit=(0.3, 1.0)), A.MotionBlur((3, 5))],
            p=0.1,
        ),
        A.CoarseDropout(
            num_holes_range=(1, 3), hole_height_range=(0.06, 0.18), hole_width_range=(0.06, 0.18),
            fill="random_uniform", p=0.12,
        ),
    ])  # fmt: skip


class Fog(A.ImageOnlyTransform):
    """Faint white discs, densest in the middle, and a slight blur.

    `A.RandomFog` draws thousands of discs one by one. This counts the discs over each pixel instead.
    """

    def __init__(self, *, density: Range, opacity: float, p: float) -> None:
        super().__init__(p=p)
        self.density = density
        self.opacity = opacity

    def apply(self, img: np.ndarray, **_: Any) -> np.ndarray:
        """Fog over uint8 `(H, W, C)`."""
        density = self.random_generator.uniform(*self.density)
        count = discs_over(img.shape[0], img.shape[1], density, self.random_generator)
        clear = (1 - self.opacity * density) ** count[..., None]
        foggy = np.rint(255 - (255 - img.astype(np.float32)) * clear).astype(np.uint8)
        width = max(3, min(img.shape[:2]) // 30) | 1
        return cv2.GaussianBlur(foggy, (width, width), 0).reshape(img.shape)


def discs_over(height: int, width: int, density: float, rng: np.random.Generator) -> np.ndarray:
    """How many of `A.RandomFog`'s discs lie over each pixel, float32 `(H, W)`.

    Radii are averaged: a disc counts by the share of radii with which it would cover the pixel.
    """
    region = max(1, int(width // 3 * density))
    centres = np.zeros((height, width), np.float32)
    across, down = width, height
    for _ in range(10):
        if min(across, down) <= region:
            break
        number = int(across * down / region**2 * density * 10)
        x = rng.integers(-(across // 2), across // 2, number, endpoint=True) + (width - 1) // 2
        y = rng.integers(-(down // 2), down // 2, number, endpoint=True) + (height - 1) // 2
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        np.add.at(centres, (y[inside], x[inside]), 1)
        across, down = int(across * 0.9), int(down * 0.9)
    largest = max(2, int(min(height, width) * 0.1 * density))
    empty, middle = np.zeros((2 * largest + 1, 2 * largest + 1), np.float32), (largest, largest)
    radii = range(max(1, largest // 2), largest)
    discs = [cv2.circle(empty.copy(), middle, radius, 1.0, thickness=-1) for radius in radii]
    mean = np.mean(discs, axis=0, dtype=np.float32)
    return cv2.filter2D(centres, -1, mean, borderType=cv2.BORDER_CONSTANT)


# Medians of 256 equally probable parts of the normal distribution, scaled to variance 1.
_MIDDLES = np.array([NormalDist().inv_cdf((k + 0.5) / 256) for k in range(256)])
_NORMAL = _MIDDLES / _MIDDLES.std()


class Noise(A.ImageOnlyTransform):
    """Normal noise, each value chosen by 8 random bits; `std` is a fraction of 255."""

    def __init__(self, *, std: Range, p: float) -> None:
        super().__init__(p=p)
        self.std = std

    def apply(self, img: np.ndarray, **_: Any) -> np.ndarray:
        """Noise on uint8 `(H, W, C)`."""
        values = _NORMAL * 255 * self.random_generator.uniform(*self.std)
        chosen = np.frombuffer(self.random_generator.bytes(img.size), np.uint8).reshape(img.shape)
        # Truncated to integers, as albumentations does.
        noise = cv2.LUT(chosen, values.clip(-128, 127).astype(np.int8))
        return cv2.add(img, noise.reshape(img.shape), dtype=cv2.CV_8U).reshape(img.shape)
