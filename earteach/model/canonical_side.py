"""The canonical side: every ear is turned to face one way, and its code remembers which way it faced.

A left ear is the mirror image of a right one, so a network that sees one kind only has less to learn.
The last dimension of a code is +1 for an ear that faced the canonical side and −1 for one that was
mirrored. Two deciders tell the sides apart: PCA (`side_by_residual`) and a small network
(`SideClassifier`), for encoders that do without PCA.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from earteach.model.convolution import group_norm
from earteach.model.pca_path import PCAPath, shrink_factor

# Narrow enough that noise never turns an ear round: ±1 is more than seven sigmas from 0.
_SIDE_LOGVAR = -4.0
_CLASSIFIER_SIZE, _CLASSIFIER_WIDTHS = 32, (16, 32, 64)


def mirrored(x: torch.Tensor, which: torch.Tensor | None = None) -> torch.Tensor:
    """Images or maps `(B, C, H, W)` flipped left to right; `which` (bool, `(B,)`) selects some."""
    flipped = x.flip(3)
    return flipped if which is None else torch.where(which[:, None, None, None], flipped, x)


def with_side(
    mu: torch.Tensor, logvar: torch.Tensor, is_canonical: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """mu and logvar `(B, K)` with one more dimension: the side, ±1 and nearly certain."""
    side = torch.where(is_canonical, 1.0, -1.0)[:, None]
    side_logvar = torch.full_like(side, _SIDE_LOGVAR)
    return torch.cat([mu, side], dim=1), torch.cat([logvar, side_logvar], dim=1)


def side_by_residual(x: torch.Tensor, pca: PCAPath) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether each image `(B, C, S, S)` faces the canonical side, bool `(B,)`, and its PCA code.

    Of an image and its mirror, the canonical one is the one that the components explain better; the
    code `(B, K)` is that one's. Without components, as before training, every image is canonical.
    """
    code, residual = pca.encode(x)
    mirrored_code, mirrored_residual = pca.encode(mirrored(x))
    # Of equal codes, the residuals differ by rounding alone.
    is_canonical = (residual <= mirrored_residual) | (code == mirrored_code).all(dim=1)
    return is_canonical, torch.where(is_canonical[:, None], code, mirrored_code)


class SideClassifier(nn.Module):
    """A small network on gray images of at most 32 pixels a side.

    It gives a logit, `(B,)`, positive for the canonical side. The response to the mirror image is
    subtracted, so an ear and its mirror image always get opposite sides.
    """

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.shrink = shrink_factor(image_size, _CLASSIFIER_SIZE)
        side = image_size // self.shrink
        layers: list[nn.Module] = []
        for before, after in pairwise((1, *_CLASSIFIER_WIDTHS)):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1),
                group_norm(after),
                nn.SiLU(),
            ]
            side = (side + 1) // 2
        self.network = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(after * side**2, 1, bias=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logit: torch.Tensor = self._response(x) - self._response(mirrored(x))
        return logit[:, 0].float()

    def _response(self, x: torch.Tensor) -> torch.Tensor:
        gray = functional.avg_pool2d(x.mean(dim=1, keepdim=True), self.shrink)
        response: torch.Tensor = self.network(gray)
        return response
