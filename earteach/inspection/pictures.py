"""The pictures of an inspection, as files in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from earteach.charts import Chart, chart, write_svg
from earteach.images import remove_stale, write_png
from earteach.inspection.findings import BLURRED
from earteach.inspection.report import Forecast, Problem, Side
from earteach.inspection.sheets import augmented_sheet, contact_sheet, copies_sheet, worst_sheet
from earteach.inspection.survey import Survey

_BINS = 32
# Beyond so many times the median all images are in the last bin.
_SHARPEST = 4.0
_NAMES: dict[Side, str] = {"train": "training", "val": "validation"}


def write_pictures(
    folder: Path,
    surveys: Mapping[Side, Survey],
    problems: Sequence[Problem],
    forecast: Forecast | None,
    *,
    size: int,
    augmented: bool,
) -> dict[str, Path]:
    """Sheets with tiles of `size`, those of findings where there are any, and plots; what is where.

    Raises `EarTeachError` where a file of the same name is not this tool's.
    """
    arrays = {side: one.array for side, one in surveys.items()}
    drawn = {
        _NAMES[side]: (f"{side}.png", contact_sheet(array.path, layout=array.layout, size=size))
        for side, array in arrays.items()
    }
    if augmented:
        train = arrays["train"]
        sheet = augmented_sheet(train.path, layout=train.layout, size=size)
        drawn["augmented"] = ("augmented.png", sheet)
    for what, found in (
        ("worst", worst_sheet(arrays, problems)),
        ("copies", copies_sheet(arrays, problems)),
    ):
        if found is not None:
            drawn[what] = (f"{what}.png", found)
    written = {what: folder / name for what, (name, _) in drawn.items()}
    for name, picture in drawn.values():
        write_png(folder / name, picture)
    for what in ("worst", "copies"):
        remove_stale(folder, f"{what}.png", list(written.values()))
    written["plots"] = folder / "plots.svg"
    write_svg(written["plots"], _plots(surveys, forecast))
    return written


def _plots(surveys: Mapping[Side, Survey], forecast: Forecast | None) -> list[Chart]:
    facts = {_NAMES[side]: one.facts for side, one in surveys.items()}
    brightness = {name: each.brightness for name, each in facts.items()}
    middle = max(float(np.median(facts["training"].sharpness)), 1e-9)
    sharpness = {name: each.sharpness / middle for name, each in facts.items()}
    drawn = [
        _histogram("% of images by brightness", brightness, 255, "brightness"),
        _histogram(
            "% of images by sharpness, 1 is the median", sharpness, _SHARPEST, "sharpness",
            mark=BLURRED, marked="blurred, left of it",
        ),
    ]  # fmt: skip
    if forecast is not None:
        points = [(float(rank), value) for rank, value in enumerate(forecast.eigenvalues, start=1)]
        title = "Eigenvalues"
        level = {"threshold of the KLD weight": forecast.elbo_beta}
        series = {"PCA of training": points}
        drawn.append(chart(title, series, levels=level, across_is="component"))
    return [one for one in drawn if one is not None]


def _histogram(
    title: str,
    values: Mapping[str, np.ndarray],
    most: float,
    across_is: str,
    mark: float | None = None,
    marked: str = "",
) -> Chart | None:
    """The share of images in each of some bins from 0 to `most`, at their middles."""
    edges = np.linspace(0, most, _BINS + 1)
    middles = [0.0, *((edges[1:] + edges[:-1]) / 2).tolist(), most]
    series = {}
    for name, each in values.items():
        counts, _ = np.histogram(np.clip(each, 0, most), edges)
        shares = [0.0, *(100 * counts / len(each)).tolist(), 0.0]
        series[name] = list(zip(middles, shares, strict=True))
    return chart(title, series, mark=mark, marked=marked, across_is=across_is)
