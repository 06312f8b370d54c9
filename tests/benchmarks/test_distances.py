"""GIST features against NumPy and SciPy, and distances that grow with what is wrong."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import linalg, ndimage, signal

from benchmarks.quality.distances import (
    FEATURES,
    GRID,
    ORIENTATIONS,
    SCALES,
    features,
    frechet_distance,
    kernel_distance,
)
from earteach.synthetic.drawn_ear import draw_ear


def drawn(seed: int, number: int) -> torch.Tensor:
    ears = np.stack([draw_ear(seed, index, 32).image for index in range(number)])
    return torch.from_numpy(ears).permute(0, 3, 1, 2).float() / 255


def in_cells(plane: np.ndarray) -> np.ndarray:
    side = len(plane) // GRID
    return plane.reshape(GRID, side, GRID, side).mean(axis=(1, 3)).ravel()


def gabor(orientation: int, wave: Callable[[float], float]) -> np.ndarray:
    """One filter, place by place."""
    angle = np.pi * orientation / 6
    made = np.zeros((7, 7))
    for row in range(7):
        for column in range(7):
            x, y = column - 3, row - 3
            along = x * np.cos(angle) + y * np.sin(angle)
            made[row, column] = np.exp(-(x * x + y * y) / 8) * wave(np.pi / 2 * along)
    return made


def gist(image: np.ndarray) -> np.ndarray:
    """The features of one image `(3, S, S)`, by another way through every step."""
    red, green, blue = image.astype(np.float64)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    # By their definition in BT.601, not by its rounded matrix.
    found = [in_cells(p) for p in (luma, (blue - luma) / 1.772, (red - luma) / 1.402)]
    window = gabor(0, lambda _: 1.0)
    for _ in range(4):
        for orientation in range(6):
            even, odd = gabor(orientation, np.cos), gabor(orientation, np.sin)
            even = even - window * even.sum() / window.sum()
            padded = np.pad(luma, 3, mode="reflect")
            strength = sum(signal.correlate2d(padded, g, mode="valid") ** 2 for g in (even, odd))
            strength = np.sqrt(strength / (even**2 + odd**2).sum())
            found.append(np.sqrt(in_cells(strength)))
        for axis in (0, 1):
            luma = ndimage.correlate1d(luma, np.array([1, 4, 6, 4, 1]) / 16, axis, mode="mirror")
        luma = luma[::2, ::2]
    return np.concatenate(found)


@pytest.mark.parametrize("size", [32, 64])
def test_features_are_the_gist(size):
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    seen = features(images)
    assert seen.dtype == torch.float32
    assert seen.shape == (2, FEATURES)
    assert FEATURES == GRID**2 * (SCALES * ORIENTATIONS + 3) == 432
    for image, row in zip(images.numpy(), seen.numpy(), strict=True):
        np.testing.assert_allclose(row, gist(image), atol=2e-3)


def test_an_image_has_the_same_features_in_any_batch_and_layout():
    images = torch.rand(70, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    together = features(images)
    alone = torch.cat([features(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    strided = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(together, features(strided), atol=1e-5, rtol=0)


def test_gray_images_are_colourless_ones():
    gray = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(features(gray), features(gray.expand(-1, 3, -1, -1)))
    # An even gray has its brightness and nothing else.
    flat = features(torch.full((1, 1, 32, 32), 0.3))[0]
    torch.testing.assert_close(flat[:16], torch.full((16,), 0.3))
    assert flat[16:].abs().max() < 1e-3


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 2, 32, 32), (2, 3, 31, 32), (2, 3, 32, 16)])
def test_images_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"features take \(B, 1 or 3, H, W\)"):
        features(torch.zeros(shape))


def normal(number: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator)
    return torch.randn(number, width, generator=generator) @ mixing + seed


@pytest.mark.parametrize(("width", "numbers"), [(5, (200, 150)), (40, (30, 25)), (1, (9, 9))])
def test_frechet_distance_is_the_formula(width, numbers):
    a, b = (normal(number, width, seed).double() for seed, number in enumerate(numbers))
    cov_a, cov_b = (np.atleast_2d(np.cov(x.numpy().T)) for x in (a, b))
    # SciPy's root of the product itself, which is not symmetric; a trifle keeps it from singular.
    ridge = 1e-10 * np.eye(width)
    root = linalg.sqrtm((cov_a + ridge) @ (cov_b + ridge)).real
    means = (a.mean(0) - b.mean(0)).square().sum().item()
    wanted = means + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-4)
    assert frechet_distance(b, a) == pytest.approx(wanted, rel=1e-4)


def test_frechet_distance_of_a_shift_and_of_a_scale():
    a = normal(100, 6, 1).double()
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, a + 0.5) == pytest.approx(6 * 0.25, abs=1e-6)
    centred = a - a.mean(0)
    assert frechet_distance(centred, 3 * centred) == pytest.approx(
        4 * torch.cov(a.T).trace().item()
    )


@pytest.mark.parametrize("numbers", [(7, 5), (2, 2), (3, 40)])
def test_kernel_distance_is_the_unbiased_estimator(numbers):
    a, b = (normal(number, 4, seed).numpy() for seed, number in enumerate(numbers))

    def mean(x: np.ndarray, y: np.ndarray, same: bool) -> float:
        """Over all pairs of different images."""
        pairs = [(i, j) for i in range(len(x)) for j in range(len(y)) if not (same and i == j)]
        return float(np.mean([(float(x[i] @ y[j]) / 4 + 1) ** 3 for i, j in pairs]))

    wanted = mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)
    assert kernel_distance(torch.tensor(a), torch.tensor(b)) == pytest.approx(wanted, rel=1e-5)


def test_kernel_distance_of_the_same_distribution_is_zero_in_the_mean():
    generator = torch.Generator().manual_seed(0)
    found = [
        kernel_distance(*torch.randn(2, 20, 8, generator=generator).unbind()) for _ in range(200)
    ]
    assert min(found) < 0 < max(found)
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
@pytest.mark.parametrize(
    "shapes", [((4, 3), (4, 2)), ((1, 3), (4, 3)), ((4, 3), (3,)), ((0, 3),) * 2]
)
def test_features_of_other_shapes_are_refused(distance, shapes):
    with pytest.raises(ValueError, match="features have shapes"):
        distance(*map(torch.zeros, shapes))


@pytest.fixture(scope="module")
def real() -> torch.Tensor:
    return features(drawn(0, 160))


@pytest.fixture(scope="module")
def others() -> torch.Tensor:
    """Ears of the same kind that are not in `real`."""
    return drawn(1, 160)


def blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    return torch.from_numpy(ndimage.gaussian_filter(images.numpy(), (0, 0, sigma, sigma)))


def noisy(images: torch.Tensor, sigma: float) -> torch.Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + sigma * noise).clamp(0, 1)


def paler(images: torch.Tensor, share: float) -> torch.Tensor:
    return images + share * (images.mean(dim=(2, 3), keepdim=True) - images)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
@pytest.mark.parametrize(
    ("spoil", "strengths"),
    [
        (blurred, [0.0, 0.6, 1.0, 1.6, 2.5]),
        (noisy, [0.0, 0.05, 0.1, 0.2, 0.4]),
        (paler, [0.0, 0.2, 0.4, 0.6, 0.8]),
    ],
)
def test_distance_grows_with_blur_and_noise_and_paleness(real, others, distance, spoil, strengths):
    found = [distance(real, features(spoil(others, strength))) for strength in strengths]
    assert found == sorted(found)
    assert len(set(found)) == len(found)
    assert found[-1] > found[0] + 3 * (found[1] - found[0])


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda images: images.flip(2),
        lambda images: images.roll((16, 16), (2, 3)),
        lambda images: (images + 0.15).clamp(0, 1),
        lambda images: images.mean(dim=1, keepdim=True),
        lambda images: images.flip(1),
    ],
    ids=["upside down", "quarters exchanged", "bright", "gray", "blue for red"],
)
def test_wrong_pictures_are_farther_than_unseen_ones(real, others, distance, spoil):
    right, wrong = (distance(real, features(images)) for images in (others, spoil(others)))
    assert wrong > right + 0.1 * abs(right)


def test_few_ears_over_and_over_are_farther_than_unseen_ones(real, others):
    few = others[:10].repeat(16, 1, 1, 1)
    assert frechet_distance(real, features(few)) > 2 * frechet_distance(real, features(others))
