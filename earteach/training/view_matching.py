"""What the teaching objective compares: points of images, and the same points in strong views of them.

The views are a function of (seed, step, rank), as the latent noise is.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from earteach.data.strong_views import strong_views
from earteach.model.correspondence import Matches, random_points
from earteach.model.feature_pyramid import descriptors
from earteach.model.vae import ConvVAE, EncoderOutput


def match_views(
    network: ConvVAE, images: torch.Tensor, output: EncoderOutput, generator: torch.Generator
) -> Matches:
    """Points of half of the images, in the encoder's `output` and in a strong view of each.

    The views keep the side that they show, so that the encoder meets both sides.
    """
    count, pyramid = -(-len(images) // 2), network.pyramid
    assert pyramid is not None
    views = strong_views(images[:count], generator)
    points = random_points(count, generator).to(images.device)
    moved = views.points(points)
    first = descriptors(pyramid([level[:count] for level in output.maps]), points)
    second = _described(network, views.images, moved)
    visible = (moved.abs() < 1).all(dim=2)
    if output.is_canonical is None:
        return Matches(points, visible, first, second)
    side = torch.where(output.is_canonical[:count], 1.0, -1.0)[:, None]
    canonical = torch.stack([points[:, :, 0] * side, points[:, :, 1]], dim=2)
    return Matches(canonical, visible, first, second, is_canonical=True)


def _described(network: ConvVAE, views: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Descriptors `(B, P, D)` of the points `(B, P, 2)` of views; two in three lie in mosaics.

    A detector meets small ears among other things. A mosaic has four at the cost of one image.
    """
    pyramid, encoder = network.pyramid, network.encoder
    assert pyramid is not None
    whole = len(views) - len(views) * 2 // 3 // 4 * 4
    mosaics, placed = _mosaics(views[whole:], points[whole:])
    levels = pyramid(encoder.maps(encoder(torch.cat([views[:whole], mosaics]))))
    described = descriptors([level[:whole] for level in levels], points[:whole])
    small = descriptors([level[whole:] for level in levels], placed)
    return torch.cat([described, small.reshape(-1, *described.shape[1:])])


def _mosaics(views: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Views `(4 M, C, S, S)` at half their size as `(M, C, S, S)`, and points as `(M, 4 P, 2)`."""
    half = functional.avg_pool2d(views, 2)
    tiles = half.reshape(len(views) // 4, 2, 2, *half.shape[1:])  # M, row, column, C, S / 2, S / 2
    mosaics = tiles.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    centres = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]).to(points)
    # A point outside its view must not lie in another ear.
    placed = points.clamp(-1, 1).reshape(len(views) // 4, 4, *points.shape[1:]) / 2
    return mosaics, (placed + centres[:, None]).flatten(1, 2)
