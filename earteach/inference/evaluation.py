"""What an evaluation says: means, intervals, margins, and the yardsticks beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from earteach.inference.evaluation_files import Files
from earteach.inference.health import Health
from earteach.metrics.bootstrap import Interval, mean_interval
from earteach.metrics.doctor import Advice
from earteach.metrics.image_quality import ImageQuality


@dataclass(frozen=True)
class Metrics:
    """Means over the images. PSNR (dB) and SSIM decode mu; loss and recon_loss decode a noisy code.

    `kld` is in nats, summed over the dimensions. `ms_ssim` is None for images under 176 pixels.
    """

    loss: float
    recon_loss: float
    kld: float
    ssim: float
    psnr: float
    active_units: int
    latent_dim: int
    ms_ssim: float | None


@dataclass(frozen=True)
class Intervals:
    """95 % bootstrap intervals of the means over images.

    They say what other images of the same kind could have given, and take the images as independent:
    where there are several of each person, other people could differ by more. None for a single
    image, or where an image's PSNR is infinite.
    """

    psnr: Interval | None
    ssim: Interval | None

    @classmethod
    def of(cls, quality: ImageQuality) -> Intervals:
        return cls(mean_interval(quality.psnr), mean_interval(quality.ssim))


Standing = Literal["ahead of", "behind", "undecided against", "not comparable with"]


@dataclass(frozen=True)
class Margin:
    """The mean of this model's value minus another's, and its 95 % bootstrap interval.

    Both are measured on the same images, so that the interval is far narrower than either's own.
    """

    difference: float
    low: float | None
    high: float | None

    @classmethod
    def between(cls, ours: np.ndarray, theirs: np.ndarray) -> Margin:
        """From the values of each image, in the same order."""
        with np.errstate(invalid="ignore"):  # two infinite PSNRs have no difference
            differences = ours - theirs
            mean = float(differences.mean())
        low, high = mean_interval(differences) or (None, None)
        return cls(mean, low, high)

    @property
    def standing(self) -> Standing:
        """By the side of 0 on which the interval lies; by the difference where there is none."""
        if not math.isfinite(self.difference):
            return "not comparable with"
        low = self.difference if self.low is None else self.low
        high = self.difference if self.high is None else self.high
        if low > 0:
            return "ahead of"
        return "behind" if high < 0 else "undecided against"


@dataclass(frozen=True)
class Margins:
    """This model minus another, paired by image; above 0 where this model is ahead."""

    psnr: Margin
    ssim: Margin

    @classmethod
    def between(cls, ours: ImageQuality, theirs: ImageQuality) -> Margins:
        return cls(Margin.between(ours.psnr, theirs.psnr), Margin.between(ours.ssim, theirs.ssim))


@dataclass(frozen=True)
class MeanImageScore:
    """The mean training image as everyone's reconstruction."""

    psnr: float
    ssim: float
    ms_ssim: float | None
    intervals: Intervals


@dataclass(frozen=True)
class PCAScore:
    """PCA fitted on `images` training images and their mirrors."""

    psnr: float
    ssim: float
    ms_ssim: float | None
    components: int
    images: int
    intervals: Intervals


@dataclass(frozen=True)
class Baselines:
    """The yardsticks, on the same images."""

    mean_image: MeanImageScore
    pca: PCAScore


@dataclass(frozen=True)
class Rival:
    """Another checkpoint on the same images, and how far this model is ahead of it."""

    checkpoint: Path
    metrics: Metrics
    intervals: Intervals
    over_it: Margins


@dataclass(frozen=True)
class Evaluation:
    """What `earteach eval` shows; `advice` is what the doctor says to it."""

    checkpoint: Path
    data: Path
    images: int
    metrics: Metrics
    intervals: Intervals
    baselines: Baselines | None
    over_pca: Margins | None
    against: tuple[Rival, ...]
    files: Files | None
    health: Health
    advice: tuple[Advice, ...]
    seconds: float
