"""The pictures of an inspection, as files in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from earteach.charts import Chart, chart, refuse_foreign_svg, write_svg
from earteach.config import Strength
from earteach.files.folders import make_folder
from earteach.images import refuse_foreign, remove_stale, write_png
from earteach.inspection.contact_sheets import (
    augmented_sheet,
    contact_sheet,
    copies_sheet,
    worst_sheet,
)
from earteach.inspection.findings import BLURRED
from earteach.inspection.inspection_report import Forecast, Problem, Side
from earteach.inspection.survey import Survey

_BINS = 32
# Beyond so many times the median all images are in the last bin.
_SHARPEST = 4.0
_SHEETS = {
    "training": "train.png",
    "validation": "val.png",
    "augmented": "augmented.png",
    "worst": "worst.png",
    "copies": "copies.png",
}
_PLOTS = "plots.svg"
_NAMES: dict[Side, str] = {"train": "training", "val": "validation"}


def prepare_folder(folder: Path) -> None:
    """Make it, before the long work; `EarTeachError` where a file in it would not be replaced."""
    make_folder(folder)
    for name in _SHEETS.values():
        refuse_foreign(folder / name)
    refuse_foreign_svg(folder / _PLOTS)


def write_pictures(
    folder: Path,
    surveys: Mapping[Side, Survey],
    problems: Sequence[Problem],
    forecast: Forecast | None,
    *,
    size: int,
    augmented: Strength | None,
) -> dict[str, Path]:
    """Sheets with tiles of `size`, those of findings where there are any, and plots; what is where."""
    arrays = {side: one.array for side, one in surveys.items()}
    drawn = {
        _NAMES[side]: contact_sheet(array.path, layout=array.layout, size=size)
        for side, array in arrays.items()
    }
    if augmented is not None:
        train = arrays["train"]
        drawn["augmented"] = augmented_sheet(
            train.path, layout=train.layout, size=size, strength=augmented
        )
    for what, sheet in (("worst", worst_sheet), ("copies", copies_sheet)):
        if (found := sheet(arrays, problems)) is not None:
            drawn[what] = found
        else:
            remove_stale(folder, _SHEETS[what], [])
    written = {what: folder / _SHEETS[what] for what in drawn}
    for what, path in written.items():
        write_png(path, drawn[what])
    write_svg(folder / _PLOTS, _plots(surveys, forecast))
    return {**written, "plots": folder / _PLOTS}


def _plots(surveys: Mapping[Side, Survey], forecast: Forecast | None) -> list[Chart]:
    facts = {_NAMES[side]: one.facts for side, one in surveys.items()}
    brightness = {name: each.brightness for name, each in facts.items()}
    middle = max(float(np.median(facts["training"].sharpness)), 1e-9)
    sharpness = {name: each.sharpness / middle for name, each in facts.items()}
    drawn = [
        _histogram("% of images by brightness", brightness, 255, "brightness"),
        _histogram(
            "% of images by sharpness, 1 is the median", sharpness, _SHARPEST, "sharpness",
            mark=BLURRED, mark_label="blurred, left of it",
        ),
    ]  # fmt: skip
    if forecast is not None:
        points = [(float(rank), value) for rank, value in enumerate(forecast.eigenvalues, start=1)]
        title = "Eigenvalues"
        level = {"KLD threshold": forecast.elbo_beta}
        series = {"PCA of training": points}
        drawn.append(chart(title, series, levels=level, x_label="component"))
    return [one for one in drawn if one is not None]


def _histogram(
    title: str,
    values: Mapping[str, np.ndarray],
    most: float,
    x_label: str,
    mark: float | None = None,
    mark_label: str = "",
) -> Chart | None:
    """The share of images in each of some bins from 0 to `most`, at their middles."""
    edges = np.linspace(0, most, _BINS + 1)
    middles = [0.0, *((edges[1:] + edges[:-1]) / 2).tolist(), most]
    series = {}
    for name, each in values.items():
        counts, _ = np.histogram(np.clip(each, 0, most), edges)
        shares = [0.0, *(100 * counts / len(each)).tolist(), 0.0]
        series[name] = list(zip(middles, shares, strict=True))
    return chart(title, series, mark=mark, mark_label=mark_label, x_label=x_label)
