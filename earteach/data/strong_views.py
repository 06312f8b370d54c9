"""Views of images in other poses and with strong changes of colour, and where their points have gone.

They are made on the images' device, batch by batch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch.nn import functional

# Larger views would take time and memory, and ears in photographs of people are seldom larger.
LARGEST_SIDE = 128
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


def strong_views(
    images: torch.Tensor, generator: torch.Generator, *, shift: float = _SHIFT
) -> StrongViews:
    """Turn, scale, shift and mirror images `(B, C, S, S)` in [0, 1]; then change how they look.

    A view's side is at most `LARGEST_SIDE` pixels. `shift` is the largest, in half sides.
    """
    side = min(images.shape[3], LARGEST_SIDE)
    matrices = _random_poses(len(images), generator, shift).to(images.device)
    images = functional.interpolate(images, (side, side), mode="area")  # without aliasing
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return StrongViews(_recoloured(moved, generator), matrices)


def _random_poses(count: int, generator: torch.Generator, shift: float) -> torch.Tensor:
    angle, scale, shift_x, shift_y = (2 * torch.rand(4, count, generator=generator) - 1).unbind()
    angle, scale = math.radians(_ROTATION) * angle, torch.exp(_SCALE * scale)
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    rows = [cos * mirror, -sin, shift * shift_x, sin * mirror, cos, shift * shift_y]
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
