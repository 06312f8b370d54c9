"""The pictures of an inspection: sheets of images, sheets of the problems, and plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from earteach.charts import Chart, Points, chart, refuse_foreign_svg, write_svg
from earteach.config import Strength
from earteach.data.arrays import resized, sampled_rows
from earteach.files.folders import make_folder
from earteach.images import (
    check_overwrite,
    grid,
    remove_stale,
    side_by_side,
    with_caption,
    write_png,
)
from earteach.inspection.findings import BLURRED
from earteach.inspection.inspection_report import ArrayName, Forecast, Problem
from earteach.inspection.survey import Survey, stored_images
from earteach.randomness import Purpose, derive

T = TypeVar("T")

_NAMES: dict[ArrayName, str] = {"train": "training", "val": "validation"}
_SHEETS = {"training": "train.png", "validation": "val.png"}
_SHEETS |= {name: f"{name}.png" for name in ("augmented", "worst", "copies")}
_PLOTS = "plots.svg"
_MAX_TILES = 64
# Of each problem.
_MAX_WORST, _MAX_COPIES, _PROBLEM_TILE_SIZE = 8, 32, 128
_BINS = 32
# The last bin also holds the images that are sharper than this many times the median.
_MAX_SHARPNESS = 4.0


def prepare_folder(folder: Path) -> None:
    """Make the folder; `EarTeachError` if it holds a file that earteach would not replace."""
    make_folder(folder)
    for name in _SHEETS.values():
        check_overwrite(folder / name)
    refuse_foreign_svg(folder / _PLOTS)


def write_pictures(
    folder: Path,
    surveys: Mapping[ArrayName, Survey],
    problems: Sequence[Problem],
    forecast: Forecast | None,
    size: int,
    augmented: Strength | None,
) -> dict[str, Path]:
    """Write sheets with tiles of `size`, sheets of the problems, and plots; returns the paths."""
    tiles = {_NAMES[name]: _contact_tiles(images, size) for name, images in surveys.items()}
    if augmented is not None:
        tiles["augmented"] = _augmented_tiles(surveys["train"], size, augmented)
    tiles |= {"worst": [], "copies": []}
    for name, tile in _problem_tiles(surveys, problems):
        tiles[name].append(tile)
    paths = {}
    for name, images in tiles.items():
        if images:
            paths[name] = folder / _SHEETS[name]
            write_png(paths[name], grid(images, 4 if name == "copies" else 8))
        else:
            remove_stale(folder, _SHEETS[name], [])
    paths["plots"] = folder / _PLOTS
    write_svg(paths["plots"], _plots(surveys, forecast))
    return paths


def _contact_tiles(images: Survey, size: int) -> list[np.ndarray]:
    """Up to 64 evenly spread images; NaN is black, and values out of range are clipped."""
    return [_tile(images, int(row), size) for row in sampled_rows(images.count, _MAX_TILES)]


def _augmented_tiles(images: Survey, size: int, strength: Strength) -> list[np.ndarray]:
    """64 evenly spread training inputs as the first epoch with seed 0 sees them.

    A row that is repeated, for lack of others, is augmented as in the next epoch.
    """
    from earteach.data.augmentation import Augmentation  # imports albumentations

    rows = [round(row) for row in np.linspace(0, images.count - 1, _MAX_TILES).tolist()]
    augment = Augmentation(strength, 3, "augmented")
    tiles = []
    for index, row in enumerate(rows):
        draw = derive(0, Purpose.AUGMENTATION, rows[:index].count(row), row)
        tiles.append(augment(_tile(images, row, size), draw)[0])
    return tiles


def _problem_tiles(
    surveys: Mapping[ArrayName, Survey], problems: Sequence[Problem]
) -> Iterator[tuple[str, np.ndarray]]:
    """Captioned images: of each problem up to 8, or up to 32 copies beside their originals."""
    for problem in problems:
        name, images = problem.array, surveys[problem.array]
        pairs = list(zip(problem.indices, problem.like, strict=False))
        for row, original in _spread(pairs, _MAX_COPIES):
            pair = side_by_side([_tile(images, row), _tile(surveys["train"], original)])
            caption = f"{name} {row} is like train {original}"
            yield "copies", with_caption(pair, caption, problem.code)
        for row in () if pairs else _spread(problem.indices, _MAX_WORST):
            yield "worst", with_caption(_tile(images, row), f"{name} {row}", problem.code)


def _spread(values: Sequence[T], count: int) -> list[T]:
    """Up to `count` evenly spread values."""
    return [values[index] for index in sampled_rows(len(values), count)]


def _tile(images: Survey, row: int, size: int = _PROBLEM_TILE_SIZE) -> np.ndarray:
    return resized(images.values.to_rgb(stored_images(images.array, [row]))[0], size)


def _plots(surveys: Mapping[ArrayName, Survey], forecast: Forecast | None) -> list[Chart]:
    stats = {_NAMES[name]: images.stats for name, images in surveys.items()}
    brightness = {name: each.brightness for name, each in stats.items()}
    median = max(float(np.median(stats["training"].sharpness)), 1e-9)
    sharpness = {name: each.sharpness / median for name, each in stats.items()}
    title, mark = "% of images by sharpness, 1 is the median", "blurred, left of it"
    charts = [
        chart("% of images by brightness", _shares(brightness, 255), x_label="brightness"),
        chart(title, _shares(sharpness, _MAX_SHARPNESS), mark=BLURRED, mark_label=mark,
              x_label="sharpness"),
    ]  # fmt: skip
    if forecast is not None:
        points = [(float(rank), value) for rank, value in enumerate(forecast.eigenvalues, start=1)]
        series, levels = {"PCA of training": points}, {"KLD threshold": forecast.elbo_beta}
        charts.append(chart("Eigenvalues", series, levels=levels, x_label="component"))
    return [each for each in charts if each is not None]


def _shares(values: Mapping[str, np.ndarray], maximum: float) -> dict[str, Points]:
    """The percentage of images in each bin from 0 to `maximum`, at the bins' centres."""
    edges = np.linspace(0, maximum, _BINS + 1)
    centres = [0.0, *((edges[1:] + edges[:-1]) / 2).tolist(), maximum]
    series: dict[str, Points] = {}
    for name, each in values.items():
        counts, _ = np.histogram(np.clip(each, 0, maximum), edges)
        shares = [0.0, *(100 * counts / len(each)).tolist(), 0.0]
        series[name] = list(zip(centres, shares, strict=True))
    return series
