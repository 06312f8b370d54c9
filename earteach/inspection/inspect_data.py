"""`inspect_data`: open and survey the arrays, find problems, forecast, draw."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from earteach.config import Layout, Strength, TrainConfig
from earteach.data.arrays import EarArray
from earteach.inspection.findings import find_problems
from earteach.inspection.inspection_report import ArrayName, ArrayReport, Inspection, Leakage
from earteach.inspection.near_duplicates import exact_repeats
from earteach.inspection.survey import Survey, survey

SHEET_SIZE = 128


def inspect_data(
    train: str | Path,
    val: str | Path | None = None,
    *,
    layout: Layout | None = None,
    config: TrainConfig | None = None,
    out: Path | None = None,
    sheet_size: int = SHEET_SIZE,
    augmented: Strength | None = None,
) -> Inspection:
    """Report what the arrays hold and what is wrong with them.

    With `config`, also predict what a run with it can reach. `out` is a folder for pictures: sheets
    with tiles of `sheet_size`, and with `augmented` also of images augmented at that strength. Raises
    `EarTeachError` only for an array that cannot be opened and for an `out` that cannot be written;
    everything else is a `Problem`.
    """
    # Open both first: a mistyped second path fails at once.
    arrays: dict[ArrayName, EarArray] = {"train": EarArray.open(train, layout)}
    if val is not None:
        arrays["val"] = EarArray.open(val, layout)
    if out is not None:
        from earteach.inspection import pictures  # imports torch

        pictures.prepare_folder(out)
    surveys = {name: survey(array) for name, array in arrays.items()}
    problems = find_problems(surveys)
    forecast = None
    if config is not None:
        # Imports torch, which takes seconds that plain inspection saves.
        from earteach.inspection import pca_forecast

        forecast, more = pca_forecast.forecast(arrays["train"], arrays.get("val"), config)
        problems += more
    problems.sort(key=lambda problem: problem.severity != "error")
    leaks = {problem.code: len(problem.indices) for problem in problems if problem.array == "val"}
    paths: dict[str, Path] = {}
    if out is not None:
        paths = pictures.write_pictures(out, surveys, problems, forecast, sheet_size, augmented)
    return Inspection(
        _report(surveys["train"]),
        _report(surveys["val"]) if val is not None else None,
        Leakage(leaks.get("leakage-exact", 0), leaks.get("leakage-near", 0)),
        tuple(problems),
        forecast,
        paths,
    )


def _report(images: Survey) -> ArrayReport:
    array, stats, values = images.array, images.stats, images.values
    moments = np.stack([stats.counts, stats.means, stats.squares])  # (3, N, C)
    mean, std = _mean_and_std(*moments.reshape(3, -1))
    channels = [_mean_and_std(*moments[..., channel]) for channel in range(array.channels)]
    means, stds = np.transpose(channels)
    known = np.isfinite(channels).all()
    return ArrayReport(
        path=str(array.path),
        images=len(array),
        height=array.height,
        width=array.width,
        channels=int(array.channels),
        layout=array.layout,
        dtype=str(array.dtype),
        min=_finite(stats.minima.min()),
        max=_finite(stats.maxima.max()),
        mean=_finite(mean),
        std=_finite(std),
        channel_means=tuple(((means - values.black) / values.extent).tolist()) if known else None,
        channel_stds=tuple((stds / values.extent).tolist()) if known else None,
        non_finite=int((~stats.finite).sum()),
        constant=int(stats.constant.sum()),
        duplicates=len(exact_repeats(images)),
    )


def _mean_and_std(
    counts: np.ndarray, means: np.ndarray, squares: np.ndarray
) -> tuple[float, float]:
    """Pool the moments of parts; NaN if they hold no values."""
    total = counts.sum()
    with np.errstate(over="ignore", invalid="ignore"):
        mean = (counts * means).sum() / total
        square = (squares + counts * (means - mean) ** 2).sum()
    return float(mean), float(np.sqrt(square / total))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
