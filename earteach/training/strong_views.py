"""A second view of each image for the teaching objective: another pose, and strong changes of colour.

It is made on the images' device, batch by batch, from a generator of its own: a function of
(seed, step, rank), as the latent noise is.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch.nn import functional

from earteach.model.correspondence import Matches, random_points
from earteach.model.feature_pyramid import descriptors
from earteach.model.vae import ConvVAE, EncoderOutput

# Larger views would take time and memory, and ears in photographs of people are seldom larger.
_LARGEST_SIDE = 128
# Degrees, log scale, shift in half sides: the pose of an ear varies by as much between photographs.
_ROTATION, _SCALE, _SHIFT = 25.0, 0.2, 0.2
# Largest relative changes; those of a photograph in other light, and more.
_CHANNELS, _CONTRAST, _BRIGHTNESS, _SATURATION, _GAMMA = 0.2, 0.4, 0.2, 0.6, 0.4
_BLUR_P, _NOISE_P, _NOISE_STD, _OCCLUSION_P, _OCCLUSION_SIDE = 0.3, 0.5, 0.06, 0.5, 0.4


class StrongViews(NamedTuple):
    """Views `(B, C, S, S)` in [0, 1], and where their pixels come from.

    `matrices` `(B, 2, 3)` map a point of the view to its point in the image; x and y are in [−1, 1].
    """

    images: torch.Tensor
    matrices: torch.Tensor

    def points(self, points: torch.Tensor) -> torch.Tensor:
        """Where points `(B, P, 2)` of the images lie in the views."""
        linear, shift = self.matrices[:, :, :2], self.matrices[:, None, :, 2]
        return torch.linalg.solve(linear, (points - shift).transpose(1, 2)).transpose(1, 2)


def match_views(
    network: ConvVAE, images: torch.Tensor, output: EncoderOutput, generator: torch.Generator
) -> Matches:
    """Points of three in four images, in the encoder's `output` and in a strong view of each.

    The views keep the side that they show, so that the encoder meets both sides.
    """
    count, pyramid = -(-3 * len(images) // 4), network.pyramid
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


def strong_views(images: torch.Tensor, generator: torch.Generator) -> StrongViews:
    """Turn, scale, shift and mirror images `(B, C, S, S)` in [0, 1]; then change how they look.

    A view's side is at most `_LARGEST_SIDE` pixels.
    """
    side = min(images.shape[3], _LARGEST_SIDE)
    matrices = _random_poses(len(images), generator).to(images.device)
    images = functional.interpolate(images, (side, side), mode="area")  # without aliasing
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return StrongViews(_recoloured(moved, generator), matrices)


def _random_poses(count: int, generator: torch.Generator) -> torch.Tensor:
    angle, scale, shift_x, shift_y = (2 * torch.rand(4, count, generator=generator) - 1).unbind()
    angle, scale = math.radians(_ROTATION) * angle, torch.exp(_SCALE * scale)
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    rows = [cos * mirror, -sin, _SHIFT * shift_x, sin * mirror, cos, _SHIFT * shift_y]
    return torch.stack(rows, dim=1).reshape(count, 2, 3)


def _recoloured(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Colour, contrast, brightness, saturation, gamma; then blur, noise and a rectangle over some."""
    count, channels, height, width = x.shape

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, 1, 1, generator=generator).to(x.device)

    def change(limit: float, channels: int = 1) -> torch.Tensor:
        return limit * (2 * uniform(channels) - 1)

    x = x * (1 + change(_CHANNELS, channels))
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = mean + (x - mean) * (1 + change(_CONTRAST)) + change(_BRIGHTNESS)
    gray = x.mean(dim=1, keepdim=True)
    x = gray + (x - gray) * (1 + change(_SATURATION))
    x = x.clamp(0, 1) ** torch.exp(change(_GAMMA))
    blurred = functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    x = torch.where(uniform(1) < _BLUR_P, blurred, x)
    noise = torch.randn(x.shape, generator=generator).to(x.device)
    x = x + noise * _NOISE_STD * uniform(1) * (uniform(1) < _NOISE_P)
    rows, columns = (_stretch(side, uniform(1), uniform(1)) for side in (height, width))
    covered = rows.transpose(2, 3) & columns & (uniform(1) < _OCCLUSION_P)
    return torch.where(covered, uniform(channels), x.clamp(0, 1))


def _stretch(side: int, start: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """Bool `(B, 1, 1, side)`: a random stretch of a side, up to `_OCCLUSION_SIDE` of it."""
    at = (torch.arange(side, device=start.device) + 0.5) / side
    return (at >= start) & (at < start + _OCCLUSION_SIDE * length)
