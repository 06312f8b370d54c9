"""New ears as PNGs: draw codes, decode them, write the images and a grid.

>>> sample("checkpoints", Path("samples"), number=8).grid
PosixPath('samples/grid.png')
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from earteach.config import InferenceConfig, Sampler
from earteach.errors import EarTeachError
from earteach.files.folders import make_folder, missing_folders, remove_empty
from earteach.hardware import at_most_cores
from earteach.images import check_overwrite, grid, remove_stale, to_uint8, write_png
from earteach.inference.loaded_model import LoadedModel, load_model
from earteach.inference.nearest_images import Nearest, Neighbours, find_neighbours
from earteach.inference.sample_check import Check, SampleCheck
from earteach.inference.samplers import CodeSource, draw_codes, find_source
from earteach.model.vae import ConvVAE

GRID = "grid.png"
_MAX_TEMPERATURE = 2.0
# A larger grid is unreadable, and each of its ears costs a nearest-image search.
_MAX_GRID = 64
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Samples:
    """The PNGs written: one for each ear, and a grid of up to 64.

    `drawn_from` says in words what the sampler drew from, and `components` is the number of Gaussians
    of `gmm`. `nearest` has the nearest training image of each ear in the grid. To compare with,
    `validation_distance` is the median distance of validation images to theirs.
    """

    checkpoint: Path
    seed: int
    sampler: Sampler
    temperature: float
    drawn_from: str
    components: int | None
    images: tuple[Path, ...]
    grid: Path
    nearest: tuple[Nearest, ...] | None
    validation_distance: float | None
    check: Check | None


@dataclass(frozen=True)
class NewEars:
    """Ears, uint8 `(N, S, S, C)`, what they were drawn from, and their nearest images."""

    ears: np.ndarray
    source: CodeSource
    neighbours: Neighbours | None

    @property
    def tiles(self) -> list[np.ndarray]:
        """The ears, each above its nearest training image if known."""
        return self.neighbours.below(self.ears) if self.neighbours else list(self.ears)


def sample(
    path: str | Path,
    out: Path,
    *,
    number: int = 8,
    seed: int = 42,
    sampler: Sampler | None = None,
    temperature: float = 1.0,
    nearest: bool = True,
    check: bool = False,
    config: InferenceConfig = InferenceConfig(),
) -> Samples:
    """Draw `number` codes, decode them and write the ears as PNGs.

    The default sampler is `gmm`, or `prior` with a note if there is neither a stored mixture nor the
    training array. Below 1, `temperature` makes the ears more usual and more alike, above 1 less. With
    `nearest` the grid shows below each ear the training image nearest to it. With `check` the result
    says how near the ears are to validation images.

    The same checkpoint and seed give the same ears. Each one is written as soon as it is decoded, so
    memory does not grow with `number`. Existing PNGs of `sample` in `out` are replaced. Raises
    `EarTeachError` for files that earteach did not write, and if the sampler that is asked for is not
    available.
    """
    _check_options(number, sampler, temperature)
    model = load_model(path, config)
    checked = SampleCheck(model, number) if check else None
    missing = missing_folders(out)
    paths = prepare_paths(out, number)  # before a mixture is fitted
    try:
        source = find_source(model, sampler)
    except EarTeachError:
        remove_empty(missing)
        raise
    metadata = {"Checkpoint": model.checkpoint.path.name, "Seed": str(seed)}
    codes = draw_codes(source, number, seed, config.batch_size, temperature)
    ears = decode(model, codes, source.network)
    first = write_ears(map(checked.see, ears) if checked else ears, paths, metadata)
    if number > len(first):
        _log.info("%s: shows the first %d of %d ears", out / GRID, len(first), number)
    neighbours = find_neighbours(model, first) if nearest else None
    tiles = NewEars(first, source, neighbours).tiles
    columns = math.ceil(math.sqrt(len(tiles) * tiles[0].shape[0] / tiles[0].shape[1]))
    return Samples(
        checkpoint=model.checkpoint.path,
        seed=seed,
        sampler=source.name,
        temperature=temperature,
        drawn_from=source.description,
        components=source.mixture.components if source.mixture else None,
        images=paths,
        grid=write_grid(tiles, columns, paths, metadata),
        nearest=neighbours.nearest if neighbours else None,
        validation_distance=neighbours.validation_distance if neighbours else None,
        check=checked.result() if checked else None,
    )


def _check_options(number: int, sampler: str | None, temperature: float) -> None:
    if number < 1:
        raise EarTeachError(f"--number {number}: must be at least 1")
    if sampler not in (None, *get_args(Sampler)):
        raise EarTeachError(f"--sampler {sampler}: must be one of {', '.join(get_args(Sampler))}")
    if not 0 < temperature <= _MAX_TEMPERATURE:
        raise EarTeachError(
            f"--temperature {temperature:g}: must be above 0 and at most {_MAX_TEMPERATURE:g}"
        )


def new_ears(model: LoadedModel, number: int, seed: int, batch_size: int) -> NewEars:
    """Draw a few ears, without writing them; with their nearest images unless from the prior."""
    source = find_source(model, None)
    codes = draw_codes(source, number, seed, batch_size)
    ears = np.concatenate(list(decode(model, codes, source.network)))
    return NewEars(ears, source, find_neighbours(model, ears) if source.mixture else None)


def decode(
    model: LoadedModel, codes: Iterable[torch.Tensor], network: ConvVAE | None = None
) -> Iterator[np.ndarray]:
    """Decode batches of codes `(B, D)` to ears, uint8 `(B, S, S, C)`, with another network if given."""
    network = network or model.network
    for batch in codes:
        with model.running():
            ears = to_uint8(network.decode(batch.to(model.device)))
        yield ears


def prepare_paths(out: Path, number: int) -> tuple[Path, ...]:
    """Make the folder and name the PNG of each ear; `EarTeachError` for files that are not ours."""
    make_folder(out)
    digits = max(3, len(str(number - 1)))
    paths = tuple(out / f"sample-{index:0{digits}d}.png" for index in range(number))
    for path in (*paths, out / GRID):
        check_overwrite(path)
    return paths


def write_ears(
    batches: Iterable[np.ndarray], paths: Sequence[Path], metadata: Mapping[str, str]
) -> np.ndarray:
    """Write ears `(B, S, S, C)` as they arrive; returns the first 64, uint8 `(N, S, S, C)`."""
    remaining, first = iter(paths), list[np.ndarray]()
    with ThreadPoolExecutor(at_most_cores(len(paths))) as pool:  # compression releases the GIL
        for ears in batches:
            first.extend(ears[: _MAX_GRID - len(first)])
            targets = list(islice(remaining, len(ears)))
            list(pool.map(lambda path, ear: write_png(path, ear, metadata), targets, ears))
    return np.stack(first)


def write_grid(
    tiles: Sequence[np.ndarray], columns: int, paths: Sequence[Path], metadata: Mapping[str, str]
) -> Path:
    """Write the grid and delete the PNGs of an earlier call that are not in `paths`."""
    path = paths[0].with_name(GRID)
    write_png(path, grid(tiles, columns), metadata)
    remove_stale(path.parent, "sample-*.png", keep=paths)
    return path
