"""Augmentation of training images.

Geometry and colour change both the input and the reconstruction target. With `--target clean`, noise,
blur, occlusion, shadow and fog change only the input, so that the network learns to see through them.

To add an augmentation: one that moves pixels goes into `geometric.py`, with its ranges in `GEOMETRY`;
one of colour, noise, blur or occlusion at full strength into `photometric.py`.

Everything works on uint8, because albumentations' limits are meant for 0 to 255 and saturate float
images. Each call sets its own random state, because albumentations' repeats itself in worker processes
and `set_random_seed` gives every transform the same one.
"""

from __future__ import annotations

import random
from typing import Any

import cv2
import numpy as np

from earteach.config import Strength, Target
from earteach.data.geometric import GEOMETRY, warp

# Probability, and the largest change of brightness and of contrast.
TONE: dict[Strength, tuple[float, float]] = {
    "none": (0, 0),
    "light": (0.3, 0.08),
    "full": (0.3, 0.15),
}


def tone(image: np.ndarray, limit: float, rng: np.random.Generator) -> np.ndarray:
    """Change brightness and contrast by up to `limit` each, as `A.RandomBrightnessContrast` does."""
    contrast, brightness = rng.uniform(-limit, limit, 2)
    changed = cv2.addWeighted(image, 1 + contrast, image, 0, 255 * brightness)
    return changed.reshape(image.shape)


class Augmentation:
    """Makes an input and its target, a pure function of the image and a seed."""

    def __init__(self, strength: Strength, channels: int, target: Target) -> None:
        self._geometry = GEOMETRY[strength]
        self._tone_p, self._tone_limit = TONE[strength]
        self._target = target
        self._colour: Any = None
        self._input_only: Any = None
        if strength == "full":
            # Importing albumentations takes seconds, which the other strengths need not wait for.
            from earteach.data.photometric import colour, obstructions

            self._colour = colour(channels)
            self._input_only = obstructions(channels)

    def __call__(self, image: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 `(H, W, C)` to (input, target), both uint8 of the same shape."""
        shape = image.shape
        rng = np.random.default_rng(seed)
        image = warp(image, self._geometry, rng)
        if rng.random() < self._tone_p:
            image = tone(image, self._tone_limit, rng)
        if self._input_only is None:
            return image, image
        state = rng, random.Random(seed)
        self._colour.set_random_state(*state)
        image = self._colour(image=image)["image"].reshape(shape)
        self._input_only.set_random_state(*state)
        obstructed = self._input_only(image=image)["image"].reshape(shape)
        return obstructed, image if self._target == "clean" else obstructed
