"""Pictures to look at: what is in an array, and what augmentation makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from earteach.config import Layout, Strength
from earteach.data.arrays import EarArray, resized, to_channels
from earteach.errors import EarTeachError
from earteach.inspection.inspection_report import Problem, Side
from earteach.inspection.pixel_values import find_reading, rows

Value = TypeVar("Value")

COLUMNS = 8
# Of each finding on the sheet of the worst, and on that of copies.
_WORST, _COPIES = 8, 32
SHEET_SIZE = 128


def contact_sheet(
    path: str | Path,
    *,
    layout: Layout | None = None,
    size: int = 64,
    indices: Sequence[int] | None = None,
    count: int = 64,
) -> np.ndarray:
    """uint8 `(H, W, 3)`: the images `indices`, or `count` evenly spread ones, eight in a row.

    Bad values do not stop it: NaN is black, and what is out of range is clipped.
    """
    array = EarArray.open(path, layout)
    chosen = _spread(len(array), min(count, len(array))) if indices is None else list(indices)
    _check_rows(array, chosen)
    return _grid(_tiles(array, chosen, size))


def augmented_sheet(
    path: str | Path,
    *,
    layout: Layout | None = None,
    size: int,
    channels: int = 3,
    strength: Strength = "light",
    count: int = 64,
    seed: int = 0,
) -> np.ndarray:
    """uint8 `(H, W, 3)`: `count` training inputs, as the first epoch with this `seed` sees them.

    The rows are evenly spread; a row that comes again is shown as the next epoch sees it.
    """
    # These import albumentations and torch, seconds that plain inspection does without.
    from earteach.data.augmentation import Augmentation
    from earteach.randomness import Purpose, derive

    array = EarArray.open(path, layout)
    chosen = _spread(len(array), count)
    _check_rows(array, chosen)
    augment = Augmentation(strength, channels, "augmented")
    shown = []
    for place, tile in enumerate(_tiles(array, chosen, size)):
        epoch = chosen[:place].count(chosen[place])
        drawn = derive(seed, Purpose.AUGMENTATION, epoch, chosen[place])
        shown.append(augment(to_channels(tile, channels), drawn)[0])
    return _grid([to_channels(image, 3) for image in shown])


def worst_sheet(arrays: Mapping[Side, EarArray], problems: Sequence[Problem]) -> np.ndarray | None:
    """uint8 `(H, W, 3)`: up to eight images of each finding about single ones; None without any.

    Below each stand its array, its row and the finding's code. Copies are on a sheet of their own.
    """
    from earteach.images import labelled  # imports torch

    tiles = []
    for problem in problems:
        if problem.indices and not problem.like:
            chosen = _of(problem.indices, _WORST)
            found = zip(chosen, _tiles(arrays[problem.array], chosen, SHEET_SIZE), strict=True)
            tiles += [labelled(i, f"{problem.array} {row}", problem.code) for row, i in found]
    return _grid(tiles) if tiles else None


def copies_sheet(arrays: Mapping[Side, EarArray], problems: Sequence[Problem]) -> np.ndarray | None:
    """uint8 `(H, W, 3)`: pairs of an image and the training image that it copies; None without any.

    Up to 32 pairs of each finding, evenly spread.
    """
    from earteach.images import beside, labelled

    tiles = []
    for problem in (problem for problem in problems if problem.like):
        pairs = list(zip(problem.indices, problem.like, strict=True))
        for row, other in _of(pairs, _COPIES):
            ours, theirs = ((arrays[problem.array], row), (arrays["train"], other))
            pair = [_tiles(array, [which], SHEET_SIZE)[0] for array, which in (ours, theirs)]
            text = f"{problem.array} {row} is like train {other}"
            tiles.append(labelled(beside(pair), text, problem.code))
    return _grid(tiles, COLUMNS // 2) if tiles else None


def _of(values: Sequence[Value], count: int) -> list[Value]:
    """So many of the values, evenly spread."""
    return [values[place] for place in _spread(len(values), min(count, len(values)))]


def _spread(length: int, count: int) -> list[int]:
    return [round(row) for row in np.linspace(0, length - 1, max(count, 0)).tolist()]


def _check_rows(array: EarArray, chosen: list[int]) -> None:
    if not chosen:
        raise EarTeachError(f"{array.path}: no images chosen for the sheet; name at least one")
    outside = [row for row in chosen if not 0 <= row < len(array)]
    if outside:
        raise EarTeachError(
            f"{array.path}: has no image {outside[0]}; its images are 0 to {len(array) - 1}"
        )


def _tiles(array: EarArray, chosen: list[int], size: int) -> list[np.ndarray]:
    reading = find_reading(array)
    return [resized(reading.rgb(rows(array, [row]))[0], size) for row in chosen]


def _grid(tiles: list[np.ndarray], columns: int = COLUMNS) -> np.ndarray:
    from earteach.images import grid  # imports torch

    return grid(tiles, columns)
