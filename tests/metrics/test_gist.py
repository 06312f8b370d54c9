"""GIST features against NumPy and SciPy, and the distances against their formulas."""

import numpy as np
import pytest
import torch
from scipy import linalg, ndimage, signal

from earteach.metrics.gist import features, frechet_distance, kernel_distance, similarity


def cell_means(plane: np.ndarray) -> np.ndarray:
    side = len(plane) // 4
    return plane.reshape(4, side, 4, side).mean(axis=(1, 3)).ravel()


def gabor(angle: float, wave) -> np.ndarray:
    y, x = np.mgrid[-3:4, -3:4]
    along = x * np.cos(angle) + y * np.sin(angle)
    return np.exp(-(x**2 + y**2) / 8) * wave(np.pi / 2 * along)


def gist(image: np.ndarray) -> np.ndarray:
    """The features of one image `(3, S, S)`, written a second time."""
    red, green, blue = image.astype(np.float64)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    values = [cell_means(p) for p in (luma, (blue - luma) / 1.772, (red - luma) / 1.402)]
    window = gabor(0, np.ones_like)
    for _ in range(4):
        for orientation in range(6):
            even, odd = (gabor(np.pi * orientation / 6, wave) for wave in (np.cos, np.sin))
            even = even - window * even.sum() / window.sum()
            padded = np.pad(luma, 3, mode="reflect")
            energy = sum(signal.correlate2d(padded, g, mode="valid") ** 2 for g in (even, odd))
            values.append(np.sqrt(cell_means(np.sqrt(energy / (even**2 + odd**2).sum()))))
        for axis in (0, 1):
            luma = ndimage.correlate1d(luma, np.array([1, 4, 6, 4, 1]) / 16, axis, mode="mirror")
        luma = luma[::2, ::2]
    return np.concatenate(values)


def test_features_are_gist():
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = np.stack([gist(image) for image in images.numpy()])
    assert features(images).shape == (2, 432)
    np.testing.assert_allclose(features(images).numpy(), expected, atol=2e-3)


def normal(number: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator)
    return (torch.randn(number, width, generator=generator) @ mixing + seed).double()


def test_frechet_distance_is_the_formula():
    a, b = normal(200, 5, 0), normal(150, 5, 1)
    cov_a, cov_b = np.cov(a.numpy().T), np.cov(b.numpy().T)
    means = (a.mean(0) - b.mean(0)).square().sum().item()
    expected = means + np.trace(cov_a + cov_b - 2 * linalg.sqrtm(cov_a @ cov_b).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_kernel_distance_is_the_unbiased_estimator():
    a, b = normal(7, 4, 0).numpy(), normal(5, 4, 1).numpy()

    def mean(x: np.ndarray, y: np.ndarray, same: bool) -> float:
        pairs = [(i, j) for i in range(len(x)) for j in range(len(y)) if not (same and i == j)]
        return float(np.mean([(float(x[i] @ y[j]) / 4 + 1) ** 3 for i, j in pairs]))

    expected = mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)
    assert kernel_distance(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected, rel=1e-9)


def test_precision_and_recall_are_shares_inside_the_others_spheres():
    """Six real points a step apart, whose third neighbours are two or three steps away."""
    real = torch.tensor([[0.0], [1], [2], [3], [4], [5]]) * torch.tensor([1.0, 0])
    radii = [3, 2, 2, 2, 2, 3]
    images = torch.tensor([[-3.5], [-3], [2.5], [7.5], [8.5], [30]]) * torch.tensor([1.0, 0])
    inside = [any(abs(x - r) <= radius for r, radius in enumerate(radii)) for x in images[:, 0]]
    measured = similarity(images, real)
    assert measured.precision == pytest.approx(sum(inside) / 6) == pytest.approx(3 / 6)
    # The third neighbours of the images are 11, 10.5, 6, 5, 6 and 22.5 away: all real ones are near one.
    assert measured.recall == 1
    assert similarity(real, real + 100).recall == similarity(real, real + 100).precision == 0
