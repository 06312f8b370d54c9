"""PSNR, SSIM and MS-SSIM of each image, in plain torch.

Training uses torchmetrics, which takes seconds to import; commands that only decode use these, and
a test holds that both agree.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from earteach.errors import EarTeachError

_RADIUS, _SIGMA = 5, 1.5
_C1, _C2 = 0.01**2, 0.03**2
# What each scale of MS-SSIM counts, finest first.
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MIN_SIDE = _RADIUS + 1
# The coarsest of the five scales must hold the whole window.
MS_SSIM_MIN_SIDE = (2 * _RADIUS + 1) * 2 ** (len(_SCALES) - 1)


class ImageQuality:
    """PSNR, SSIM and, where the size allows, MS-SSIM of each image, gathered batch by batch."""

    def __init__(self) -> None:
        self._psnr: list[torch.Tensor] = []
        self._ssim: list[torch.Tensor] = []
        self._ms_ssim: list[torch.Tensor] = []

    def update(self, images: torch.Tensor, targets: torch.Tensor) -> None:
        """Add a batch: `images` and what they should be, both `(B, C, H, W)` in [0, 1]."""
        # The windows of SSIM lose a third of its value in bfloat16.
        with torch.autocast(images.device.type, enabled=False):
            similarity, multiscale = ssim_and_ms_ssim(images, targets)
            self._psnr.append(psnr(images, targets).double().cpu())
        self._ssim.append(similarity.double().cpu())
        if multiscale is not None:
            self._ms_ssim.append(multiscale.double().cpu())

    @property
    def psnr(self) -> np.ndarray:
        """dB, float64 `(N,)`."""
        return torch.cat(self._psnr).numpy()

    @property
    def ssim(self) -> np.ndarray:
        """float64 `(N,)`."""
        return torch.cat(self._ssim).numpy()

    @property
    def ms_ssim(self) -> np.ndarray | None:
        """float64 `(N,)`; None where the images are smaller than `MS_SSIM_MIN_SIDE`."""
        return torch.cat(self._ms_ssim).numpy() if self._ms_ssim else None


def psnr(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of each image in dB, data range 1, `(B,)`; inf where equal."""
    error = (images.float() - targets.float()).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(error)


def ssim(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Structural similarity of each image, data range 1, `(B,)`.

    Wang et al. 2004 (https://doi.org/10.1109/TIP.2003.819861) with an 11×11 Gaussian window of σ 1.5
    on images reflected at their edges, averaged over channels and places: torchmetrics' default.

    Raises `EarTeachError` for images with a side under `MIN_SIDE`.
    """
    luminance, structure = _similarity(images.float(), targets.float())
    return _image_means(luminance * structure)


def ms_ssim(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Multi-scale structural similarity of each image, data range 1, `(B,)`.

    Wang et al. 2003 (https://doi.org/10.1109/ACSSC.2003.1292216): the product over five scales, each
    half as large as the one before, of the structure term's mean, and at the coarsest of the whole
    SSIM's, each to the power of its weight. As in torchmetrics' default, means under 0 count as 0 and
    the structure term is averaged where the window lies inside the image.

    Raises `EarTeachError` for images with a side under `MS_SSIM_MIN_SIDE`.
    """
    _, result = ssim_and_ms_ssim(images, targets)
    if result is None:
        raise EarTeachError(f"MS-SSIM needs images of at least {MS_SSIM_MIN_SIDE} pixels a side")
    return result


def ssim_and_ms_ssim(
    images: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Both at once, for the cost of MS-SSIM alone; None where the images are too small for it."""
    x, y = images.float(), targets.float()
    luminance, structure = _similarity(x, y)
    finest = _image_means(luminance * structure)
    if min(images.shape[2:]) < MS_SSIM_MIN_SIDE:
        return finest, None
    product = torch.ones_like(finest)
    for weight in _SCALES[:-1]:
        inside = structure[..., _RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
        product = product * _image_means(inside).relu() ** weight
        x, y = functional.avg_pool2d(x, 2), functional.avg_pool2d(y, 2)
        luminance, structure = _similarity(x, y)
    return finest, product * _image_means(luminance * structure).relu() ** _SCALES[-1]


def _similarity(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """SSIM's luminance term, and its contrast and structure terms in one, `(B, C, H, W)` each."""
    if min(x.shape[2:]) < MIN_SIDE:
        raise EarTeachError(f"SSIM needs images of at least {MIN_SIDE} pixels a side")
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _blur(torch.cat([x, y, x * x, y * y, x * y])).chunk(
        5
    )
    var_x = (mean_xx - mean_x.square()).clamp(min=0)
    var_y = (mean_yy - mean_y.square()).clamp(min=0)
    covariance = mean_xy - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    structure = (2 * covariance + _C2) / (var_x + var_y + _C2)
    return luminance, structure


def _image_means(maps: torch.Tensor) -> torch.Tensor:
    """Means over channels and places, `(B,)`."""
    return maps.mean(dim=(1, 2, 3))


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
