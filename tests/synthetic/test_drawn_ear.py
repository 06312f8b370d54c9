"""Drawn ears: a pure function of seed, index and size, whose landmarks match the image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from earteach.synthetic.drawn_ear import DrawnEar, draw_ear

SIZE = 128


@pytest.fixture(scope="module")
def ears() -> list[DrawnEar]:
    return [draw_ear(7, index, SIZE) for index in range(150)]


def luminance(image: np.ndarray) -> np.ndarray:
    return np.asarray(image @ np.array([0.299, 0.587, 0.114]))


def brightness_at(ear: DrawnEar, points: np.ndarray) -> np.ndarray:
    column, row = np.clip(np.rint(points * SIZE - 0.5).astype(int), 0, SIZE - 1).T
    return np.asarray(luminance(ear.image)[row, column])


@pytest.mark.parametrize("size", [16, 33, 1024])
def test_an_ear_depends_on_seed_and_index_alone(size: int) -> None:
    ear = draw_ear(0, 5, size)
    assert (ear.image.shape, ear.image.dtype) == ((size, size, 3), np.uint8)
    assert (ear.landmarks.shape, ear.landmarks.dtype) == ((55, 2), np.float32)
    np.random.seed(1)  # a drawn ear must not read the global state
    again, small = draw_ear(0, 5, size), draw_ear(0, 5, 64)
    assert np.array_equal(ear.image, again.image)
    assert np.array_equal(ear.landmarks, small.landmarks)
    for other in (draw_ear(1, 5, 64), draw_ear(0, 6, 64), draw_ear(5, 0, 64)):
        assert not np.array_equal(small.landmarks, other.landmarks)
        assert np.abs(small.image.astype(float) - other.image).mean() > 5


@pytest.mark.parametrize("size", [32, 200, 384])
def test_another_size_is_the_same_ear_at_another_resolution(size: int) -> None:
    common = min(size, SIZE)
    for index in range(6):
        shrunk, reference = (
            cv2.resize(draw_ear(2, index, s).image, (common, common), interpolation=cv2.INTER_AREA)
            for s in (size, SIZE)
        )
        difference = np.abs(shrunk.astype(float) - reference)
        assert difference.mean() < 3.5
        assert np.quantile(difference, 0.99) < 40


def test_structures_lie_in_their_anatomical_order(ears: list[DrawnEar]) -> None:
    """From behind to the front: outline, inner rim, antihelix, concha, tragus.

    Of the rim's landmarks, 30 lies beside the antihelix's first: on real ears, too, always behind it.
    """
    for ear in ears:
        across = ear.landmarks[[9, 30, 50, 45, 36]]
        assert np.all(np.diff(across @ (across[-1] - across[0])) > 0)


def test_outer_landmarks_lie_on_the_edge_that_is_seen(ears: list[DrawnEar]) -> None:
    """The picture changes more across the outline than a little outside or inside of it."""
    edges = np.zeros(3)
    for ear in ears:
        gray = luminance(ear.image).astype(np.float32)
        strength = np.hypot(cv2.Sobel(gray, -1, 1, 0), cv2.Sobel(gray, -1, 0, 1))
        outline = ear.landmarks[5:16]
        centre = ear.landmarks[50:55].mean(0)
        for place, factor in enumerate((0.88, 1.0, 1.12)):
            points = centre + factor * (outline - centre)
            column, row = np.clip(np.rint(points * SIZE - 0.5).astype(int), 0, SIZE - 1).T
            edges[place] += strength[row, column].mean()
    assert edges[1] > 1.5 * max(edges[0], edges[2])


def test_ears_fill_the_crop_and_have_the_proportions_of_ears(ears: list[DrawnEar]) -> None:
    landmarks = np.stack([ear.landmarks for ear in ears])
    assert landmarks.min() > 0.02
    assert landmarks.max() < 0.98
    spans = np.ptp(landmarks, axis=1)
    assert spans[:, 1].min() > 0.6
    assert 0.5 < np.median(spans[:, 0] / spans[:, 1]) < 0.7


def test_ears_vary_in_side_skin_brightness_and_shape(ears: list[DrawnEar]) -> None:
    faces_right = [ear.landmarks[36, 0] > ear.landmarks[8, 0] for ear in ears]
    assert 0.35 < np.mean(faces_right) < 0.65
    skin = [np.median(brightness_at(ear, ear.landmarks[20:55])) for ear in ears]
    assert np.quantile(skin, 0.1) < 90
    assert np.quantile(skin, 0.9) > 140
    assert min(np.ptp(luminance(ear.image)) for ear in ears) > 40
    small = np.stack([cv2.resize(e.image, (16, 16), interpolation=cv2.INTER_AREA) for e in ears])
    flat = small.reshape(len(ears), -1).astype(float)
    distances = np.abs(flat[:, None] - flat[None]).mean(-1)[~np.eye(len(ears), dtype=bool)]
    assert distances.mean() > 35
    assert distances.min() > 5
