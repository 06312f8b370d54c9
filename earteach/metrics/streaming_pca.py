"""PCA of matrices of any size, without a copy in memory where they are large."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch

# An exact PCA costs the square of the matrix's shorter side, and needs all of it in memory.
_EXACT_SIDE, _EXACT_BYTES = 2**11, 2**29
# The first passes read every 8th batch or so, for rough axes; the next reads all. One more gives the
# variances.
_MAX_STRIDE, _ROUGH_PASSES, _FULL_PASSES = 8, 2, 1
# A rough pass needs this many rows per axis.
_ROWS_PER_AXIS = 4
_OVERSAMPLING = 64
# Relative to the largest eigenvalue: what float32 cannot resolve.
_MIN_EIGENVALUE = 1e-6

# Yields the rows of a matrix, float32 (B, D), the same in every call.
Batches = Callable[[], Iterator[torch.Tensor]]


@dataclass(frozen=True)
class PCAResult:
    """Mean `(D,)`, orthonormal axes `(K, D)` by descending variance, and the variances `(K,)`.

    Axes without variance may be zero.
    """

    mean: torch.Tensor
    axes: torch.Tensor
    variances: torch.Tensor


def streaming_pca(batches: Batches, count: int, *, centred: bool = False) -> PCAResult:
    """The first `count` principal axes of the rows, or as many as there are dimensions, float32.

    Of `centred` rows, the mean counts as 0. Exact for matrices of up to 512 MB with a side of up to
    2,048. Others are never held in memory: subspace iteration reads them batch by batch.
    """
    matrix = _CentredMatrix(batches, centred)
    count = min(count, matrix.shape[1])
    if count == 0:
        return PCAResult(matrix.mean, torch.zeros(0, matrix.shape[1]), torch.zeros(0))
    rows = matrix.rows()
    axes, values = _leading_axes(matrix, count) if rows is None else _exact_axes(rows, count)
    return PCAResult(matrix.mean, axes, values / max(1, matrix.shape[0] - 1))


def _exact_axes(rows: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Axes `(K, D)` and eigenvalues `(K,)` of the scatter matrix, from the smaller of X Xᵀ and Xᵀ X."""
    wide = rows.shape[0] < rows.shape[1]
    square = rows @ rows.T if wide else rows.T @ rows
    values, vectors = torch.linalg.eigh(square.double())
    values, vectors = values.flip(0)[:count].clamp(min=0), vectors.flip(1)[:, :count]
    if not wide:
        return vectors.T.float(), values.float()
    axes = rows.T @ (vectors * _inverse_roots(values)).float()
    # Rounding turns the axes of little variance towards each other. A Newton-Schulz step undoes it, in
    # less time than QR takes (Björck and Bowie 1971, https://doi.org/10.1137/0708036).
    axes = 1.5 * axes - 0.5 * axes @ (axes.T @ axes)
    return axes.T, values.float()


def _leading_axes(matrix: _CentredMatrix, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Axes `(K, D)` and eigenvalues `(K,)` of the scatter matrix by randomized subspace iteration.

    Halko et al. 2011 (https://doi.org/10.1137/090771806), algorithm 4.4. The Nyström approximation
    (algorithm 5.5) at the end gets the axes of one more pass from the last one.
    """
    width = min(count + _OVERSAMPLING, *matrix.shape)
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(matrix.shape[1], width, generator=generator)
    stride = max(1, min(_MAX_STRIDE, matrix.shape[0] // (_ROWS_PER_AXIS * width)))
    for step in [stride] * _ROUGH_PASSES + [1] * _FULL_PASSES:
        basis, _ = torch.linalg.qr(matrix.scatter(basis, step))
    axes, values = _nystrom(basis, matrix.scatter(basis))
    return axes[:, :count].T, values[:count]


def _nystrom(basis: torch.Tensor, product: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvectors `(D, W)` and eigenvalues `(W,)`, descending, of a positive semidefinite matrix S.

    From an orthonormal `basis` Q `(D, W)` and `product` S Q, as those of S Q (Qᵀ S Q)⁺ Qᵀ S.
    """
    middle = basis.T @ product
    values, rotation = torch.linalg.eigh((middle + middle.T) / 2)
    weighted = rotation * _inverse_roots(values)
    vectors, roots, _ = torch.linalg.svd(product @ weighted, full_matrices=False)
    return vectors, roots.square()


def _inverse_roots(values: torch.Tensor) -> torch.Tensor:
    """1 / √value, or 0 where the value is as good as 0."""
    nonzero = values > _MIN_EIGENVALUE * values.max()
    return torch.where(nonzero, values.clamp(min=torch.finfo(values.dtype).tiny).rsqrt(), 0)


def _is_small(rows: int, dimensions: int) -> bool:
    return min(rows, dimensions) <= _EXACT_SIDE and 4 * rows * dimensions <= _EXACT_BYTES


class _CentredMatrix:
    """The rows minus their mean, `(rows, D)`, read batch by batch."""

    def __init__(self, batches: Batches, centred: bool) -> None:
        self._batches = batches
        rows, total = 0, torch.zeros(1, dtype=torch.float64)
        self._kept: list[torch.Tensor] = []
        for batch in batches():
            total = total + batch.sum(dim=0).double()
            rows += len(batch)
            self._kept.append(batch)
            if not _is_small(rows, batch.shape[1]):
                self._kept.clear()
        self.mean = torch.zeros(len(total)) if centred else (total / rows).float()
        self.shape = (rows, len(self.mean))

    def rows(self) -> torch.Tensor | None:
        """All of them, `(rows, D)`, if they are few or short."""
        return torch.cat(self._kept).sub_(self.mean) if _is_small(*self.shape) else None

    def scatter(self, right: torch.Tensor, stride: int = 1) -> torch.Tensor:
        """The scatter matrix (covariance · (rows − 1)) of every `stride`-th batch, times `right`."""
        shift = self.mean @ right
        total = torch.zeros_like(right)
        for batch in islice(self._batches(), 0, None, stride):
            total += (batch - self.mean).T @ (batch @ right - shift)
        return total
