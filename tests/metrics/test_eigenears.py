"""The mean image and PCA against numpy's singular values."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from earteach.data.arrays import EarArray
from earteach.metrics import eigenears as module
from earteach.metrics.eigenears import eigenears, fit

SIZE = 16


def pictures(number: int, channels: int = 3, seed: int = 0, size: int = SIZE) -> np.ndarray:
    """Mixtures of 40 soft patterns, of falling strength, as the principal parts of ears are."""
    # The patterns are the same for every seed, so that one set can tell something of another.
    patterns = np.random.default_rng(99).normal(size=(40, size, size, channels))
    for axis in (1, 2):
        patterns = patterns + np.roll(patterns, 1, axis) + np.roll(patterns, 2, axis)
    strength = 12 * 0.85 ** np.arange(40)
    codes = np.random.default_rng(seed).normal(size=(number, 40)) * strength
    return (127 + np.tensordot(codes, patterns, 1)).clip(0, 255).astype(np.uint8)


def array(folder: Path, images: np.ndarray, name: str = "train.npy") -> EarArray:
    np.save(folder / name, images)
    return EarArray.open(folder / name)


def batch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)


def with_mirrors(images: np.ndarray) -> np.ndarray:
    """Images and their mirrors, flattened, in double precision."""
    both = np.concatenate([images, images[:, :, ::-1]]).astype(np.float64) / 255
    return both.transpose(0, 3, 1, 2).reshape(len(both), -1)


def numpy_pca(train: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = with_mirrors(train)
    mean = rows.mean(axis=0)
    _, values, directions = np.linalg.svd(rows - mean, full_matrices=False)
    return mean, directions[:components], (values**2 / (len(rows) - 1))[:components]


def projected(train: np.ndarray, components: int, images: np.ndarray) -> np.ndarray:
    mean, directions, _ = numpy_pca(train, components)
    flat = batch(images).double().numpy().reshape(len(images), -1)
    back = (flat - mean) @ directions.T @ directions + mean
    return back.clip(0, 1).reshape(batch(images).shape)


@pytest.mark.parametrize(
    ("number", "channels", "components"),
    [(20, 3, 8), (20, 3, 256), (2, 3, 5), (1, 3, 5), (200, 1, 30), (30, 3, 1)],
)
def test_the_exact_fit_is_numpys_singular_values(tmp_path, number, channels, components):
    train, unseen = pictures(number, channels), pictures(6, channels, seed=1)
    fitted = fit(array(tmp_path, train), components=components, size=SIZE, channels=channels)
    count = min(components, max(1, number - 1))
    mean, _, variances = numpy_pca(train, count)
    assert (fitted.count, fitted.images) == (count, number)
    np.testing.assert_allclose(fitted.mean, mean, atol=1e-5)
    np.testing.assert_allclose(fitted.variances, variances, rtol=1e-3, atol=1e-5)
    gram = fitted.components @ fitted.components.T
    np.testing.assert_allclose(gram, np.eye(count), atol=1e-4)
    guesses = fitted.reconstruct(batch(unseen)).numpy()
    np.testing.assert_allclose(guesses, projected(train, count, unseen), atol=2e-3)


def test_of_very_many_images_an_even_share_is_fitted(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "_MAX_VALUES", 1)
    train = pictures(1100, 1)
    with caplog.at_level(logging.INFO, "earteach"):
        fitted = fit(array(tmp_path, train), components=4, size=SIZE, channels=1)
    assert fitted.images == 1024
    assert "1024 of 1100" in caplog.text
    np.testing.assert_allclose(fitted.mean, with_mirrors(train).mean(axis=0), atol=0.01)


def test_images_of_another_size_are_read_as_the_network_sees_them(tmp_path):
    ears = array(tmp_path, pictures(6, size=32))
    fitted = fit(ears, components=2, size=SIZE, channels=1)
    seen = np.stack([ears.image(row, size=SIZE, channels=1) for row in range(6)])
    np.testing.assert_allclose(fitted.mean, with_mirrors(seen).mean(axis=0), atol=1e-5)


def test_the_fit_is_stored_until_the_array_or_the_options_change(tmp_path, monkeypatch):
    options = {"components": 4, "size": SIZE, "channels": 3}
    fits = []
    monkeypatch.setattr(module, "fit", lambda *args, **kw: fits.append(kw) or fit(*args, **kw))
    train = array(tmp_path, pictures(12))
    first, again = eigenears(train, **options), eigenears(train, **options)
    assert fits == [options]
    assert first.images == again.images
    for name in ("mean", "components", "variances"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert eigenears(train, **options | {"components": 3}).count == 3
    assert len(eigenears(train, **options | {"size": 8}).mean) == 8 * 8 * 3
    other = pictures(12, seed=5)
    changed = eigenears(array(tmp_path, other), **options)
    assert len(fits) == 4
    np.testing.assert_allclose(changed.mean, with_mirrors(other).mean(axis=0), atol=1e-5)
