"""How far two sets of images are apart: Fréchet and kernel distance on GIST features.

The features need no download: they are the strengths of edges of four scales and six orientations in
the cells of a 4×4 grid, and the cells' mean colours, which is the GIST of a picture (Oliva and Torralba
2001, https://doi.org/10.1023/A:1011139631724). So the distances are a GIST Fréchet distance and a GIST
kernel distance. They are not FID and KID, which use Inception's features, and are not comparable with
those; nor are values of images of different sizes or of different numbers of images comparable.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

SCALES, ORIENTATIONS, GRID = 4, 6, 4
FEATURES = GRID**2 * (SCALES * ORIENTATIONS + 3)
MIN_SIDE = 32
# A quarter of a cycle per pixel under a Gaussian of two pixels is about one octave wide.
_FREQUENCY, _SIGMA, _RADIUS = 0.25, 2.0, 3
_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
# RGB to luma and two differences of colour (ITU-R BT.601).
_YCBCR = ((0.299, 0.587, 0.114), (-0.169, -0.331, 0.5), (0.5, -0.419, -0.081))
_PIECE = 64


def features(images: torch.Tensor) -> torch.Tensor:
    """GIST of images `(B, 1 or 3, H, W)` in [0, 1], float32 `(B, 432)`.

    Of each cell: the mean luma and colour differences, and for each scale and orientation the square
    root of the mean strength of the edges, which keeps one strong edge from hiding many faint ones.
    Gray images have no colour differences. Nothing in it is random. Raises `ValueError` for images of
    another shape, or of less than 32 pixels a side.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or min(images.shape[2:]) < MIN_SIDE:
        raise ValueError(
            f"images have shape {tuple(images.shape)}; features take (B, 1 or 3, H, W) of at least "
            f"{MIN_SIDE} pixels a side"
        )
    return torch.cat([_gist(piece.float()) for piece in torch.split(images, _PIECE)])


def frechet_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Squared Fréchet distance of the Gaussians that have the moments of two sets of features.

    |μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½) of features `(N, F)` and `(M, F)`, N and M at least
    2; Heusel et al. 2017 (https://arxiv.org/abs/1706.08500). It is biased upwards where images are
    few: compare values of equally many. Raises `ValueError` for features of other shapes.
    """
    a, b = _checked(a, b)
    # torch gives the covariance of a single feature without axes.
    cov_a, cov_b = (torch.cov(x.T).reshape(x.shape[1], x.shape[1]) for x in (a, b))
    # The trace of the root of a product is that of a symmetric matrix with the same eigenvalues.
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    means = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    return max(0.0, float(means + cov_a.trace() + cov_b.trace() - 2 * shared))


def kernel_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Unbiased squared maximum mean discrepancy of two sets of features `(N, F)` and `(M, F)`.

    Under the kernel (x · y / F + 1)³; Bińkowski et al. 2018 (https://arxiv.org/abs/1801.01401). Of
    two samples of one distribution it is 0 in the mean, and so may be a little below. Raises
    `ValueError` for features of other shapes.
    """
    a, b = _checked(a, b)
    n, m = len(a), len(b)
    within_a, within_b = _kernel(a, a), _kernel(b, b)
    mean_a = (within_a.sum() - within_a.trace()) / (n * (n - 1))
    mean_b = (within_b.sum() - within_b.trace()) / (m * (m - 1))
    return float(mean_a + mean_b - 2 * _kernel(a, b).mean())


def _kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _checked(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    fitting = a.ndim == b.ndim == 2 and a.shape[1] == b.shape[1] and min(len(a), len(b)) >= 2
    if not fitting:
        raise ValueError(
            f"features have shapes {tuple(a.shape)} and {tuple(b.shape)}; they must be (N, F) and "
            "(M, F) with N and M at least 2"
        )
    return a.double().cpu(), b.double().cpu()


def _gist(images: torch.Tensor) -> torch.Tensor:
    coloured = images.expand(-1, 3, -1, -1)
    planes = torch.einsum("ij,bjhw->bihw", torch.tensor(_YCBCR, device=images.device), coloured)
    found = [_cells(planes)]
    level = planes[:, :1]
    for _ in range(SCALES):
        found.append(_cells(_edges(level)).sqrt())
        level = _halved(level)
    return torch.cat(found, dim=1)


def _cells(planes: torch.Tensor) -> torch.Tensor:
    return functional.adaptive_avg_pool2d(planes, GRID).flatten(1)


def _edges(luma: torch.Tensor) -> torch.Tensor:
    """The strength of edges at each place, `(B, orientations, H, W)`, whatever their polarity."""
    padded = functional.pad(luma, (_RADIUS,) * 4, mode="reflect")
    even, odd = functional.conv2d(padded, _gabors().to(luma.device)).chunk(2, dim=1)
    return torch.hypot(even, odd)


def _halved(luma: torch.Tensor) -> torch.Tensor:
    """The next level of a Gaussian pyramid (Burt and Adelson 1983)."""
    line = torch.tensor(_BINOMIAL, device=luma.device)
    padded = functional.pad(luma, (2,) * 4, mode="reflect")
    return functional.conv2d(padded, torch.outer(line, line)[None, None], stride=2)


def _gabors() -> torch.Tensor:
    """The even, then the odd Gabor filter of each orientation, `(2 · orientations, 1, 7, 7)`.

    A pair has unit norm; none of them sees a change of brightness.
    """
    offsets = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64)
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    window = torch.exp(-(x**2 + y**2) / (2 * _SIGMA**2))
    even, odd = [], []
    for turn in range(ORIENTATIONS):
        angle = math.pi * turn / ORIENTATIONS
        phase = 2 * math.pi * _FREQUENCY * (x * math.cos(angle) + y * math.sin(angle))
        wave = window * torch.cos(phase)
        wave = wave - window * wave.sum() / window.sum()
        sine = window * torch.sin(phase)
        norm = (wave.square() + sine.square()).sum().sqrt()
        even.append(wave / norm)
        odd.append(sine / norm)
    return torch.stack(even + odd)[:, None].float()
