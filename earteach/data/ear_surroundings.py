"""What is round a drawn ear, and its colours: skin, hair and background.

Colours are linear light here, in [0, 1]; textures come from noise of a fixed grid, so that a
scene looks the same at every resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from earteach.data.ear_anatomy import Array, Ear
from earteach.data.ear_relief import noise, smoothstep

# From the lightest to the darkest skin, sRGB.
SKIN_TONES = np.array([
    (250, 219, 203), (241, 200, 176), (226, 176, 145), (200, 145, 110), (166, 112, 80),
    (122, 78, 55), (86, 54, 40), (58, 38, 31),
], np.float32) / 255  # fmt: skip
# Black, dark brown, brown, light brown, blond, red, gray, white; the darker are commoner.
HAIR_COLOURS = np.array([
    (24, 20, 19), (48, 33, 25), (82, 56, 38), (125, 90, 60), (178, 140, 95), (140, 66, 34),
    (130, 126, 122), (188, 184, 178),
], np.float32) / 255  # fmt: skip
HAIR_SHARES = (0.33, 0.2, 0.15, 0.08, 0.08, 0.05, 0.07, 0.04)
DARK_SKIN = 0.55
"""Beyond this place on the scale of skin tones, hair is black, brown or gray."""


def planes(red: float, green: float, blue: float) -> Array:
    """One number per colour channel, shaped to meet planes (3, size, size)."""
    return np.array([red, green, blue], np.float32)[:, None, None]


def draw_skin(rng: np.random.Generator, size: int) -> tuple[float, Array]:
    """The tone's place on the scale, 0 lightest to 1 darkest, and the skin's own colour."""
    place = rng.uniform(0.0, 1.0)
    tone = interpolate(SKIN_TONES, place) * rng.normal(1.0, (0.02, 0.025, 0.035))
    blotches = noise(rng, 6, size) * 0.04 + noise(rng, 24, size) * 0.025
    grain = noise(rng, 96, size) * 0.022
    freckles = np.clip(noise(rng, 40, size) - rng.uniform(1.4, 4.0), 0, 0.8) * 0.3
    # Blood shows in green and blue, pigment in blue most.
    texture = blotches * planes(0.35, 0.9, 0.7) + (grain - freckles) * planes(0.8, 1.0, 1.2)
    albedo = np.clip(planes(*tone) * (1 + texture), 0.01, 1)
    albedo *= albedo
    return place, albedo


def interpolate(colours: Array, place: float) -> Array:
    position = place * (len(colours) - 1)
    below = min(int(position), len(colours) - 2)
    mixed: Array = colours[below] + (colours[below + 1] - colours[below]) * (position - below)
    return mixed


def canonical_grid(ear: Ear, size: int) -> tuple[Array, Array]:
    """For every pixel, where it lies in the ear's own frame: x towards the face, y down."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    (a, b, c), (d, e, f) = ear.to_canonical
    return a * axis[None] + b * axis[:, None] + c, d * axis[None] + e * axis[:, None] + f


def turn_away(grid: tuple[Array, Array], rng: np.random.Generator) -> Array:
    """The head is round: the nape behind the ear and the neck under the jaw lie darker."""
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


def draw_hair(
    rng: np.random.Generator, skin_place: float, grid: tuple[Array, Array], size: int
) -> Hair:
    """Combed back over the ear and down behind it, or cut short above the neck."""
    x, y = grid
    strands = _strands(rng, x, y)
    long, cover = rng.uniform(0.0, 1.0) < 0.5, rng.uniform(0.0, 1.0) < 0.15
    fuzz = np.float32(0.025) * strands
    behind = np.maximum(_hairline(rng, x, long) - y, _back(rng, x) if long else -1) + fuzz
    shaved = np.float32(1 - 0.75 * (rng.uniform(0.0, 1.0) < 0.15))
    softness = np.float32(rng.uniform(0.08, 0.24))
    reach = rng.uniform(-0.47, -0.34) if cover else -0.9
    over = np.float32(reach) + np.float32(0.25) * (x - np.float32(0.1)) - y + 3 * fuzz
    return Hair(
        _hair_colour(rng, skin_place) * _sheen(rng, strands, y),
        smoothstep(behind / softness + 0.5) * shaved,
        smoothstep(over / np.float32(0.06) + 0.3) * shaved,
    )


def _hairline(rng: np.random.Generator, x: Array, long: bool) -> Array:
    """Where the hair above ends, from the nape over the ear to sideburn and temple."""
    sideburn, temple, gap = rng.uniform((-0.4, -0.6, 0.0), (0.15, -0.2, 0.12))
    nape = 0.6 if long else rng.uniform(0.1, 0.5)
    where = (-0.9, -0.40, -0.22, 0.05, 0.22, 0.30, 0.42, 0.58, 0.9)
    ends = (nape, nape, nape - 0.25, -0.36 - gap, -0.34 - gap, sideburn - 0.04, sideburn,
            temple, temple - 0.15)  # fmt: skip
    along = np.linspace(-1.2, 1.2, 97)
    kinked = np.interp(along, where, ends).astype(np.float32)
    line: Array = np.interp(x, along, cv2.GaussianBlur(kinked, (1, 9), 0).ravel())
    return line.astype(np.float32)


def _back(rng: np.random.Generator, x: Array) -> Array:
    return np.float32(rng.uniform(-0.25, 0.05)) - x


def _strands(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """Strands that run round the ear: fine noise across them, slow along them."""
    centre_x, centre_y = rng.uniform((-0.05, -0.15), (0.18, 0.25))
    dx, dy = x - np.float32(centre_x), y - np.float32(centre_y)
    radius = np.sqrt(dx * dx + dy * dy)
    # The seam of the angle points down into the face, where no hair grows.
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


def _hair_colour(rng: np.random.Generator, skin_place: float) -> Array:
    shares = np.array(HAIR_SHARES)
    if skin_place > DARK_SKIN:
        shares = shares * (1, 0.8, 0.2, 0, 0, 0, 1, 0.7)
    colour = HAIR_COLOURS[rng.choice(len(shares), p=shares / shares.sum())]
    brightness, warmth = rng.normal((1.0, 0.0), (0.12, 0.03))
    red, green, blue = colour * brightness * (1 + warmth, 1.0, 1 - warmth)
    return planes(red, green, blue) ** 2


def draw_background(
    rng: np.random.Generator, grid: tuple[Array, Array], size: int
) -> tuple[Array, Array]:
    """A wall or an unsharp room, and how much of it shows behind the head."""
    base = rng.uniform(0.1, 0.9) + rng.normal(0.0, 0.05, (1, 1, 3))
    blobs = rng.standard_normal((5, 5, 1)) + 0.25 * rng.standard_normal((5, 5, 3))
    room = np.clip(base + blobs * rng.choice([0.02, 0.12]), 0.02, 1).astype(np.float32)
    picture = np.stack(cv2.split(cv2.resize(room, (size, size), interpolation=cv2.INTER_CUBIC)))
    shown = rng.uniform(0.0, 1.0) < 0.4
    x, y = grid
    edge, slope, curve = rng.uniform((-0.28, -0.15, 0.1), (0.12, 0.25, 0.6)).astype(np.float32)
    outside = (edge - slope * y - curve * y * y - x) / np.float32(0.03)
    return np.clip(picture, 0.02, 1) ** 2, smoothstep(outside) * np.float32(shown)
