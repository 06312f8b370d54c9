"""The height field of an ear, and the light on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from earteach.synthetic.anatomy import Array, Ear, spline


class Fold(NamedTuple):
    """Half width, in heights of the ear, and relative rise at each control of a crest."""

    half_widths: tuple[float, ...]
    rises: tuple[float, ...]


ANTIHELIX_FOLD = Fold(
    (0.055, 0.075, 0.090, 0.088, 0.082, 0.084, 0.092, 0.098, 0.100),
    (0.4, 0.8, 1.0, 1.0, 1.0, 1.0, 0.85, 0.55, 0.1),
)
INFERIOR_CRUS_FOLD = Fold((0.070, 0.064, 0.058, 0.050), (0.8, 1.0, 0.9, 0.3))
TRAGUS_FOLD = Fold((0.045, 0.065, 0.075, 0.045), (0.3, 0.9, 1.0, 0.2))
ANTITRAGUS_FOLD = Fold((0.040, 0.060, 0.055), (0.4, 1.0, 0.5))


@dataclass(frozen=True)
class Relief:
    """Maps of the crop, (size, size) each; heights in pixels, masks in [0, 1]."""

    height: Array
    ear: Array  # inside the outline, sharp behind and dissolving into the cheek in front
    front: Array  # in front of the line where the ear joins the head
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
    return cv2.resize(coarse, (size, size), interpolation=flags)


def blur(image: Array, sigma: float) -> Array:
    """Gaussian blur; a wide one works on a shrunken image, where it costs a fraction."""
    shrink = int(sigma / 3)
    if shrink < 2:
        return cv2.GaussianBlur(image, (0, 0), max(sigma, 0.3))
    height, width = image.shape[:2]
    small = cv2.resize(image, (width // shrink, height // shrink), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma * small.shape[1] / width)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def smoothstep(value: np.ndarray) -> Array:
    t = np.minimum(np.maximum(value, np.float32(0)), np.float32(1))
    return t * t * (3 - 2 * t)


def filled(outline: Array, size: int) -> Array:
    """Antialiased mask of a closed outline given in fractions of the crop."""
    mask = np.zeros((size, size), np.uint8)
    corners = np.round((outline * size - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, 4)
    return mask.astype(np.float32) / np.float32(255)


def ridge(
    crest: Array, half_width: Array, rise: Array, size: int, *, rolled: bool = False
) -> Array:
    """A ridge along a curve, whose width and rise vary between the curve's controls.

    A rolled ridge ends in a crease, others run out smoothly.
    """
    samples = spline(np.column_stack([crest, half_width, rise]), 2 * size)
    x, y, width, top = (samples * np.array([size, size, size, 1], np.float32)).T
    x, y = x - 0.5, y - 0.5
    columns, rows = _reach(x, width.max(), size), _reach(y, width.max(), size)
    nearest = _nearest_sample(x, y, columns, rows)
    squared = np.square(columns - x[nearest]) + np.square(rows[:, None] - y[nearest])
    profile = np.maximum(1 - squared / np.square(width)[nearest], 0)
    if not rolled:
        profile *= profile
    raised = np.zeros((size, size), np.float32)
    raised[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1] = (
        top[nearest] * profile
    )
    return raised


def _reach(along: Array, width: float, size: int) -> Array:
    """The rows or columns that a ridge can reach."""
    first = min(max(0, int(along.min() - width)), size - 1)
    last = min(size, int(along.max() + width) + 2)
    return np.arange(first, last, dtype=np.float32)


def _nearest_sample(x: Array, y: Array, columns: Array, rows: Array) -> np.ndarray:
    """For every pixel of these columns and rows, the index of the nearest curve sample."""
    column = np.clip(np.rint(x - columns[0]), 0, len(columns) - 1).astype(int)
    row = np.clip(np.rint(y - rows[0]), 0, len(rows) - 1).astype(int)
    away = np.ones((len(rows), len(columns)), np.uint8)
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
    front = frontness(ear, size)
    outline = _ear_mask(ear, front, size)
    concha = filled(spline(ear.curves["concha"], 90), size)
    helix = ridge(ear.helix, ear.helix_half_width * 1.12, _helix_rise(len(ear.helix), rng), size,
                  rolled=True)  # fmt: skip
    lobe = _mound(ear.curves["lobe"][0], 0.13 * ear.height, size)
    height = _folds(ear, rng, concha, size)
    depth_helix, depth_lobe, depth_concha = rng.uniform((0.75, 0.6, 0.75), (1.25, 1.4, 1.3))
    hollow = blur(concha, 0.012 * unit) * 0.6 + blur(concha, 0.03 * unit) * 0.4
    height += np.float32(0.056 * depth_helix) * helix
    height += np.float32(0.022 * depth_lobe) * lobe
    height += 0.05 * blur(outline * (1 - front), 0.016 * unit)
    height += 0.005 * noise(rng, 6, size) + 0.0016 * noise(rng, 18, size)
    height -= np.float32(0.1 * depth_concha) * hollow * (1 - 0.4 * helix)
    rim = np.clip(helix + 0.5 * lobe, 0, 1) * (1 - concha)
    canal = _canal(ear, concha, size)
    return Relief(blur(height * unit, 0.007 * unit), outline, front, concha, canal, rim)


def _folds(ear: Ear, rng: np.random.Generator, concha: Array, size: int) -> Array:
    """Antihelix with its two crura, tragus and antitragus, each of random prominence."""
    antihelix, inferior, tragus, antitragus = rng.uniform(
        (0.55, 0.35, 0.7, 0.7), (1.35, 1.1, 1.3, 1.4)
    ).astype(np.float32)
    crus = _fold(ear.curves["inferior_crus"], INFERIOR_CRUS_FOLD, ear.height, size)
    fork = np.maximum(
        antihelix * _fold(ear.antihelix_crest, ANTIHELIX_FOLD, ear.height, size),
        antihelix * inferior * crus,
    )
    flap = tragus * _fold(ear.curves["tragus"], TRAGUS_FOLD, ear.height, size) * (1 - 0.6 * concha)
    bump = antitragus * _fold(ear.curves["antitragus"], ANTITRAGUS_FOLD, ear.height, size)
    return 0.052 * fork + 0.065 * flap + 0.036 * bump


def _fold(crest: Array, fold: Fold, height: float, size: int) -> Array:
    half_widths = np.array(fold.half_widths, np.float32) * np.float32(height)
    return ridge(crest, half_widths, np.array(fold.rises, np.float32), size)


def _helix_rise(count: int, rng: np.random.Generator) -> Array:
    """Low in the concha, full and uneven round the top, fading where the lobe begins."""
    rise = spline(rng.uniform(0.65, 1.15, (6, 1)).astype(np.float32), count).ravel()
    rise[:4] *= 0.03, 0.25, 0.6, 0.85
    rise[-4:] *= 0.9, 0.7, 0.4, 0.1
    return rise


def _mound(centre: Array, radius: float, size: int) -> Array:
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    across, down = (np.exp(-np.square((axis - middle) / np.float32(radius))) for middle in centre)
    return np.outer(down, across)


def _ear_mask(ear: Ear, front: Array, size: int) -> Array:
    closed = np.concatenate([spline(ear.curves["outer"], 120), ear.curves["attachment"]])
    sharp = filled(closed, size)
    soft = blur(sharp, 0.022 * ear.height * size)
    return sharp + (soft - sharp) * front


def frontness(ear: Ear, size: int) -> Array:
    """0 on the ear and behind it, rising to 1 in front of the line where it joins the head."""
    root, foot = ear.curves["outer"][0], ear.curves["outer"][-1]
    along = (foot - root) / np.hypot(*(foot - root))
    across = np.array([along[1], -along[0]], np.float32)
    across *= np.sign(across @ (root - ear.curves["outer"][8]))
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    distance = (axis[None] - root[0]) * across[0] + (axis[:, None] - root[1]) * across[1]
    return smoothstep(distance / np.float32(0.13 * ear.height) + 0.75)


def _canal(ear: Ear, concha: Array, size: int) -> Array:
    """The dark mouth of the ear canal; the edge of the tragus cuts it off."""
    spots = [_mound(point, 0.030 * ear.height, size) for point in ear.curves["canal"]]
    dark = np.clip(spots[0] + 0.8 * spots[1] + 0.5 * spots[2], 0, 1) * concha
    return blur(dark, 0.006 * ear.height * size)


def cast_light(relief: Relief, rng: np.random.Generator, unit: float) -> Light:
    """One key light, mostly from above, and sky light, of which hollows get less."""
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
    # Light scatters in the skin before it leaves, red light furthest: red wraps around more.
    wrap = np.array([0.45, 0.25, 0.18], np.float32)[:, None, None]
    diffuse = np.maximum((facing + wrap) * (1 / (1 + wrap)), 0) * lit
    half = key + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    glint = np.clip((half[2] - half[0] * slope_x - half[1] * slope_y) * length, 0, 1)
    glint *= glint
    glint *= glint
    oily = np.maximum(0.8 + 0.25 * noise(rng, 14, len(height)), 0)
    return Light(diffuse, _openness(height, unit), glint**5 * oily * lit)


def _shadow(height: Array, key: Array, unit: float) -> Array:
    """How much of the key light is blocked by the relief."""
    steps = np.array([0.02, 0.04, 0.07, 0.11], np.float32) * np.float32(unit)
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
    """How much sky light reaches a point: hollows lie below their surroundings, ridges above."""
    near = blur(height, 0.03 * unit) - height
    far = blur(height, 0.09 * unit) - height
    return np.clip(1 - (14 * near + 7.5 * far) / np.float32(unit), 0.25, 1.25).astype(np.float32)
