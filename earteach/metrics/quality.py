"""PSNR and SSIM of each image, in plain torch.

Training uses torchmetrics, which takes seconds to import; commands that only decode use these, and
a test holds that both agree.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from earteach.errors import EarTeachError

_RADIUS, _SIGMA = 5, 1.5
_C1, _C2 = 0.01**2, 0.03**2
MIN_SIDE = _RADIUS + 1


def psnr(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of each image in dB, data range 1, `(B,)`; inf where equal."""
    error = (images.float() - targets.float()).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(error)


def ssim(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Structural similarity of each image, data range 1, `(B,)`.

    Wang et al. 2004 (https://doi.org/10.1109/TIP.2003.819861) with an 11×11 Gaussian window of σ 1.5
    on images reflected at their edges, averaged over channels and places: torchmetrics' default.
    """
    if min(images.shape[2:]) < MIN_SIDE:
        raise EarTeachError(f"SSIM needs images of at least {MIN_SIDE} pixels a side")
    x, y = images.float(), targets.float()
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _blur(torch.cat([x, y, x * x, y * y, x * y])).chunk(
        5
    )
    var_x = (mean_xx - mean_x.square()).clamp(min=0)
    var_y = (mean_yy - mean_y.square()).clamp(min=0)
    covariance = mean_xy - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    structure = (2 * covariance + _C2) / (var_x + var_y + _C2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def _blur(x: torch.Tensor) -> torch.Tensor:
    """The Gaussian window's weighted mean at each place, `(B, C, H, W)`.

    One convolution with the whole window, as in torchmetrics: two with its factors would be faster,
    and round so differently that `eval` and training disagreed in the fifth digit.
    """
    x = functional.pad(x, (_RADIUS,) * 4, mode="reflect")
    offsets = torch.arange(-_RADIUS, _RADIUS + 1, dtype=x.dtype, device=x.device)
    line = torch.exp(-((offsets / _SIGMA) ** 2) / 2)
    line = line / line.sum()
    window = torch.outer(line, line).expand(x.shape[1], 1, -1, -1)
    return functional.conv2d(x, window, groups=x.shape[1])
