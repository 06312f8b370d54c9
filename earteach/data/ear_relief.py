"""The height field of an ear and how light falls on it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from earteach.data.ear_anatomy import Array, Ear, spline


@dataclass(frozen=True)
class Relief:
    """Maps of the crop, (size, size) each; heights in pixels, masks in [0, 1]."""

    height: Array
    ear: Array  # inside the outline, sharp behind and dissolving into the cheek in front
    concha: Array
    canal: Array
    rim: Array  # the thin helix and lobe, through which light shines


@dataclass(frozen=True)
class Light:
    """What the skin receives: diffuse light per colour channel, openness, and gloss."""

    diffuse: Array  # (3, size, size)
    openness: Array
    gloss: Array


def noise(rng: np.random.Generator, cells: int, size: int) -> Array:
    """Smooth noise of about unit variance with `cells` cells along each side."""
    coarse = rng.standard_normal((cells, cells), np.float32)
    flags = cv2.INTER_CUBIC if cells < size else cv2.INTER_AREA
    smooth: Array = cv2.resize(coarse, (size, size), interpolation=flags)
    return smooth


def blur(image: Array, sigma: float) -> Array:
    blurred: Array = cv2.GaussianBlur(image, (0, 0), max(sigma, 0.3))
    return blurred


def smoothstep(value: Array) -> Array:
    t = np.clip(value, 0, 1)
    stepped: Array = t * t * (3 - 2 * t)
    return stepped


def filled(outline: Array, size: int) -> Array:
    """Antialiased mask of a closed outline given in fractions of the crop."""
    mask = np.zeros((size, size), np.uint8)
    corners = np.round((outline * size - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, 4)
    return mask.astype(np.float32) / 255


def ridge(
    crest: Array, half_width: Array, rise: Array, size: int, *, rolled: bool = False
) -> Array:
    """A ridge along a curve, whose width and rise vary between the curve's controls.

    A rolled ridge ends in a crease, others run out smoothly.
    """
    count = 2 * size
    samples = spline(np.column_stack([crest, half_width, rise]), count)
    x, y, width, top = (samples * (size, size, size, 1)).astype(np.float32).T
    x, y = x - 0.5, y - 0.5
    nearest = _nearest_sample(x, y, size)
    rows, columns = np.indices((size, size), np.float32)
    squared = (columns - x[nearest]) ** 2 + (rows - y[nearest]) ** 2
    profile = np.clip(1 - squared / (width * width)[nearest], 0, None)
    if not rolled:
        profile *= profile
    raised: Array = top[nearest] * profile
    return raised


def _nearest_sample(x: Array, y: Array, size: int) -> np.ndarray:
    """For every pixel, the index of the curve sample nearest to it."""
    column = np.clip(np.rint(x), 0, size - 1).astype(int)
    row = np.clip(np.rint(y), 0, size - 1).astype(int)
    away = np.ones((size, size), np.uint8)
    away[row, column] = 0
    _, labels = cv2.distanceTransformWithLabels(
        away, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    sample_of_label = np.zeros(len(x) + 1, np.int32)
    sample_of_label[labels[row, column]] = np.arange(len(x))
    return sample_of_label[labels]


def raise_relief(ear: Ear, rng: np.random.Generator, size: int) -> Relief:
    """Build the ear's height field and the masks of its parts at this resolution."""
    unit = ear.height * size
    depth = rng.uniform((0.75, 0.55, 0.7, 0.7, 0.6, 0.75), (1.25, 1.35, 1.3, 1.4, 1.4, 1.3))
    outline = _ear_mask(ear, size)
    concha = filled(spline(ear.concha, 90), size)
    rim_count = len(ear.helix)
    helix = ridge(ear.helix, ear.helix_half_width * 1.12, _helix_rise(rim_count, rng), size,
                  rolled=True)  # fmt: skip
    antihelix = ridge(
        ear.antihelix_crest, _scaled(ear, 0.055, 0.075, 0.090, 0.088, 0.082, 0.084, 0.092, 0.098,
        0.10), np.array([0.4, 0.8, 1, 1, 1, 1, 0.85, 0.55, 0.1], np.float32), size)  # fmt: skip
    inferior = ridge(ear.inferior_crus, _scaled(ear, 0.070, 0.062, 0.052, 0.046),
                     np.array([0.6, 0.8, 0.75, 0.3], np.float32), size)  # fmt: skip
    tragus = ridge(ear.tragus, _scaled(ear, 0.045, 0.065, 0.075, 0.045),
                   np.array([0.3, 0.9, 1.0, 0.2], np.float32), size)  # fmt: skip
    antitragus = ridge(ear.antitragus, _scaled(ear, 0.04, 0.060, 0.055),
                       np.array([0.4, 1.0, 0.5], np.float32), size)  # fmt: skip
    lobe = _mound(ear.lobe[0], 0.13 * ear.height, size)
    plate = blur(outline * (1 - frontness(ear, size)), 0.016 * unit)
    hollow = blur(concha, 0.012 * unit) * 0.6 + blur(concha, 0.03 * unit) * 0.4
    height = (
        0.056 * depth[0] * helix
        + 0.052 * depth[1] * np.maximum(antihelix, inferior)
        + 0.065 * depth[2] * tragus * (1 - 0.6 * concha)
        + 0.036 * depth[3] * antitragus
        + 0.022 * depth[4] * lobe
        + 0.050 * plate
        + 0.005 * noise(rng, 6, size)
        + 0.0016 * noise(rng, 18, size)
        - 0.100 * depth[5] * hollow * (1 - 0.4 * helix)
    )
    rim = np.clip(helix + 0.5 * lobe, 0, 1) * (1 - concha)
    smooth = blur((height * unit).astype(np.float32), 0.007 * unit)
    return Relief(smooth, outline, concha, _canal(ear, concha, size), rim.astype(np.float32))


def _scaled(ear: Ear, *widths: float) -> Array:
    return np.array(widths, np.float32) * np.float32(ear.height)


def _helix_rise(count: int, rng: np.random.Generator) -> Array:
    """Low in the concha, full and uneven round the top, fading where the lobe begins."""
    rise = spline(rng.uniform(0.65, 1.15, (6, 1)).astype(np.float32), count).ravel()
    rise[:4] *= 0.03, 0.25, 0.6, 0.85
    rise[-4:] *= 0.9, 0.7, 0.4, 0.1
    return rise


def _mound(centre: Array, radius: float, size: int) -> Array:
    rows, columns = np.indices((size, size), np.float32)
    x, y = centre * size - 0.5
    mound: Array = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / np.float32(radius * size) ** 2)
    return mound


def _ear_mask(ear: Ear, size: int) -> Array:
    closed = np.concatenate([spline(ear.outer, 120), ear.attachment])
    sharp = filled(closed, size)
    soft = blur(sharp, 0.022 * ear.height * size)
    front = frontness(ear, size)
    mask: Array = sharp + (soft - sharp) * front
    return mask


def frontness(ear: Ear, size: int) -> Array:
    """0 on the ear and behind it, rising to 1 in front of the line where it joins the head."""
    root, foot = ear.outer[0], ear.outer[-1]
    along = (foot - root) / np.hypot(*(foot - root))
    across = np.array([along[1], -along[0]], np.float32)
    across *= np.sign(across @ (root - ear.outer[8]))
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    distance = (axis[None] - root[0]) * across[0] + (axis[:, None] - root[1]) * across[1]
    return smoothstep(distance / np.float32(0.13 * ear.height) + 0.75)


def _canal(ear: Ear, concha: Array, size: int) -> Array:
    """The dark mouth of the ear canal; the edge of the tragus cuts it off."""
    spots = [_mound(point, 0.030 * ear.height, size) for point in ear.canal]
    dark: Array = np.clip(spots[0] + 0.8 * spots[1] + 0.5 * spots[2], 0, 1) * concha
    return blur(dark, 0.006 * ear.height * size)


def cast_light(relief: Relief, rng: np.random.Generator, unit: float) -> Light:
    """One key light, mostly from above, with sky light that the hollows see less of."""
    azimuth = rng.normal(-np.pi / 2, 0.75)
    elevation = np.radians(rng.uniform(34, 66))
    key = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation),
                    np.sin(elevation)], np.float32)  # fmt: skip
    hardness = np.float32(rng.uniform(0.35, 1.0))
    height = relief.height
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.125)
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.125)
    length = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
    facing = (key[2] - key[0] * slope_x - key[1] * slope_y) * length
    lit = 1 - hardness * _shadow(height, key, unit)
    # Light that enters skin leaves it redder and further on: red wraps round further.
    wrap = np.array([0.45, 0.25, 0.18], np.float32)[:, None, None]
    diffuse = np.maximum((facing + wrap) * (1 / (1 + wrap)), 0) * lit
    half = key + (0, 0, 1)
    half = half / np.linalg.norm(half)
    glint = np.clip((half[2] - half[0] * slope_x - half[1] * slope_y) * length, 0, 1)
    glint *= glint
    glint *= glint
    return Light(diffuse, _openness(height, unit), glint**3 * lit)


def _shadow(height: Array, key: Array, unit: float) -> Array:
    """How much of the key light the relief on its way blocks."""
    steps = np.array([0.02, 0.04, 0.07, 0.11]) * unit
    climb = key[2] / np.hypot(key[0], key[1])
    blocked = np.zeros_like(height)
    for step in steps:
        shift = np.array([[1, 0, key[0] * step], [0, 1, key[1] * step]], np.float32)
        towards = cv2.warpAffine(
            height, shift, height.shape, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        np.maximum(blocked, towards - height - climb * step, out=blocked)
    return blur(smoothstep(blocked / np.float32(0.025 * unit)), 0.008 * unit)


def _openness(height: Array, unit: float) -> Array:
    """How much of the sky a point sees: hollows lie below their surroundings, ridges above."""
    near = blur(height, 0.03 * unit) - height
    far = blur(height, 0.09 * unit) - height
    return np.clip(1 - (14 * near + 7.5 * far) / np.float32(unit), 0.25, 1.25).astype(np.float32)
