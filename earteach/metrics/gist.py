"""How near a set of images is to another: distances, precision and recall, on GIST features.

GIST (Oliva and Torralba 2001, https://doi.org/10.1023/A:1011139631724) needs no download: edge
strengths at four scales and six orientations in a 4×4 grid, and the cells' mean colours. The distances
are not FID and KID, which use Inception's features. Compare values only for images of one size and
equal numbers of images.

>>> similarity(features(samples), features(photographs)).frechet
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

SCALES, ORIENTATIONS, GRID = 4, 6, 4
# A quarter of a cycle per pixel under a Gaussian of two pixels is about one octave wide.
_FREQUENCY, _SIGMA, _RADIUS = 0.25, 2.0, 3
_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
# RGB to luma and two differences of colour (ITU-R BT.601).
_YCBCR = ((0.299, 0.587, 0.114), (-0.169, -0.331, 0.5), (0.5, -0.419, -0.081))
_PIECE = 64
_NEIGHBOURS = 3


@dataclass(frozen=True)
class Similarity:
    """Of a set of images to real ones.

    `frechet` and `kernel` are distances. `precision` is the share of the images that look real, `recall`
    that of the real ones of which the images have the like.
    """

    frechet: float
    kernel: float
    precision: float
    recall: float


def similarity(images: torch.Tensor, real: torch.Tensor) -> Similarity:
    """From the features `(N, F)` of both, N more than 3."""
    return Similarity(
        frechet_distance(images, real),
        kernel_distance(images, real),
        _covered(images, real),
        _covered(real, images),
    )


def features(images: torch.Tensor) -> torch.Tensor:
    """GIST of images `(B, 1 or 3, H, W)` in [0, 1], sides of 32 pixels or more: float32 `(B, 432)`.

    For each cell: the mean luma and colour differences, and for each scale and orientation the square
    root of the mean edge strength, so that one strong edge does not hide many faint ones.
    """
    return torch.cat([_gist(piece.float()) for piece in torch.split(images, _PIECE)])


def frechet_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Squared Fréchet distance between the Gaussians with the moments of features `(N, F)`, `(M, F)`.

    |μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½), Heusel et al. 2017
    (https://arxiv.org/abs/1706.08500). It is biased upwards for few images: compare equal numbers.
    """
    a, b = a.double().cpu(), b.double().cpu()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    # The trace of the root of a product is that of a symmetric matrix with the same eigenvalues.
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    means = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    return max(0.0, float(means + cov_a.trace() + cov_b.trace() - 2 * shared))


def kernel_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Unbiased squared maximum mean discrepancy of features `(N, F)` and `(M, F)`.

    The kernel is (x · y / F + 1)³, Bińkowski et al. 2018 (https://arxiv.org/abs/1801.01401). For two
    samples of one distribution it is 0 on average, so it can be slightly negative.
    """
    a, b = a.double().cpu(), b.double().cpu()
    n, m = len(a), len(b)
    within_a, within_b = _kernel(a, a), _kernel(b, b)
    mean_a = (within_a.sum() - within_a.trace()) / (n * (n - 1))
    mean_b = (within_b.sum() - within_b.trace()) / (m * (m - 1))
    return float(mean_a + mean_b - 2 * _kernel(a, b).mean())


def _covered(points: torch.Tensor, others: torch.Tensor) -> float:
    """The share of points that lie nearer to one of the others than its third neighbour among them.

    Precision and recall of Kynkäänniemi et al. 2019 (https://arxiv.org/abs/1904.06991).
    """
    among = torch.cdist(others, others)
    radii = among.kthvalue(min(_NEIGHBOURS + 1, len(others)), dim=1).values  # the first is itself
    return float((torch.cdist(points, others) <= radii).any(dim=1).float().mean())


def _kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _gist(images: torch.Tensor) -> torch.Tensor:
    coloured = images.expand(-1, 3, -1, -1)
    planes = torch.einsum("ij,bjhw->bihw", torch.tensor(_YCBCR, device=images.device), coloured)
    parts = [_cells(planes)]
    level = planes[:, :1]
    for _ in range(SCALES):
        parts.append(_cells(_edges(level)).sqrt())
        level = _halved(level)
    return torch.cat(parts, dim=1)


def _cells(planes: torch.Tensor) -> torch.Tensor:
    return functional.adaptive_avg_pool2d(planes, GRID).flatten(1)


def _edges(luma: torch.Tensor) -> torch.Tensor:
    """Edge strength per pixel, `(B, orientations, H, W)`, independent of polarity."""
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

    Each pair has unit norm and ignores brightness.
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
