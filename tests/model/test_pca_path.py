"""PCA as a path of the network, by hand in NumPy."""

import math

import numpy as np
import pytest
import torch
from skimage.transform import resize

from earteach.model.pca_path import PCAPath, logits, shrink_factor
from tests.model.networks import SHAPES, images_for, pca_network


def by_hand(pca: PCAPath, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whitened codes, squared residuals and pictures at PCA's size, in double precision."""
    mean, components, variances, rotation = (
        value.double().numpy() for value in (pca.mean, pca.components, pca.variances, pca.rotation)
    )
    k, (channels, side, _) = pca.shrink, pca.shape
    cells = images.double().numpy().reshape(len(images), channels, side, k, side, k)
    rows = cells.mean(axis=(3, 5)).reshape(len(images), -1) - mean
    scores = rows @ components.T
    pictures = scores @ components
    residuals = ((rows - pictures) ** 2).sum(axis=1)
    pictures = (pictures + mean).reshape(-1, channels, side, side)
    return scores / np.sqrt(variances) @ rotation, residuals, pictures


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_codes_residuals_and_pictures_are_those_of_pca_by_hand(shape, autocast):
    model = pca_network(*shape)
    images = images_for(model)
    expected_codes, expected_residuals, small = by_hand(model.pca, images)
    # The precision of training never reaches PCA.
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        codes, residuals = model.pca.encode(images)
        pictures = model.pca.decode(codes)
    np.testing.assert_allclose(codes, expected_codes, rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose(residuals, expected_residuals, rtol=1e-3, atol=2e-3)
    size = (shape[0], shape[0])
    large = np.array([[resize(plane, size, order=1, mode="edge") for plane in p] for p in small])
    np.testing.assert_allclose(pictures, large, atol=1e-3)


@pytest.mark.parametrize(("size", "channels"), [(48, 3), (128, 1), (192, 3)])
def test_before_it_is_loaded_every_code_is_gray(size, channels):
    pictures = PCAPath(channels, 5, size).decode(torch.randn(2, 5))
    assert torch.equal(pictures, torch.full((2, channels, size, size), 0.5))


@pytest.mark.parametrize(
    ("size", "factor"),
    [(32, 1), (48, 1), (64, 1), (80, 2), (96, 2), (128, 2), (144, 3), (176, 4), (256, 4), (272, 8)],
)
def test_pca_works_at_the_largest_whole_fraction_of_at_most_64_pixels(size, factor):
    assert shrink_factor(size) == factor


def test_logits_are_clipped_to_probabilities_from_one_to_99_percent():
    clipped = {-3: 0.01, 0: 0.01, 0.005: 0.01, 0.3: 0.3, 0.5: 0.5, 0.99: 0.99, 1: 0.99, 2: 0.99}
    expected = torch.tensor([math.log(p / (1 - p)) for p in clipped.values()])
    torch.testing.assert_close(logits(torch.tensor([*clipped])), expected, rtol=1e-4, atol=1e-5)
