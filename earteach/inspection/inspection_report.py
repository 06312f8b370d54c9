"""The result of an inspection; its field names are the keys of the JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from earteach.config import Layout

Severity = Literal["error", "warning"]
ArrayName = Literal["train", "val"]


@dataclass(frozen=True)
class ArrayReport:
    """What one array holds. Statistics are over its finite values, None without any."""

    path: str
    images: int
    height: int
    width: int
    channels: int
    layout: Layout
    dtype: str
    min: float | None  # min, max, mean and std are in the array's stored scale
    max: float | None
    mean: float | None
    std: float | None
    channel_means: tuple[float, ...] | None  # these two in [0, 1]
    channel_stds: tuple[float, ...] | None
    non_finite: int  # images with NaN or infinity
    constant: int  # images whose pixels are all equal
    duplicates: int  # images that repeat an earlier one exactly


@dataclass(frozen=True)
class Leakage:
    """Number of validation images that are also in the training array: exactly, and nearly."""

    exact: int
    near: int


@dataclass(frozen=True)
class Problem:
    """One finding about rows `indices` of `array`, or about the whole array if they are empty."""

    severity: Severity
    code: str
    message: str  # one line: what was found, and the next step
    indices: tuple[int, ...] = ()
    array: ArrayName = "train"
    like: tuple[int, ...] = ()  # for copies: the training row that each index resembles


@dataclass(frozen=True)
class Forecast:
    """What PCA of the training images and their mirrors predicts for a training run.

    `psnr` is the mean over images of PCA's PSNR, with `components` as many as latent dimensions, or one
    fewer than images. A latent dimension stays active if the variance that it explains, summed over
    pixels, exceeds `elbo_beta` (Lucas et al. 2019, https://arxiv.org/abs/1911.02469). `alive_units`
    counts them by `eigenvalues`, extrapolated beyond the last one.
    """

    image_size: int
    latent_dim: int
    components: int
    psnr: float  # dB
    psnr_of: ArrayName  # the training images only if there are no others
    psnr_images: int
    elbo_beta: float  # the KLD weight as weight · D / 2, per latent dimension under `mean`
    alive_units: int
    eigenvalues: tuple[float, ...]  # of images in [0, 1], descending


@dataclass(frozen=True)
class Inspection:
    train: ArrayReport
    val: ArrayReport | None
    leakage: Leakage
    problems: tuple[Problem, ...]
    forecast: Forecast | None = None
    pictures: Mapping[str, Path] = field(default_factory=dict)
