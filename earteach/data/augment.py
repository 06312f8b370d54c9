"""What happens to a training image: the same ear, seen in another way.

Geometry and colour change the image and what is to be reconstructed alike. Noise, blur, occlusion,
shadow and fog are put on the input only, so that the network learns to see through them.

Everything works on uint8: albumentations' limits are meant for 0 to 255, and float images would be
saturated by them. Each call brings its own random state, because albumentations' repeats itself in
worker processes; not through `set_random_seed`, which gives every transform the same one, so that a
flip would never come without a rotation.
"""

from __future__ import annotations

import os
import random
from typing import Any

# Importing albumentations opens a network connection (its update check) unless this is set first.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np

from earteach.config import Strength, Target


def geometry(strength: Strength) -> list[Any]:
    """Flip and affine, at full strength also perspective and elastic; edges are reflected."""
    border = {"border_mode": cv2.BORDER_REFLECT_101}
    if strength == "light":
        gentle = A.Affine(
            scale=(0.94, 1.06), translate_percent=(-0.04, 0.04), rotate=(-6, 6), p=0.8, **border
        )
        return [A.HorizontalFlip(p=0.5), gentle]
    return [
        A.HorizontalFlip(p=0.5),
        A.Affine(
            scale=(0.94, 1.08), translate_percent=(-0.04, 0.04), rotate=(-10, 10), shear=(-5, 5),
            p=0.5, **border,
        ),
        A.Perspective(scale=(0.02, 0.06), p=0.15, **border),
        A.ElasticTransform(alpha=20, sigma=6, p=0.1, **border),
    ]  # fmt: skip


def colour(strength: Strength, channels: int) -> list[Any]:
    """Brightness and contrast, and for colour images saturation and hue within skin's range."""
    light = strength == "light"
    brightness = A.RandomBrightnessContrast(
        brightness_limit=0.08 if light else 0.15,
        contrast_limit=0.08 if light else 0.15,
        p=0.3,
    )
    if channels == 1:
        return [brightness]
    jitter = A.ColorJitter(
        brightness=(0.9, 1.1), contrast=(0.9, 1.1), saturation=(0.85, 1.15), hue=(-0.02, 0.02), p=1
    )
    shift = A.HueSaturationValue(hue_shift_limit=4, sat_shift_limit=15, val_shift_limit=10, p=1)
    return [brightness] if light else [brightness, A.OneOf([jitter, shift], p=0.3)]


def obstructions(channels: int) -> list[Any]:
    """Noise, blur, occlusion, shadow and fog: what the network is to see through."""
    weather = [
        A.RandomShadow(num_shadows_limit=(1, 1), shadow_intensity_range=(0.2, 0.45), p=1),
        A.RandomFog(fog_coef_range=(0.05, 0.25), alpha_coef=0.06, p=0.15),
    ]
    return [
        *([A.OneOf(weather, p=0.08)] if channels == 3 else []),
        A.GaussNoise(std_range=(0.01, 0.04), p=0.1),
        A.OneOf(
            [A.GaussianBlur(blur_limit=(3, 3), sigma_limit=(0.3, 1.0)), A.MotionBlur((3, 5))],
            p=0.1,
        ),
        A.CoarseDropout(
            num_holes_range=(1, 3), hole_height_range=(0.06, 0.18), hole_width_range=(0.06, 0.18),
            fill="random_uniform", p=0.12,
        ),
    ]  # fmt: skip


class Augmentation:
    """Turns an image into an input and its target, as a function of the image and a seed."""

    def __init__(self, strength: Strength, channels: int, target: Target) -> None:
        shared = [] if strength == "none" else [*geometry(strength), *colour(strength, channels)]
        self._shared = A.Compose(shared) if shared else None
        self._input_only = A.Compose(obstructions(channels)) if strength == "full" else None
        self._target = target

    def __call__(self, image: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 `(H, W, C)` to (input, target), both uint8 of the same shape."""
        shape = image.shape
        state = np.random.default_rng(seed), random.Random(seed)
        if self._shared is not None:
            self._shared.set_random_state(*state)
            image = self._shared(image=image)["image"].reshape(shape)
        if self._input_only is None:
            return image, image
        self._input_only.set_random_state(*state)
        seen = self._input_only(image=image)["image"].reshape(shape)
        return seen, image if self._target == "clean" else seen
