"""Principal axes against scikit-learn's PCA in double precision."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from earteach.metrics import streaming_pca as module
from earteach.metrics.streaming_pca import Batches, streaming_pca


def matrix(rows: int, dimensions: int, seed: int = 0) -> torch.Tensor:
    """Rows around a mean far from zero, whose directions differ in strength."""
    rng = np.random.default_rng(seed)
    directions, _ = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))
    strength = 0.8 ** np.arange(dimensions)
    values = rng.normal(size=(rows, dimensions)) * strength @ directions.T + 3
    return torch.from_numpy(values.astype(np.float32))


def in_batches(whole: torch.Tensor, size: int = 7) -> Batches:
    return lambda: iter(whole.split(size))


@pytest.mark.parametrize("bytes_", [2**26, 0], ids=["exact", "by iteration"])
@pytest.mark.parametrize(
    ("rows", "dimensions", "count"),
    [(50, 12, 12), (12, 60, 11), (1000, 16, 8), (300, 100, 20)],
)
def test_axes_are_those_of_scikit_learn(monkeypatch, bytes_, rows, dimensions, count):
    monkeypatch.setattr(module, "_EXACT_BYTES", bytes_)
    whole = matrix(rows, dimensions)
    result = streaming_pca(in_batches(whole), count)
    expected = PCA(n_components=count, svd_solver="full").fit(whole.double().numpy())
    np.testing.assert_allclose(result.mean, expected.mean_, atol=1e-5)
    np.testing.assert_allclose(result.variances, expected.explained_variance_, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(result.axes @ result.axes.T, np.eye(count), atol=1e-4)
    # Axes are the same but for their signs.
    agreement = np.abs((result.axes.numpy() * expected.components_).sum(axis=1))
    np.testing.assert_allclose(agreement, 1, atol=1e-3)


def test_iteration_finds_the_axes_of_rows_that_repeat(monkeypatch):
    """Six different rows, each ten times: five axes, and no variance beside them."""
    monkeypatch.setattr(module, "_EXACT_BYTES", 0)
    few = matrix(6, 40)
    whole = few.repeat(10, 1)
    result = streaming_pca(in_batches(whole), 30)
    expected = PCA(n_components=5, svd_solver="full").fit(whole.double().numpy())
    np.testing.assert_allclose(result.variances[:5], expected.explained_variance_, rtol=1e-3)
    np.testing.assert_allclose(result.variances[5:], 0, atol=1e-6)
    left = (whole - result.mean) - (whole - result.mean) @ result.axes.T @ result.axes
    assert left.abs().max() < 1e-4


@pytest.mark.parametrize("bytes_", [2**26, 0])
@pytest.mark.parametrize(("rows", "count", "axes"), [(40, 100, 6), (5, 0, 0), (1, 0, 0)])
def test_there_are_no_more_axes_than_asked_for_or_than_dimensions(
    monkeypatch, bytes_, rows, count, axes
):
    monkeypatch.setattr(module, "_EXACT_BYTES", bytes_)
    whole = matrix(rows, 6)
    result = streaming_pca(in_batches(whole), count)
    torch.testing.assert_close(result.mean, whole.mean(dim=0))
    assert (result.axes.shape, result.variances.shape) == ((axes, 6), (axes,))
