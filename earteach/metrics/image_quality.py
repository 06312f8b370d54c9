"""PSNR, SSIM and MS-SSIM of each image, in plain torch.

Training uses torchmetrics, which takes seconds to import; commands that only decode use these, and
a test holds that both agree. These are several times as fast and round less: SSIM in torchmetrics'
float32 is up to 1e-5 from the exact value of an image, here 2e-6.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

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
_CACHED_VALUES = 2**17


class ImageQuality:
    """PSNR, SSIM and, where the size allows, MS-SSIM of each image, gathered batch by batch."""

    def __init__(self) -> None:
        # Plain numbers: small tensors kept between batches would break the heap into pieces that the
        # next batch does not fit.
        self._psnr: list[float] = []
        self._ssim: list[float] = []
        self._ms_ssim: list[float] = []

    @classmethod
    def of(cls, psnr: np.ndarray, ssim: np.ndarray, ms_ssim: np.ndarray | None) -> ImageQuality:
        """The values of N images that were gathered before, float64 `(N,)` each."""
        made = cls()
        made._psnr, made._ssim = psnr.tolist(), ssim.tolist()
        made._ms_ssim = [] if ms_ssim is None else ms_ssim.tolist()
        return made

    def update(self, images: torch.Tensor, targets: torch.Tensor) -> None:
        """Add a batch: `images` and what they should be, both `(B, C, H, W)` in [0, 1]."""
        similarity, multiscale = ssim_and_ms_ssim(images, targets)
        self._psnr += psnr(images, targets).tolist()
        self._ssim += similarity.tolist()
        if multiscale is not None:
            self._ms_ssim += multiscale.tolist()

    @property
    def psnr(self) -> np.ndarray:
        """dB, float64 `(N,)`."""
        return np.array(self._psnr)

    @property
    def ssim(self) -> np.ndarray:
        """float64 `(N,)`."""
        return np.array(self._ssim)

    @property
    def ms_ssim(self) -> np.ndarray | None:
        """float64 `(N,)`; None where the images are smaller than `MS_SSIM_MIN_SIDE`."""
        return np.array(self._ms_ssim) if self._ms_ssim else None


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
    pairs = (_similarity(*some) for some in _pieces(images, targets))
    return torch.cat([_image_means(luminance * structure) for luminance, structure in pairs])


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
    found = [_measured(*some) for some in _pieces(images, targets)]
    if any(multiscale is None for _, multiscale in found):
        return torch.cat([finest for finest, _ in found]), None
    finest, multiscale = (torch.cat(values) for values in zip(*found, strict=True))
    return finest, multiscale


def _pieces(
    images: torch.Tensor, targets: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """A few images at a time as float32: what a core's own cache holds is several times as fast."""
    at_once = len(images)
    if images.device.type == "cpu":
        at_once = max(1, _CACHED_VALUES // images[0].numel())
    for some, wanted in zip(
        torch.split(images, at_once), torch.split(targets, at_once), strict=True
    ):
        yield some.float(), wanted.float()


def _measured(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    luminance, structure = _similarity(x, y)
    finest = _image_means(luminance * structure)
    if min(x.shape[2:]) < MS_SSIM_MIN_SIDE:
        return finest, None
    product = torch.ones_like(finest)
    for weight in _SCALES[:-1]:
        inside = structure[..., _RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
        product = product * _image_means(inside).relu() ** weight
        x, y = functional.avg_pool2d(x, 2), functional.avg_pool2d(y, 2)
        luminance, structure = _similarity(x, y)
    return finest, product * _image_means(luminance * structure).relu() ** _SCALES[-1]


def _similarity(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """SSIM's luminance term, and its contrast and structure terms in one, `(B, C, H, W)` each.

    They are written with the sum s and the difference d of the images, as 4xy = s² − d² and
    2(x² + y²) = s² + d²: four maps to blur instead of five, and what differs little loses no digits.
    """
    if min(x.shape[2:]) < MIN_SIDE:
        raise EarTeachError(f"SSIM needs images of at least {MIN_SIDE} pixels a side")
    s, d = x + y, x - y
    mean_s, mean_d, mean_ss, mean_dd = _blur(torch.cat([s, d, s * s, d * d], dim=1)).chunk(4, dim=1)
    ss, dd = mean_s.square(), mean_d.square()
    var_s, var_d = (mean_ss - ss).clamp(min=0), (mean_dd - dd).clamp(min=0)
    luminance = (ss - dd + 2 * _C1) / (ss + dd + 2 * _C1)
    structure = (var_s - var_d + 2 * _C2) / (var_s + var_d + 2 * _C2)
    return luminance, structure


def _image_means(maps: torch.Tensor) -> torch.Tensor:
    """Means over channels and places, `(B,)`."""
    return maps.mean(dim=(1, 2, 3))


def _blur(x: torch.Tensor) -> torch.Tensor:
    """The Gaussian window's weighted mean at each place, `(B, C, H, W)`, along each axis in turn."""
    x = functional.pad(x, (_RADIUS,) * 4, mode="reflect")
    line = _window().to(x.device)
    # In bfloat16 the windows would lose a third of SSIM's value.
    with torch.autocast(x.device.type, enabled=False):
        for shape in ((-1, 1), (1, -1)):
            x = functional.conv2d(
                x, line.reshape(1, 1, *shape).expand(x.shape[1], -1, -1, -1), groups=x.shape[1]
            )
    return x


@cache
def _window() -> torch.Tensor:
    """The Gaussian window along a line, of sum 1."""
    offsets = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64)
    line = torch.exp(-((offsets / _SIGMA) ** 2) / 2)
    return (line / line.sum()).float()
