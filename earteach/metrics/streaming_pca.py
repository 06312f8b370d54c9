"""PCA of more images than fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from sklearn.decomposition import PCA

_EXACT_BYTES = 2**26
# Passes over some of the pieces, at most every eighth, which find the axes roughly, then over all;
# one more pass over all tells the variances.
_SPARSEST, _ROUGH, _FINE = 8, 3, 2
# Rows that rough axes are found from, for each axis.
_ROWS_PER_AXIS = 4
_SPARE = 64
# Shares of the largest eigenvalue below which float32 knows none.
_SMALLEST = 1e-6

# Gives the rows of a matrix, float32 (some, D) at a time, the same in each call.
Pieces = Callable[[], Iterator[torch.Tensor]]


@dataclass(frozen=True)
class PCAResult:
    """Mean `(D,)`, orthonormal axes `(K, D)` by descending variance, and the variances `(K,)`."""

    mean: torch.Tensor
    axes: torch.Tensor
    variances: torch.Tensor


def streaming_pca(pieces: Pieces, count: int) -> PCAResult:
    """The first `count` principal axes of the rows, or as many as there are dimensions, float32.

    Where the matrix takes at most 64 MB the fit is scikit-learn's. Else it is by subspace iteration,
    piece by piece, in bounded memory, where scikit-learn's IncrementalPCA takes many times as long.
    """
    matrix = _CentredMatrix(pieces)
    rows, dimensions = matrix.shape
    count = min(count, dimensions)
    if count == 0:
        return PCAResult(matrix.mean, torch.zeros(0, dimensions), torch.zeros(0))
    if rows * dimensions * 4 > _EXACT_BYTES:
        return PCAResult(matrix.mean, *_leading_axes(matrix, count))
    # Of a tall matrix the covariance gives the same axes several times sooner.
    solver = "covariance_eigh" if rows > 4 * dimensions else "full"
    with np.errstate(invalid="ignore"):  # shares of a variance of zero, where no row differs
        pca = PCA(n_components=count, svd_solver=solver).fit(torch.cat(list(pieces())).numpy())
    found = (pca.mean_, pca.components_, pca.explained_variance_)
    return PCAResult(*(torch.from_numpy(np.asarray(values, np.float32)) for values in found))


def _leading_axes(matrix: _CentredMatrix, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Axes and variances by randomized subspace iteration, Halko et al. 2011
    (https://doi.org/10.1137/090771806), algorithm 4.4, ended by a Nyström approximation (algorithm 5.5),
    which takes from the last pass the axes as well, as one pass more would find them."""
    width = min(count + _SPARE, *matrix.shape)
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(matrix.shape[1], width, generator=generator)
    every = max(1, min(_SPARSEST, matrix.shape[0] // (_ROWS_PER_AXIS * width)))
    for step in [every] * _ROUGH + [1] * _FINE:
        basis, _ = torch.linalg.qr(matrix.scatter(basis, step))
    axes, values = _nystrom(basis, matrix.scatter(basis))
    return axes[:, :count].T, values[:count] / (matrix.shape[0] - 1)


def _nystrom(basis: torch.Tensor, product: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvectors `(D, W)` and eigenvalues `(W,)`, descending, of a positive semidefinite matrix S.

    From an orthonormal `basis` Q `(D, W)` and `product` S Q, as those of S Q (Qᵀ S Q)⁺ Qᵀ S.
    """
    middle = basis.T @ product
    values, rotation = torch.linalg.eigh((middle + middle.T) / 2)
    known = values > _SMALLEST * values[-1]
    weights = torch.where(known, values.clamp(min=torch.finfo(values.dtype).tiny).rsqrt(), 0)
    vectors, roots, _ = torch.linalg.svd(product @ (rotation * weights), full_matrices=False)
    return vectors, roots.square()


class _CentredMatrix:
    """The rows minus their mean, `(rows, D)`, never held whole."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        rows, total = 0, torch.zeros(1, dtype=torch.float64)
        for piece in pieces():
            total = total + piece.sum(dim=0, dtype=torch.float64)
            rows += len(piece)
        self.mean = (total / rows).float()
        self.shape = (rows, len(self.mean))

    def scatter(self, right: torch.Tensor, every: int = 1) -> torch.Tensor:
        """The scatter matrix (the covariance times rows − 1) times `right`, in one pass.

        With `every` above 1 it is that of each so-manieth piece.
        """
        shift = self.mean @ right
        total = torch.zeros_like(right)
        for piece in islice(self._pieces(), 0, None, every):
            total += (piece - self.mean).T @ (piece @ right - shift)
        return total
