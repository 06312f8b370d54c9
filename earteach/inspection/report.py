"""The result of an inspection; its field names are the JSON keys that scripts rely on."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Inspection:
    train: ArrayReport
    val: ArrayReport | None
    leakage: Leakage
    problems: tuple[Problem, ...]
