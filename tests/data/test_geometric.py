"""Geometry in one pass against albumentations' transforms one by one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from albumentations.augmentations.geometric import functional as fgeometric

from earteach.data.geometric import (
    Geometry,
    affine_matrix,
    elastic_nodes,
    perspective_matrix,
    source_points,
    warp,
)
from earteach.synthetic.drawn_ear import draw_ear

SHAPES = [(64, 64), (50, 83)]
ELASTIC = Geometry(elastic_p=1, elastic_alpha=20, elastic_sigma=6)


def pixels(shape: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return np.stack([x, y], axis=2)


def displacement(shape: tuple[int, int], seed: int) -> np.ndarray:
    nodes = elastic_nodes(ELASTIC, shape, np.random.default_rng(seed))
    return source_points(np.eye(3), nodes)[: shape[0], : shape[1]] - pixels(shape)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("scale", "shift", "rotate", "shear"),
    [(1.07, 0, 0, 0), (1, 0.04, 0, 0), (1, 0, -9, 0), (1, 0, 0, 5), (0.94, -0.03, 10, -5)],
)
def test_the_affine_matrix_is_that_of_albumentations(shape, scale, shift, rotate, shear):
    fixed = Geometry(
        scale=(scale, scale), shift=(shift, shift), rotate=(rotate, rotate), shear=(shear, shear)
    )
    expected = fgeometric.create_affine_transformation_matrix(
        {"x": shift * shape[1], "y": shift * shape[0]},
        {"x": shear, "y": shear},
        {"x": scale, "y": scale},
        rotate,
        fgeometric.center(shape),
    )
    found = affine_matrix(fixed, shape, np.random.default_rng(0))
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_perspective_is_that_of_albumentations(shape):
    for seed in range(20):
        geometry = Geometry(corners=(0.05, 0.05))
        found = perspective_matrix(geometry, shape, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        rng.uniform(0.05, 0.05)
        points = fgeometric.order_points(fgeometric.generate_perspective_points(shape, 0.05, rng))
        matrix, width, height = fgeometric.compute_perspective_params(points, shape)
        expected = np.diag([shape[1] / width, shape[0] / height, 1]) @ matrix
        corners = np.array([[[0, 0], [shape[1], 0], [shape[1], shape[0]], [0, shape[0]]]], float)
        places = [cv2.perspectiveTransform(corners, way) for way in (found, expected)]
        np.testing.assert_allclose(*places, atol=1e-3)


@pytest.mark.parametrize("shape", [(64, 64), (160, 112)])
def test_elastic_displacements_are_as_large_and_smooth_as_albumentations(shape):
    def statistics(fields: list[np.ndarray]) -> tuple[float, float, float]:
        """Deviation, mean of the largest, and correlation at six pixels.

        At the edges albumentations' displacements are larger: it repeats the outermost noise.
        """
        inside = np.stack(fields)[:, 16:-16, 16:-16]
        correlation = np.corrcoef(inside[:, :, 6:].ravel(), inside[:, :, :-6].ravel())[0, 1]
        largest = np.abs(inside).max(axis=(1, 2, 3)).mean()
        return float(inside.std()), float(largest), float(correlation)

    theirs = [
        np.stack(fgeometric.generate_displacement_fields(
            shape, 20, 6, False, (0, 0), np.random.default_rng(seed), "gaussian"
        ), axis=2)
        for seed in range(40)
    ]  # fmt: skip
    ours = statistics([displacement(shape, 100 + seed) for seed in range(40)])
    expected = statistics(theirs)
    assert ours[0] == pytest.approx(expected[0], rel=0.06)
    assert ours[1] == pytest.approx(expected[1], rel=0.12)
    assert ours[2] == pytest.approx(expected[2], abs=0.05)


@pytest.mark.parametrize("channels", [1, 3])
def test_one_pass_gives_what_the_passes_of_opencv_give_in_turn(channels):
    """Beside their interpolations: the image is smooth, so that one more of them changes little."""
    ear = cv2.GaussianBlur(draw_ear(1, 2, 96).image, (0, 0), 2)[..., :channels]
    shape, border = ear.shape[:2], cv2.BORDER_REFLECT_101
    geometry = Geometry(
        flip_p=1, affine_p=1, scale=(1.02, 1.08), shift=(0, 0.04), rotate=(3, 10),
        perspective_p=1, corners=(0.03, 0.06), elastic_p=1, elastic_alpha=200,
    )  # fmt: skip
    for seed in range(5):
        rng = np.random.default_rng(seed)
        rng.random(4)
        affine = affine_matrix(geometry, shape, rng)
        perspective = perspective_matrix(geometry, shape, rng)
        nodes = elastic_nodes(geometry, shape, rng)
        places = source_points(np.eye(3), nodes)
        step = cv2.flip(ear, 1)
        step = cv2.warpAffine(step, affine[:2], shape[::-1], borderMode=border)
        step = cv2.warpPerspective(step, perspective, shape[::-1], borderMode=border)
        step = cv2.remap(step, places, None, cv2.INTER_LINEAR, borderMode=border)
        found = warp(np.ascontiguousarray(ear), geometry, np.random.default_rng(seed))
        inside = np.s_[8:-8, 8:-8]  # reflections at the edges are reflected again in turn
        assert difference(found[inside], step.reshape(ear.shape)[inside]) < 0.6
        assert difference(found, ear) > 5
