"""PSNR, SSIM and MS-SSIM of each image, data range 1.

SSIM is that of the training loss with torchmetrics' reflected edges, and a test holds that the two
agree: commands that only decode need not wait seconds for torchmetrics to import.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from earteach.metrics.bootstrap import Interval, mean_interval
from earteach.model.loss import dissimilarity, squared_error

_WINDOW_RADIUS = 5
# torchmetrics' five scales with their 11×11 window need this many pixels.
MS_SSIM_MIN_SIDE = 176
# Values per piece: what fits into a CPU core's cache is several times as fast.
_PIECE_VALUES = 2**17


@dataclass(frozen=True)
class ImageQuality:
    """The quality of N images, float64 `(N,)` each; `ms_ssim` is None for small images."""

    psnr: np.ndarray
    ssim: np.ndarray
    ms_ssim: np.ndarray | None

    def means(self) -> tuple[float, float, float | None]:
        """PSNR, SSIM and MS-SSIM."""
        ms_ssim = None if self.ms_ssim is None else float(self.ms_ssim.mean())
        return float(self.psnr.mean()), float(self.ssim.mean()), ms_ssim


@dataclass(frozen=True)
class Intervals:
    """95 % bootstrap intervals of the means over images; None for one image or an infinite PSNR.

    They treat images as independent: with several images of each person, other people could differ
    by more.
    """

    psnr: Interval | None
    ssim: Interval | None

    @classmethod
    def of(cls, quality: ImageQuality) -> Intervals:
        return cls(mean_interval(quality.psnr), mean_interval(quality.ssim))


Standing = Literal["ahead of", "behind", "undecided against", "not comparable with"]


@dataclass(frozen=True)
class Margin:
    """The mean of this model's values minus another's on the same images, and its 95 % interval.

    The differences are paired by image, so the interval is far narrower than either model's own.
    """

    difference: float
    low: float | None
    high: float | None

    @classmethod
    def between(cls, ours: np.ndarray, theirs: np.ndarray) -> Margin:
        with np.errstate(invalid="ignore"):  # two infinite PSNRs have no difference
            differences = ours - theirs
            mean = float(differences.mean())
        return cls(mean, *(mean_interval(differences) or (None, None)))

    @property
    def interval(self) -> Interval | None:
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def standing(self) -> Standing:
        """By the interval, or by the difference where there is none."""
        if not math.isfinite(self.difference):
            return "not comparable with"
        low, high = self.interval or (self.difference, self.difference)
        if low > 0:
            return "ahead of"
        return "behind" if high < 0 else "undecided against"


@dataclass(frozen=True)
class Margins:
    """This model minus another, paired by image; positive where this model is better."""

    psnr: Margin
    ssim: Margin

    @classmethod
    def between(cls, ours: ImageQuality, theirs: ImageQuality) -> Margins:
        return cls(Margin.between(ours.psnr, theirs.psnr), Margin.between(ours.ssim, theirs.ssim))


class QualityMeter:
    """Collects the quality of images batch by batch."""

    def __init__(self, *, multiscale: bool = True) -> None:
        self._multiscale = multiscale
        # Floats, not tensors: small tensors kept between batches fragment the heap.
        self._values: dict[str, list[float]] = {"psnr": [], "ssim": [], "ms_ssim": []}

    def update(self, images: torch.Tensor, targets: torch.Tensor) -> None:
        """Compare a batch of images with their targets, `(B, C, H, W)` in [0, 1] each."""
        self._values["psnr"] += psnr(images, targets).tolist()
        self._values["ssim"] += ssim(images, targets).tolist()
        if self._multiscale and min(images.shape[2:]) >= MS_SSIM_MIN_SIDE:
            self._values["ms_ssim"] += ms_ssim(images, targets).tolist()

    def compute(self) -> ImageQuality:
        """The quality of all images so far, in order."""
        psnr, ssim, ms_ssim = map(np.array, self._values.values())
        return ImageQuality(psnr, ssim, ms_ssim if len(ms_ssim) else None)


def psnr(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of each image in dB, `(B,)`; inf for equal images."""
    return -10 * torch.log10(squared_error(images, targets))


def ssim(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Structural similarity of each image, `(B,)`; sides of at least 6 pixels.

    Wang et al. 2004 (https://doi.org/10.1109/TIP.2003.819861) with torchmetrics' defaults: an 11×11
    Gaussian window of σ 1.5, edges reflected, averaged over channels and pixels.
    """
    size = len(images)
    if images.device.type == "cpu":
        size = max(1, _PIECE_VALUES // images[0].numel())
    images, targets = (
        functional.pad(x.float(), (_WINDOW_RADIUS,) * 4, mode="reflect") for x in (images, targets)
    )
    pieces = zip(torch.split(images, size), torch.split(targets, size), strict=True)
    return torch.cat([1 - dissimilarity(*pair) for pair in pieces])


def ms_ssim(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Multi-scale structural similarity of each image by torchmetrics, `(B,)`.

    Wang et al. 2003 (https://doi.org/10.1109/ACSSC.2003.1292216); sides of at least 176 pixels.
    """
    from torchmetrics.functional import image

    measure = image.multiscale_structural_similarity_index_measure

    # bfloat16 windows would lose a third of the value. One image at a time needs less memory.
    with torch.autocast(images.device.type, enabled=False):
        pairs = zip(torch.split(images.float(), 1), torch.split(targets.float(), 1), strict=True)
        return torch.stack([measure(*pair, data_range=1.0) for pair in pairs])
