"""The result of an inspection; its field names are the JSON keys that scripts rely on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from earteach.config import Layout

Severity = Literal["error", "warning"]
Side = Literal["train", "val"]


@dataclass(frozen=True)
class ArrayReport:
    """What one array holds. Statistics are over its finite values; None where there are none."""

    path: str
    images: int
    height: int
    width: int
    channels: int
    layout: Layout
    dtype: str
    min: float | None  # min, max, mean and std are in the array's own stored scale
    max: float | None
    mean: float | None
    std: float | None
    channel_means: tuple[float, ...] | None  # these two in [0, 1]
    channel_stds: tuple[float, ...] | None
    non_finite: int  # images with NaN or infinity
    constant: int  # images whose every pixel is equal
    duplicates: int  # images that repeat an earlier one exactly


@dataclass(frozen=True)
class Leakage:
    """How many validation images are in the training array: exactly, and nearly but not exactly."""

    exact: int
    near: int


@dataclass(frozen=True)
class Problem:
    """One finding. `indices` are rows of the array named by `array`; empty: all of that array."""

    severity: Severity
    code: str
    message: str  # one line: what was found, and the next step
    indices: tuple[int, ...] = ()
    array: Side = "train"
    like: tuple[int, ...] = ()  # of copies: the row of the training array that each index is like


@dataclass(frozen=True)
class Forecast:
    """What PCA of the training images and their mirrors foretells of a run.

    `psnr` is the mean over images of each one's own, with as many `components` as there are latent
    numbers, or one less than there are images. A latent unit stays alive where the variance that it
    explains, summed over pixels, exceeds `elbo_beta` (Lucas et al. 2019,
    https://arxiv.org/abs/1911.02469); `alive_units` counts by `eigenvalues`, and beyond the last of
    these by their usual fall.
    """

    image_size: int
    latent_dim: int
    components: int
    psnr: float  # dB
    psnr_of: Side  # on training images only where there are no others
    psnr_images: int
    elbo_beta: float  # the KLD weight as weight · D / 2, per latent number under `mean`
    alive_units: int
    eigenvalues: tuple[float, ...]  # of images in [0, 1], descending


@dataclass(frozen=True)
class Inspection:
    train: ArrayReport
    val: ArrayReport | None
    leakage: Leakage
    problems: tuple[Problem, ...]
    forecast: Forecast | None = None
    pictures: Mapping[str, Path] = field(default_factory=dict)  # what was drawn, and where
