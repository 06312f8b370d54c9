"""`inspect_data`: open, survey, compare, judge."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from earteach.config import Layout, Strength, TrainConfig
from earteach.data.arrays import EarArray
from earteach.inspection.contact_sheets import SHEET_SIZE
from earteach.inspection.findings import (
    array_problems,
    leakage_problems,
    mismatch_problems,
    training_problems,
)
from earteach.inspection.inspection_report import ArrayReport, Inspection, Leakage, Problem, Side
from earteach.inspection.near_duplicates import exact_matches, near_matches, repeats
from earteach.inspection.survey import Facts, Survey, survey


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
    """What the arrays hold and what is wrong with them; with a `config`, what its run can come to.

    `out` is a folder for pictures: sheets with tiles of `sheet_size`, with `augmented` also of what
    training sees at that strength. Raises `EarTeachError` only for an array that cannot be opened, and
    for an `out` that cannot be written; all else is a `Problem`.
    """
    # Both are opened first: a mistyped second path shows at once.
    train_array = EarArray.open(train, layout)
    val_array = None if val is None else EarArray.open(val, layout)
    if out is not None:
        from earteach.inspection.pictures import prepare_folder  # imports torch

        prepare_folder(out)
    surveys: dict[Side, Survey] = {"train": survey(train_array)}
    if val_array is not None:
        surveys["val"] = survey(val_array)
    leakage, problems = _judged(surveys["train"], surveys.get("val"))
    forecast = None
    if config is not None:
        # It imports torch and scikit-learn, seconds that plain inspection does without.
        from earteach.inspection.pca_forecast import forecast as foretold

        forecast, more = foretold(train_array, val_array, config)
        problems += more
    ordered = _ordered(problems)
    pictures: dict[str, Path] = {}
    if out is not None:
        from earteach.inspection.pictures import write_pictures

        pictures = write_pictures(
            out, surveys, ordered, forecast, size=sheet_size, augmented=augmented
        )
    reports = {side: _report(images) for side, images in surveys.items()}
    return Inspection(reports["train"], reports.get("val"), leakage, ordered, forecast, pictures)


def _judged(training: Survey, validation: Survey | None) -> tuple[Leakage, list[Problem]]:
    problems = [*training_problems(training), *array_problems(training, "train")]
    if validation is None:
        return Leakage(0, 0), problems
    exact = exact_matches(validation, training)
    near = near_matches(validation, training)
    problems += array_problems(validation, "val")
    problems += mismatch_problems(training, validation)
    problems += leakage_problems(training, validation, exact, near)
    return Leakage(len(exact), len(near)), problems


def _ordered(problems: list[Problem]) -> tuple[Problem, ...]:
    """Errors first; among equals the order stays."""
    return tuple(sorted(problems, key=lambda problem: problem.severity != "error"))


def _report(images: Survey) -> ArrayReport:
    array, facts = images.array, images.facts
    means, stds = _channel_statistics(images)
    mean, std = _mean_and_std(facts.counts.ravel(), facts.means.ravel(), facts.spreads.ravel())
    return ArrayReport(
        path=str(array.path),
        images=len(array),
        height=array.height,
        width=array.width,
        channels=int(array.channels),
        layout=array.layout,
        dtype=str(array.dtype),
        min=_known(facts.lows.min()),
        max=_known(facts.highs.max()),
        mean=_known(mean),
        std=_known(std),
        channel_means=means,
        channel_stds=stds,
        non_finite=int((~facts.finite).sum()),
        constant=int(facts.constant.sum()),
        duplicates=len(repeats(images)),
    )


def _channel_statistics(
    images: Survey,
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and standard deviation of each channel, on the scale where black is 0 and white is 1."""
    reading, extent = images.reading, images.reading.white - images.reading.black
    pairs = _per_channel(images.facts)
    if not all(math.isfinite(value) for pair in pairs for value in pair):
        return None, None
    means = tuple((mean - reading.black) / extent for mean, _ in pairs)
    return means, tuple(std / extent for _, std in pairs)


def _per_channel(facts: Facts) -> list[tuple[float, float]]:
    columns = zip(facts.counts.T, facts.means.T, facts.spreads.T, strict=True)
    return [_mean_and_std(*column) for column in columns]


def _mean_and_std(
    counts: np.ndarray, means: np.ndarray, spreads: np.ndarray
) -> tuple[float, float]:
    """Of all values, from those of their parts; NaN where there are none."""
    total = counts.sum()
    if total == 0:
        return math.nan, math.nan
    with np.errstate(over="ignore", invalid="ignore"):
        mean = (counts * means).sum() / total
        spread = (spreads + counts * (means - mean) ** 2).sum()
    return float(mean), float(np.sqrt(spread / total))


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
