"""Skin, hair, background and jewellery of a drawn ear.

Colours are linear light in [0, 1]. Textures come from noise on a grid of fixed size, so that a scene
looks the same at every resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from earteach.synthetic.anatomy import Array, Ear
from earteach.synthetic.relief import noise, smoothstep

# From the lightest to the darkest skin, sRGB.
SKIN_TONES = np.array([
    (248, 218, 196), (240, 200, 171), (226, 176, 145), (200, 145, 110), (166, 112, 80),
    (122, 78, 55), (86, 54, 40), (58, 38, 31),
], np.float32) / 255  # fmt: skip
# Black, dark brown, brown, light brown, blond, red, gray, white; darker ones are more common.
HAIR_COLOURS = np.array([
    (24, 20, 19), (48, 33, 25), (82, 56, 38), (125, 90, 60), (178, 140, 95), (140, 66, 34),
    (130, 126, 122), (188, 184, 178),
], np.float32) / 255  # fmt: skip
HAIR_SHARES = (0.33, 0.21, 0.16, 0.09, 0.09, 0.05, 0.05, 0.02)
# Pearl, gold, silver, jet, sRGB.
STUD_COLOURS = np.array([
    (236, 230, 220), (214, 170, 84), (196, 198, 204), (40, 38, 44),
], np.float32) / 255  # fmt: skip
STUD_SHARE = 0.12
FULL_FRAME_SHARE = 0.6
"""Share of images in which the head fills the frame."""
DARK_SKIN = 0.55
"""Beyond this skin tone, hair is black, brown or gray."""


def planes(red: float, green: float, blue: float) -> Array:
    """One number per colour channel, shaped to broadcast with planes (3, size, size)."""
    return np.array([red, green, blue], np.float32)[:, None, None]


def draw_skin(rng: np.random.Generator, size: int) -> tuple[float, Array]:
    """The skin tone, from 0 for the lightest to 1 for the darkest, and the albedo."""
    tone = rng.uniform(0.0, 1.0)
    colour = interpolate(SKIN_TONES, tone) * rng.normal(1.0, (0.02, 0.025, 0.035))
    blotches = noise(rng, 6, size) * 0.04 + noise(rng, 24, size) * 0.025
    grain = noise(rng, 96, size) * 0.022
    freckles = np.clip(noise(rng, 64, size) - rng.uniform(1.7, 5.0), 0, 0.8) * 0.26
    # Blood shows in green and blue, pigment in blue most.
    texture = blotches * planes(0.35, 0.9, 0.7) + (grain - freckles) * planes(0.8, 1.0, 1.2)
    albedo = np.clip(planes(*colour) * (1 + texture), 0.01, 1)
    albedo *= albedo
    return tone, albedo


def interpolate(colours: np.ndarray, tone: float) -> np.ndarray:
    position = tone * (len(colours) - 1)
    below = min(int(position), len(colours) - 2)
    return colours[below] + (colours[below + 1] - colours[below]) * (position - below)


def canonical_grid(ear: Ear, size: int) -> tuple[Array, Array]:
    """The position of every pixel in the anatomical frame: x towards the face, y down."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    (a, b, c), (d, e, f) = ear.to_canonical
    return a * axis[None] + b * axis[:, None] + c, d * axis[None] + e * axis[:, None] + f


def head_shading(grid: tuple[Array, Array], rng: np.random.Generator) -> Array:
    """The head is round: the nape behind the ear and the neck under the jaw are darker."""
    x, y = grid
    nape, neck, slope = rng.uniform((0.15, 0.1, -0.1), (0.5, 0.55, 0.5))
    behind = smoothstep((np.float32(0.1) - x) / np.float32(0.55))
    below = smoothstep((y - np.float32(0.42) - np.float32(slope) * (x - 0.2)) / np.float32(0.2))
    return (1 - np.float32(nape) * behind) * (1 - np.float32(neck) * below)


@dataclass(frozen=True)
class Hair:
    colour: Array  # (3, size, size)
    behind: Array  # opacity on the head
    over: Array  # opacity in front of the ear


def draw_hair(rng: np.random.Generator, skin_tone: float, grid: tuple[Array, Array]) -> Hair:
    """Combed back over the ear and down behind it, or cut short above the neck."""
    x, y = grid
    strands = _strands(rng, x, y)
    is_long, is_shaved = rng.uniform(0.0, 1.0, 2) < (0.5, 0.15)
    density = np.float32(0.25 if is_shaved else 1.0)
    return Hair(
        _hair_colour(rng, skin_tone) * _sheen(rng, strands, y),
        density * _hair_behind(rng, strands, x, y, bool(is_long)),
        density * _hair_over(rng, strands, x, y),
    )


def _hair_behind(
    rng: np.random.Generator, strands: Array, x: Array, y: Array, is_long: bool
) -> Array:
    above = _hairline(rng, x, is_long) - y
    if is_long:
        above = np.maximum(above, np.float32(rng.uniform(-0.25, 0.05)) - x)
    softness = np.float32(rng.uniform(0.08, 0.24))
    return smoothstep((above + np.float32(0.025) * strands) / softness + 0.5)


def _hair_over(rng: np.random.Generator, strands: Array, x: Array, y: Array) -> Array:
    """Sometimes a fringe covers the top of the ear."""
    falls = rng.uniform(0.0, 1.0) < 0.15
    reach = np.float32(rng.uniform(-0.49, -0.36) if falls else -0.9)
    frayed = np.float32(0.05) * np.clip(strands, -1.2, 1.6)
    return smoothstep((reach + 0.25 * (x - 0.1) - y + frayed) / np.float32(0.06) + 0.3)


def _hairline(rng: np.random.Generator, x: Array, is_long: bool) -> Array:
    """The lower edge of the hair, from the nape over the ear to sideburn and temple."""
    sideburn, temple, gap = rng.uniform((-0.4, -0.6, -0.02), (0.15, -0.2, 0.05))
    nape = 0.6 if is_long else rng.uniform(0.1, 0.5)
    where = (-0.9, -0.40, -0.22, 0.05, 0.15, 0.24, 0.42, 0.58, 0.9)
    ends = (nape, nape, nape - 0.25, -0.36 - gap, -0.36 - gap, sideburn - 0.06, sideburn,
            temple, temple - 0.15)  # fmt: skip
    along = np.linspace(-1.2, 1.2, 97)
    kinked = np.interp(along, where, ends).astype(np.float32)
    line: Array = np.interp(x, along, cv2.GaussianBlur(kinked, (1, 9), 0).ravel())
    return line.astype(np.float32)


def _strands(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """Strands around the ear: noise that varies fast across them and slowly along them."""
    centre_x, centre_y = rng.uniform((-0.05, -0.15), (0.18, 0.25))
    dx, dy = x - np.float32(centre_x), y - np.float32(centre_y)
    radius = np.sqrt(dx * dx + dy * dy)
    # The angle wraps around in the face, where no hair grows.
    angle = np.arctan2(dx - dy, -dx - dy)
    wave, frequency = rng.uniform((0.0, 3.0), (0.025, 11.0))
    across = radius + np.float32(wave) * np.sin(angle * np.float32(frequency) + 9 * radius)
    tile = rng.standard_normal((160, 12), np.float32)
    tile += 0.9 * cv2.resize(rng.standard_normal((40, 6), np.float32), (12, 160))
    return cv2.remap(
        tile, ((angle + np.float32(np.pi)) * np.float32(2.4)), across * np.float32(115),
        cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT,
    )  # fmt: skip


def _sheen(rng: np.random.Generator, strands: Array, y: Array) -> Array:
    band = np.float32(rng.uniform(-0.6, 0.3))
    shine = np.float32(rng.uniform(0.1, 0.7)) * np.exp(-(((y - band) / 0.16) ** 2))
    return np.clip(0.78 + 0.3 * strands, 0.15, 2.0) * (1 + shine)


def _hair_colour(rng: np.random.Generator, skin_tone: float) -> Array:
    shares = np.array(HAIR_SHARES)
    if skin_tone > DARK_SKIN:
        shares = shares * (1, 0.6, 0.1, 0, 0, 0, 0.7, 0.4)
    colour = HAIR_COLOURS[rng.choice(len(shares), p=shares / shares.sum())]
    brightness, warmth = rng.normal((1.0, 0.0), (0.12, 0.03))
    red, green, blue = colour * brightness * (1 + warmth, 1.0, 1 - warmth)
    return np.square(planes(red, green, blue))


def draw_background(rng: np.random.Generator, grid: tuple[Array, Array]) -> tuple[Array, Array]:
    """A wall or a blurred room, and its opacity: in most images the head hides it."""
    x, y = grid
    if rng.uniform(0.0, 1.0) < FULL_FRAME_SHARE:
        return planes(0, 0, 0), np.zeros_like(x)
    base = rng.uniform(0.1, 0.78) + rng.normal(0.0, 0.05, (1, 1, 3))
    blobs = rng.standard_normal((5, 5, 1)) + 0.25 * rng.standard_normal((5, 5, 3))
    room = np.clip(base + blobs * rng.choice([0.02, 0.12]), 0.02, 1).astype(np.float32)
    picture = np.stack(cv2.split(cv2.resize(room, x.shape, interpolation=cv2.INTER_CUBIC)))
    edge, slope, curve = rng.uniform((-0.28, -0.15, 0.1), (0.12, 0.25, 0.6)).astype(np.float32)
    outside = (edge - slope * y - curve * y * y - x) / np.float32(0.03)
    return np.square(np.clip(picture, 0.02, 1)), smoothstep(outside)


def add_stud(scene: Array, ear: Ear, rng: np.random.Generator) -> Array:
    """Put a pearl or a metal stud in the lobe of some ears."""
    worn = rng.uniform(0.0, 1.0) < STUD_SHARE
    colour = planes(*rng.choice(STUD_COLOURS)) ** 2
    radius = np.float32(rng.uniform(0.022, 0.042) * ear.height)
    if not worn:
        return scene
    axis = (np.arange(scene.shape[-1], dtype=np.float32) + 0.5) / scene.shape[-1]
    ((lobe_x, lobe_y),) = ear.curves["lobe"]
    x, y = (axis[None] - lobe_x) / radius, (axis[:, None] - lobe_y) / radius
    inside = np.clip((1 - np.hypot(x, y)) * 6 + 0.5, 0, 1)
    facing = np.sqrt(np.clip(1 - x * x - y * y, 0, 1))
    glint = np.exp(-((x + 0.3) ** 2 + (y + 0.4) ** 2) / np.float32(0.06))
    stud = colour * (0.25 + 0.75 * facing * (1 - 0.3 * y)) + glint
    shadow = 1 - 0.5 * np.exp(-(x * x + (y - 0.5) ** 2) / np.float32(1.8))
    return scene * shadow * (1 - inside) + stud * inside
