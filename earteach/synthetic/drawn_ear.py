"""Draw synthetic ears, with exactly known landmarks.

    >>> ear = draw_ear(seed=0, index=0, size=128)
    >>> ear.image.shape, ear.landmarks.shape
    ((128, 128, 3), (55, 2))

An ear is a height field of ridges and hollows (`relief`) over anatomical curves (`anatomy`). It is
lit, coloured, placed in front of hair and background (`surroundings`), and photographed with random
exposure, white balance, sharpness and noise. Random numbers do not depend on `size`, so another size
is the same ear at another resolution. Maps are planes, (size, size) or (3, size, size), until the
camera merges them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from earteach.synthetic.anatomy import Array, Ear, draw_anatomy
from earteach.synthetic.relief import Light, Relief, blur, cast_light, noise, raise_relief
from earteach.synthetic.surroundings import (
    add_stud,
    canonical_grid,
    draw_background,
    draw_hair,
    draw_skin,
    head_shading,
    planes,
)

MIN_CANVAS = 128
"""Smaller images are drawn at this size and shrunk, because the ridges would be too thin."""


@dataclass(frozen=True)
class DrawnEar:
    image: np.ndarray  # uint8 (size, size, 3) RGB
    landmarks: np.ndarray  # float32 (55, 2): x, y as fractions of the crop


def draw_ear(seed: int, index: int, size: int) -> DrawnEar:
    """Draw ear `index` of the series `seed`; a pure function of its arguments."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    ear = draw_anatomy(rng)
    canvas = max(size, MIN_CANVAS)
    scene = _paint(ear, rng, canvas)
    photograph = _photograph(scene, rng)
    if canvas != size:
        photograph = cv2.resize(photograph, (size, size), interpolation=cv2.INTER_AREA)
    image = np.clip(photograph * 255 + 0.5, 0, 255).astype(np.uint8)
    return DrawnEar(image, ear.landmarks)


def _paint(ear: Ear, rng: np.random.Generator, size: int) -> Array:
    """The scene in linear light (3, size, size): head, hair, background, ear, loose hair."""
    unit = ear.height * size
    relief = raise_relief(ear, rng, size)
    light = cast_light(relief, rng, unit)
    skin_tone, albedo = draw_skin(rng, size)
    grid = canonical_grid(ear, size)
    hair = draw_hair(rng, skin_tone, grid)
    background, outside = draw_background(rng, grid)
    ambient = np.float32(rng.uniform(0.18, 0.45))
    skin = _lit_skin(relief, light, albedo, ambient, np.float32(rng.uniform(0.4, 1.3)))
    head = skin * head_shading(grid, rng)
    head = _mix(head, hair.colour, hair.behind) * _contact_shadow(relief, unit)
    scene = _mix(_mix(head, background, outside), skin, relief.ear)
    scene = add_stud(scene, ear, rng)
    loose = hair.over * (1 - outside)  # over the ear, with its shadow
    scene = _mix(scene * (1 - 0.6 * blur(loose, 0.02 * unit)), hair.colour, loose)
    return scene * _exposure(skin, relief)


def _mix(under: Array, over: Array, opacity: Array) -> Array:
    mixed = over - under
    mixed *= opacity
    mixed += under
    return mixed


def _lit_skin(
    relief: Relief, light: Light, albedo: Array, ambient: np.float32, flush: np.float32
) -> Array:
    """Skin under the light: redder in the thin rim and in the hollows, dark in the canal."""
    blood = flush * (0.12 * relief.rim + 0.18 * relief.concha)
    open_sky = light.openness * (1 - 0.92 * relief.canal)
    received = (1 - ambient) * light.diffuse + ambient
    received *= open_sky
    received *= albedo
    received *= 1 - blood * planes(0.15, 1.0, 0.9)
    received += 0.05 * light.gloss * open_sky
    return received


def _exposure(skin: Array, relief: Relief) -> np.float32:
    """Automatic exposure: dark skin comes out brighter than it is, light skin darker."""
    brightness = (skin[1] * relief.ear).sum() / relief.ear.sum()
    return np.float32((0.24 / (brightness + 0.02)) ** 0.42)


def _contact_shadow(relief: Relief, unit: float) -> Array:
    """The ear stands off the head at the back and shades it there, not in front where it joins it."""
    close, wide = blur(relief.ear, 0.012 * unit), blur(relief.ear, 0.05 * unit)
    lowered = np.array([[1, 0, 0], [0, 1, 0.025 * unit]], np.float32)
    wide = cv2.warpAffine(wide, lowered, wide.shape, borderMode=cv2.BORDER_REPLICATE)
    return 1 - (0.6 * wide + 0.32 * close) * (1 - 0.95 * relief.front)


def _photograph(scene: Array, rng: np.random.Generator) -> Array:
    """Photograph the scene: exposure, white balance, focus and noise; the gamma is 2."""
    size = scene.shape[-1]
    exposure, warmth = np.exp(rng.normal(0.05, 0.22)), rng.normal(0.03, 0.045)
    unsharpness = rng.choice([0.0, 0.0, 0.004, 0.009])
    taken = scene * planes(exposure * (1 + warmth), exposure, exposure * (1 - warmth))
    np.sqrt(np.clip(taken, 0, 1.2, out=taken), out=taken)
    picture: Array = cv2.merge(list(taken))
    if unsharpness:
        picture = blur(picture, unsharpness * size)
    grain = noise(rng, 128, size) * np.float32(rng.uniform(0.003, 0.009))
    return cv2.add(picture, cv2.merge([grain, grain, grain]))
