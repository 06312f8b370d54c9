"""PSNR, SSIM and MS-SSIM of each image, data range 1.

SSIM is that of the training loss with torchmetrics' reflected edges, and a test holds that the two
agree: commands that only decode need not wait seconds for torchmetrics to import.

To add a metric of `eval`, write its function, and name it in `METRICS` and `QualityMeans`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional

from earteach.metrics.bootstrap import Interval
from earteach.model.loss import dissimilarity, squared_error

_WINDOW_RADIUS = 5
_COMPARED = ("psnr", "ssim")

Intervals = dict[str, Interval | None]
# Values per piece: what fits into a CPU core's cache is several times as fast.
_PIECE_VALUES = 2**17


@dataclass(frozen=True, kw_only=True)
class QualityMeans:
    """Means over images. `ms_ssim` is None for images smaller than 176 pixels."""

    psnr: float
    ssim: float
    ms_ssim: float | None


@dataclass(frozen=True)
class ImageQuality:
    """The values of N images by metric, float64 `(N,)`, without metrics they are too small for."""

    values: dict[str, np.ndarray]

    @property
    def psnr(self) -> np.ndarray:
        return self.values["psnr"]

    @property
    def ssim(self) -> np.ndarray:
        return self.values["ssim"]

    def means(self) -> dict[str, Any]:
        """The fields of `QualityMeans`."""
        means = {name: float(values.mean()) for name, values in self.values.items()}
        return {name: means.get(name) for name in METRICS}


def mean_interval(values: np.ndarray) -> Interval | None:
    """The 95 % interval of the mean of values `(N,)`: 1.96 standard errors to either side.

    It treats images as independent: with several images of each person, other people could differ by
    more. None for fewer than two values, and where one is not finite.
    """
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    mean, reach = float(values.mean()), 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean - reach, mean + reach


def intervals(quality: ImageQuality) -> Intervals:
    """The `mean_interval` of PSNR and of SSIM, by name."""
    return {name: mean_interval(quality.values[name]) for name in _COMPARED}


Standing = Literal["ahead of", "behind", "tied with", "not comparable with"]


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
        return "behind" if high < 0 else "tied with"


def margins(ours: ImageQuality, theirs: ImageQuality) -> dict[str, Margin]:
    """PSNR and SSIM of this model minus another's, by name; positive where this model is better."""
    return {name: Margin.between(ours.values[name], theirs.values[name]) for name in _COMPARED}


class QualityMeter:
    """Collects the quality of images batch by batch, by all metrics or by those named."""

    def __init__(self, *names: str) -> None:
        # Floats, not tensors: small tensors kept between batches fragment the heap.
        self._values: dict[str, list[float]] = {name: [] for name in names or METRICS}

    def update(self, images: torch.Tensor, targets: torch.Tensor) -> None:
        """Compare a batch of images with their targets, `(B, C, H, W)` in [0, 1] each."""
        for name, values in self._values.items():
            if min(images.shape[2:]) >= METRICS[name].min_side:
                values += METRICS[name].measure(images, targets).tolist()

    def compute(self) -> ImageQuality:
        """The quality of all images so far, in order."""
        return ImageQuality({n: np.array(values) for n, values in self._values.items() if values})


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


@dataclass(frozen=True)
class QualityMetric:
    """A metric of images `(B, C, H, W)` beside their targets, `(B,)`, and how its mean is shown."""

    label: str
    form: str
    measure: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    min_side: int = 1


METRICS = {
    "psnr": QualityMetric("PSNR", "{:.2f} dB", psnr),
    "ssim": QualityMetric("SSIM", "{:.4f}", ssim),
    # torchmetrics' five scales with their 11×11 window need 176 pixels.
    "ms_ssim": QualityMetric("MS-SSIM", "{:.4f}", ms_ssim, min_side=176),
}
