"""Fog and noise compared with the transforms of albumentations that they replace."""

from __future__ import annotations

import itertools

import albumentations as A
import cv2
import numpy as np
import pytest

from earteach.data.photometric import Fog, Noise, discs_over


def alone(transform: A.BasicTransform, image: np.ndarray, times: int) -> np.ndarray:
    """The changes that it makes to the image, `(times, H, W, C)`."""
    compose = A.Compose([transform], seed=3)
    return np.stack([compose(image=image)["image"].astype(int) - image for _ in range(times)])


def rings(maps: np.ndarray) -> np.ndarray:
    """Means over squares around the centre, of growing distance."""
    height, width = maps.shape[-2:]
    y, x = np.mgrid[:height, :width]
    distance = np.maximum(np.abs(x / width - 0.5), np.abs(y / height - 0.5))
    edges = [0, 0.1, 0.2, 0.3, 0.4, 0.47]
    return np.array([
        maps[..., (distance >= low) & (distance < high)].mean()
        for low, high in itertools.pairwise(edges)
    ])  # fmt: skip


@pytest.mark.parametrize(("density", "size"), [(0.25, 96), (0.12, 64)])
def test_as_many_discs_lie_over_a_pixel_as_albumentations_draws(density: float, size: int) -> None:
    fog = A.RandomFog(fog_coef_range=(density, density), alpha_coef=0.06)
    fog.set_random_seed(1)
    drawn = np.zeros((6, size, size), np.float32)
    for count in drawn:
        found = fog.get_params_dependent_on_data({"shape": (size, size, 3)}, {})
        for place, radius in zip(found["particle_positions"], found["radiuses"], strict=True):
            disc = np.zeros_like(count)
            count += cv2.circle(disc, place, int(radius), 1.0, thickness=-1)
    rng = np.random.default_rng(2)
    ours = np.stack([discs_over(size, size, density, rng) for _ in range(30)])
    np.testing.assert_allclose(rings(ours), rings(drawn), rtol=0.08)
    assert ours.std() == pytest.approx(drawn.std(), rel=0.12)


@pytest.mark.parametrize("density", [0.25])
def test_fog_brightens_as_that_of_albumentations(density: float) -> None:
    """It rounds after each of thousands of discs, which makes it differ by up to half a level."""
    for value in (40, 100):
        plain = np.full((96, 96, 3), value, np.uint8)
        theirs = alone(
            A.RandomFog(fog_coef_range=(density, density), alpha_coef=0.06, p=1), plain, 3
        )
        ours = alone(Fog(density=(density, density), opacity=0.06, p=1), plain, 12)
        expected = rings(theirs[..., 0])
        np.testing.assert_allclose(rings(ours[..., 0]), expected, rtol=0.2, atol=0.8)
        assert (ours >= 0).all()
        assert (ours == ours[..., :1]).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("std", [0.01, 0.04])
def test_noise_is_as_strong_as_that_of_albumentations(channels: int, std: float) -> None:
    plain = np.full((64, 64, channels), 128, np.uint8)
    theirs = alone(A.GaussNoise(std_range=(std, std), p=1), plain, 8)
    ours = alone(Noise(std=(std, std), p=1), plain, 8)
    assert ours.shape == theirs.shape
    assert ours.std() == pytest.approx(theirs.std(), rel=0.03)
    assert abs(ours.mean()) < 0.1
    levels = np.quantile(ours, [0.02, 0.16, 0.5, 0.84, 0.98])
    np.testing.assert_allclose(
        levels, np.quantile(theirs, [0.02, 0.16, 0.5, 0.84, 0.98]), atol=1.01
    )


def test_noise_is_clipped_and_fills_its_range() -> None:
    for value in (1, 254):
        changes = alone(Noise(std=(0.04, 0.04), p=1), np.full((48, 48, 3), value, np.uint8), 2)
        assert np.abs(changes).max() <= 60  # a byte that wraps round changes by 200
    plain = np.full((48, 48, 3), 128, np.uint8)
    std = alone(Noise(std=(0.01, 0.04), p=1), plain, 100).std(axis=(1, 2, 3)) / 255
    assert std.min() == pytest.approx(0.01, abs=0.002)
    assert std.max() == pytest.approx(0.04, abs=0.002)
    assert std.mean() == pytest.approx(0.025, abs=0.003)
