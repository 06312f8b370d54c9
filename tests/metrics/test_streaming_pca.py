"""Principal axes against scikit-learn's PCA in double precision."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from earteach.metrics import streaming_pca as module
from earteach.metrics.streaming_pca import PCAResult, Pieces, streaming_pca


def matrix(rows: int, dimensions: int, seed: int = 0) -> torch.Tensor:
    """Rows around a mean far from zero, whose directions differ in strength."""
    rng = np.random.default_rng(seed)
    directions, _ = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))
    strength = 0.8 ** np.arange(dimensions)
    values = rng.normal(size=(rows, dimensions)) * strength @ directions.T + 3
    return torch.from_numpy(values.astype(np.float32))


def in_pieces(whole: torch.Tensor, size: int = 7) -> Pieces:
    def pieces() -> Iterator[torch.Tensor]:
        return iter(whole.split(size))

    return pieces


def assert_like_sklearn(found: PCAResult, whole: torch.Tensor, count: int) -> None:
    wanted = PCA(n_components=count, svd_solver="full").fit(whole.double().numpy())
    np.testing.assert_allclose(found.mean, wanted.mean_, atol=1e-5)
    np.testing.assert_allclose(found.variances, wanted.explained_variance_, rtol=1e-3, atol=1e-6)
    assert found.axes.shape == wanted.components_.shape
    np.testing.assert_allclose(found.axes @ found.axes.T, np.eye(count), atol=1e-4)
    # Axes are the same but for their signs.
    agreement = np.abs((found.axes.numpy() * wanted.components_).sum(axis=1))
    np.testing.assert_allclose(agreement, 1, atol=1e-3)


@pytest.mark.parametrize("bytes_", [2**26, 0], ids=["exact", "by iteration"])
@pytest.mark.parametrize(
    ("rows", "dimensions", "count"),
    [(50, 20, 5), (50, 12, 12), (12, 60, 11), (1000, 16, 8), (9, 30, 1), (300, 100, 20)],
)
def test_axes_are_those_of_scikit_learn(monkeypatch, bytes_, rows, dimensions, count):
    monkeypatch.setattr(module, "_EXACT_BYTES", bytes_)
    whole = matrix(rows, dimensions)
    assert_like_sklearn(streaming_pca(in_pieces(whole), count), whole, count)


@pytest.mark.parametrize("bytes_", [2**26, 0])
def test_there_are_no_more_axes_than_dimensions(monkeypatch, bytes_):
    monkeypatch.setattr(module, "_EXACT_BYTES", bytes_)
    assert streaming_pca(in_pieces(matrix(40, 6)), 100).axes.shape == (6, 6)


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("bytes_", [2**26, 0])
def test_no_axes_can_be_asked_for(monkeypatch, bytes_, rows):
    monkeypatch.setattr(module, "_EXACT_BYTES", bytes_)
    whole = matrix(rows, 6)
    found = streaming_pca(in_pieces(whole), 0)
    torch.testing.assert_close(found.mean, whole.mean(dim=0))
    assert found.axes.shape == (0, 6)
    assert found.variances.shape == (0,)


def test_the_matrix_is_cut_as_one_likes(monkeypatch):
    monkeypatch.setattr(module, "_EXACT_BYTES", 0)
    whole = matrix(100, 20)
    first, second = (streaming_pca(in_pieces(whole, size), 4) for size in (3, 100))
    torch.testing.assert_close(first.variances, second.variances, rtol=1e-4, atol=0)
    torch.testing.assert_close(first.axes.abs(), second.axes.abs(), rtol=0, atol=1e-3)


def test_iteration_never_holds_the_rows_together(monkeypatch):
    monkeypatch.setattr(module, "_EXACT_BYTES", 0)
    monkeypatch.setattr(torch, "cat", lambda *_: pytest.fail("the rows were put together"))
    assert streaming_pca(in_pieces(matrix(60, 10)), 3).axes.shape == (3, 10)


@pytest.mark.parametrize("bytes_", [2**26, 0])
def test_rows_that_do_not_differ_have_no_variance(monkeypatch, bytes_):
    monkeypatch.setattr(module, "_EXACT_BYTES", bytes_)
    found = streaming_pca(in_pieces(torch.full((40, 6), 0.25)), 2)
    assert found.mean.tolist() == [0.25] * 6
    assert found.variances.tolist() == [0, 0]
    assert found.axes.isfinite().all()


def test_iteration_finds_the_axes_of_rows_that_repeat(monkeypatch):
    """Six different rows, each ten times: five axes, and no variance beside them."""
    monkeypatch.setattr(module, "_EXACT_BYTES", 0)
    few = matrix(6, 40)
    whole = few.repeat(10, 1)
    found = streaming_pca(in_pieces(whole), 30)
    wanted = PCA(n_components=5, svd_solver="full").fit(whole.double().numpy())
    np.testing.assert_allclose(found.variances[:5], wanted.explained_variance_, rtol=1e-3)
    np.testing.assert_allclose(found.variances[5:], 0, atol=1e-6)
    left = (whole - found.mean) - (whole - found.mean) @ found.axes.T @ found.axes
    assert left.abs().max() < 1e-4
