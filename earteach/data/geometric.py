"""Geometric augmentation: mirroring, affine, perspective and elastic in one pass.

Each is a map of coordinates. They are composed first, so that the image is resampled only once.
Parameters mean what they mean in albumentations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import cv2
import numpy as np

from earteach.config import Strength

Range = tuple[float, float]
# Pixels between the nodes of an elastic displacement: half the smallest sigma.
_STEP = 3
_LEAST_SIGMA = 6.0


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Probabilities and ranges of the geometric augmentation.

    `corners` is the standard deviation by which perspective moves the corners inwards, as a fraction of
    the sides. Elastic displacements are normal noise with a maximum of 1, smoothed by `elastic_sigma`
    pixels (at least 6) and multiplied by `elastic_alpha` pixels.
    """

    flip_p: float = 0.5
    affine_p: float = 0.0
    scale: Range = (1.0, 1.0)  # of each axis
    shift: Range = (0.0, 0.0)  # in sides
    rotate: Range = (0.0, 0.0)  # in degrees
    shear: Range = (0.0, 0.0)  # in degrees, of each axis
    perspective_p: float = 0.0
    corners: Range = (0.0, 0.0)
    elastic_p: float = 0.0
    elastic_alpha: float = 0.0
    elastic_sigma: float = _LEAST_SIGMA


GEOMETRY: dict[Strength, Geometry] = {
    "none": Geometry(flip_p=0),
    "light": Geometry(
        affine_p=0.8, scale=(0.94, 1.06), shift=(-0.04, 0.04), rotate=(-6, 6)
    ),
    "full": Geometry(
        affine_p=0.5, scale=(0.94, 1.08), shift=(-0.04, 0.04), rotate=(-10, 10), shear=(-5, 5),
        perspective_p=0.15, corners=(0.02, 0.06),
        elastic_p=0.1, elastic_alpha=20, elastic_sigma=6,
    ),
}  # fmt: skip


def warp(image: np.ndarray, geometry: Geometry, rng: np.random.Generator) -> np.ndarray:
    """Move a uint8 image `(H, W, C)`, with edges reflected."""
    shape = image.shape[0], image.shape[1]
    flip, affine, perspective, elastic = rng.random(4) < (
        geometry.flip_p, geometry.affine_p, geometry.perspective_p, geometry.elastic_p
    )  # fmt: skip
    if not (affine or perspective or elastic):
        return cv2.flip(image, 1).reshape(image.shape) if flip else image
    matrix = np.array([[-1, 0, shape[1] - 1], [0, 1, 0], [0, 0, 1]], float) if flip else np.eye(3)
    if affine:
        matrix = affine_matrix(geometry, shape, rng) @ matrix
    if perspective:
        matrix = perspective_matrix(geometry, shape, rng) @ matrix
    return resampled(image, matrix, elastic_nodes(geometry, shape, rng) if elastic else None)


def affine_matrix(
    geometry: Geometry, shape: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Scale, rotation, shear and shift about the centre: the map from source to target, `(3, 3)`."""
    height, width = shape
    scale_x, scale_y = rng.uniform(*geometry.scale, 2).tolist()
    shift_x, shift_y = rng.uniform(*geometry.shift, 2).tolist()
    skew_x, skew_y = (math.tan(math.radians(angle)) for angle in rng.uniform(*geometry.shear, 2))
    angle = math.radians(rng.uniform(*geometry.rotate))
    cos, sin = math.cos(angle), math.sin(angle)
    linear = (
        ((cos - skew_x * sin) * scale_x, (sin + skew_x * cos) * scale_y),
        ((skew_y * cos - sin) * scale_x, (skew_y * sin + cos) * scale_y),
    )
    x, y = (width - 1) / 2, (height - 1) / 2
    return np.array([
        [*linear[0], x - linear[0][0] * x - linear[0][1] * y + shift_x * width],
        [*linear[1], y - linear[1][0] * x - linear[1][1] * y + shift_y * height],
        [0, 0, 1],
    ])  # fmt: skip


def perspective_matrix(
    geometry: Geometry, shape: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Map corners drawn inwards to the corners of the image, `(3, 3)`."""
    height, width = shape
    sides = np.array([width, height])
    inwards = np.abs(rng.normal(0, rng.uniform(*geometry.corners), (4, 2))) % 0.32
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    quad = (np.abs(corners - inwards) * sides).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(quad, (corners * sides).astype(np.float32))
    # Like albumentations, which enlarges the result once more, from the top left corner.
    across = np.linalg.norm(quad[[1, 2]] - quad[[0, 3]], axis=1).max()
    down = np.linalg.norm(quad[[2, 3]] - quad[[1, 0]], axis=1).max()
    return np.diag([width / int(across), height / int(down), 1]) @ matrix


def elastic_nodes(
    geometry: Geometry, shape: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Displacements in pixels at every third pixel and beyond the edges, float32 `(rows, columns, 2)`.

    A coarse grid is enough, because the noise is smooth over several pixels.
    """
    rows, columns = (-(-side // _STEP) + 2 for side in shape)
    noise = rng.standard_normal((rows, columns, 2), np.float32)
    sigma = geometry.elastic_sigma / _STEP
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    # The expected maximum of as many normal numbers as the image has pixels and axes (Gumbel). Smoothing
    # noise at every pixel would leave less of it than smoothing noise at the nodes, by the step.
    largest = NormalDist().inv_cdf(1 - math.exp(-np.euler_gamma) / (4 * shape[0] * shape[1]))
    return smooth * np.float32(geometry.elastic_alpha / largest / _STEP)


def resampled(image: np.ndarray, matrix: np.ndarray, nodes: np.ndarray | None) -> np.ndarray:
    """Move the image by the matrix, then by `nodes` (see `elastic_nodes`), with bilinear sampling."""
    height, width = image.shape[:2]
    # OpenCV has vector code for one and for four channels; three take up to three times as long.
    source = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA) if image.shape[2] == 3 else image
    linear, border = cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101
    if nodes is None:
        size = width, height
        moved = cv2.warpPerspective(source, matrix, size, flags=linear, borderMode=border)
    else:
        sources = source_points(matrix, nodes)[:height, :width]
        moved = cv2.remap(source, sources, None, linear, borderMode=border)
    return cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB) if image.shape[2] == 3 else moved[..., None]


def source_points(matrix: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Where each pixel comes from, float32 `(H, W, 2)`: computed at nodes, interpolated between."""
    rows, columns = nodes.shape[:2]
    # Each node lies in the middle of its pixels, as in `cv2.resize`.
    x, y = ((np.arange(count, dtype=np.float32) - 0.5) * _STEP - 0.5 for count in (columns, rows))
    target = nodes + np.stack(np.meshgrid(x, y), axis=2)
    source = cv2.perspectiveTransform(target, np.linalg.inv(matrix))
    # Cubic interpolation would be smoother, but OpenCV's does not leave a straight line straight.
    full = cv2.resize(source, None, fx=_STEP, fy=_STEP, interpolation=cv2.INTER_LINEAR)
    return full[_STEP:-_STEP, _STEP:-_STEP]
