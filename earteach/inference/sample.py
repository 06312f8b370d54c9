"""New ears: from a mixture of the training images' codes, or from the prior.

>>> sample("checkpoints", Path("samples"), number=8).grid
PosixPath('samples/grid.png')
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from earteach.config import InferenceConfig
from earteach.data.arrays import EarArray, sampled_rows
from earteach.errors import EarTeachError
from earteach.files.folders import make_folder
from earteach.hardware import at_most_cores
from earteach.images import grid, refuse_foreign, remove_stale, to_uint8, write_png
from earteach.inference.code_mixture import fitted_mixture, kept_mixture, training_images
from earteach.inference.loaded_model import LoadedModel, load_model
from earteach.inference.nearest_images import Nearest, nearest_images, shown
from earteach.metrics.gaussian_mixture import CodeMixture

Sampler = Literal["prior", "gmm"]
GRID = "grid.png"
# More are no picture; and for each that is shown the nearest training image is looked for.
_SHOWN = 64
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Samples:
    """The pictures that were written: one for each ear, and one grid of the first 64.

    `components` is the number of Gaussians of `gmm`. `nearest` is the nearest training image of each
    ear in the grid, and `validation_distance` the median distance of unseen ears to theirs, to compare
    with.
    """

    checkpoint: Path
    seed: int
    sampler: Sampler
    components: int | None
    images: tuple[Path, ...]
    grid: Path
    nearest: tuple[Nearest, ...] | None
    validation_distance: float | None


def sample(
    path: str | Path,
    out: Path,
    *,
    number: int = 8,
    seed: int = 42,
    sampler: Sampler | None = None,
    nearest: bool = True,
    config: InferenceConfig | None = None,
) -> Samples:
    """Draw `number` codes, decode them and write the ears as PNGs.

    `gmm` draws from a Gaussian mixture of the training images' codes, which is fitted once and kept
    beside the checkpoint, `prior` from the standard normal distribution. Left out it is `gmm`, or
    `prior` with a note where neither a kept mixture nor the training array is there. `nearest` looks
    for the nearest training image of each ear in the grid, which shows it below the ear.

    Each ear is written as soon as it is made: memory does not grow with `number`.

    The same checkpoint and seed give the same ears. Pictures of an earlier call are replaced; files
    that earteach did not write are an `EarTeachError`, as is `gmm` where it cannot be had.
    """
    if number < 1:
        raise EarTeachError(f"--number {number}: must be at least 1")
    if sampler not in (None, "gmm", "prior"):
        raise EarTeachError(f"--sampler {sampler}: must be gmm or prior")
    config = config or InferenceConfig()
    model = load_model(Path(path), config)
    found = find_source(model, sampler)
    paths = claim(out, number)
    mixture = fitted_mixture(model, found) if isinstance(found, EarArray) else found
    facts = {"Checkpoint": model.checkpoint.path.name, "Seed": str(seed)}
    drawn = ear_batches(model, mixture, number, seed, config.batch_size)
    with model.running():
        shown = _stream(drawn, paths, facts)
    if number > len(shown):
        _log.info("%s: shows the first %d of %d ears", out / GRID, len(shown), number)
    looked = _look(model, shown, found) if nearest else None
    tiles = looked.below(shown) if looked else list(shown)
    columns = math.ceil(math.sqrt(len(tiles) * tiles[0].shape[0] / tiles[0].shape[1]))
    write_png(out / GRID, grid(tiles, columns=columns), facts)
    remove_stale(out, "sample-*.png", keep=paths)
    return Samples(
        checkpoint=model.checkpoint.path,
        seed=seed,
        sampler="gmm" if mixture else "prior",
        components=mixture.components if mixture else None,
        images=paths,
        grid=out / GRID,
        nearest=looked.nearest if looked else None,
        validation_distance=looked.validation_distance if looked else None,
    )


def _stream(
    batches: Iterator[np.ndarray], paths: Sequence[Path], facts: Mapping[str, str]
) -> np.ndarray:
    """Write each ear as soon as it is made; gives the first ones, for the grid."""
    targets, shown = iter(paths), list[np.ndarray]()
    with ThreadPoolExecutor(at_most_cores(len(paths))) as pool:  # compression leaves Python's lock
        for ears in batches:
            shown.extend(ears[: _SHOWN - len(shown)])
            here = list(islice(targets, len(ears)))
            list(pool.map(lambda target, ear: write_png(target, ear, facts), here, ears))
    return np.stack(shown)


def ear_batches(
    model: LoadedModel, mixture: CodeMixture | None, number: int, seed: int, batch_size: int
) -> Iterator[np.ndarray]:
    """New ears, uint8 `(B, S, S, C)`, made when they are asked for, inside `model.running()`."""
    generator = torch.Generator().manual_seed(seed)
    codes = None if mixture is None else mixture.codes(seed)
    for start in range(0, number, batch_size):
        count = min(batch_size, number - start)
        if codes is None:
            yield to_uint8(model.network.sample(count, generator))
        else:
            some = torch.stack(list(islice(codes, count)))
            yield to_uint8(model.network.decode(some.to(model.device)))


def find_mixture(model: LoadedModel) -> CodeMixture | EarArray:
    """The kept mixture, or the array to fit it on; `EarTeachError` where both are gone."""
    if (kept := kept_mixture(model)) is not None:
        return kept
    try:
        return training_images(model)
    except EarTeachError as error:
        raise EarTeachError(
            f"no mixture of codes is kept beside {model.checkpoint.path}, and {error}"
        ) from error


def new_ears(
    model: LoadedModel,
    source: CodeMixture | EarArray | None,
    number: int,
    *,
    seed: int,
    nearest: bool,
    batch_size: int,
) -> NewEars:
    """Draw from a mixture, from one that is fitted on an array first, or from the prior."""
    mixture = fitted_mixture(model, source) if isinstance(source, EarArray) else source
    with model.running():
        ears = np.concatenate(list(ear_batches(model, mixture, number, seed, batch_size)))
    return NewEars(ears, mixture, _look(model, ears, source) if nearest else None)


def find_source(model: LoadedModel, sampler: Sampler | None) -> CodeMixture | EarArray | None:
    """What `new_ears` draws from; None is the prior. `EarTeachError` for a `gmm` that is not there."""
    if sampler == "prior":
        return None
    try:
        return find_mixture(model)
    except EarTeachError as error:
        if sampler is not None:
            raise EarTeachError(f"--sampler {sampler}: {error}; or use --sampler prior") from error
        _log.info("drawing from the prior: %s", error)
        return None


def claim(out: Path, number: int) -> tuple[Path, ...]:
    """The paths of the ears' PNGs in the folder, which is made.

    Raises `EarTeachError` where it cannot be made, or a file is in the way that is not ours.
    """
    make_folder(out)
    digits = max(3, len(str(number - 1)))
    paths = tuple(out / f"sample-{place:0{digits}d}.png" for place in range(number))
    for target in (*paths, out / GRID):
        refuse_foreign(target)
    return paths


def write_ears(
    out: Path,
    paths: Sequence[Path],
    ears: np.ndarray,
    sheet: np.ndarray,
    facts: dict[str, str],
) -> None:
    """The ears, uint8 `(N, S, S, C)`, and the sheet of all of them; what an earlier call left goes."""
    for target, ear in zip(paths, ears, strict=True):
        write_png(target, ear, facts)
    write_png(out / GRID, sheet, facts)
    remove_stale(out, "sample-*.png", keep=paths)


def decoded(model: LoadedModel, codes: torch.Tensor, batch_size: int) -> np.ndarray:
    """Codes `(N, D)` to ears, uint8 `(N, S, S, C)`."""
    with model.running() as network:
        return np.concatenate(
            [
                to_uint8(network.decode(some.to(model.device)))
                for some in torch.split(codes, batch_size)
            ]
        )


@dataclass(frozen=True)
class Looked:
    """Which training images are nearest to ears."""

    array: EarArray
    nearest: tuple[Nearest, ...]
    validation_distance: float | None

    def below(self, ears: np.ndarray) -> list[np.ndarray]:
        """Each of the ears over its nearest training image."""
        size, channels = ears.shape[1], ears.shape[3]
        return [
            np.concatenate([ear, shown(self.array, found.row, found.mirrored, size, channels)])
            for ear, found in zip(ears, self.nearest, strict=True)
        ]


@dataclass(frozen=True)
class NewEars:
    """Ears, uint8 `(N, S, S, C)`, the mixture that they are from, and what was found near them."""

    ears: np.ndarray
    mixture: CodeMixture | None
    looked: Looked | None

    @property
    def tiles(self) -> list[np.ndarray]:
        """The ears, each over its nearest training image where that was looked for."""
        return self.looked.below(self.ears) if self.looked else list(self.ears)


def _look(
    model: LoadedModel, ears: np.ndarray, found: CodeMixture | EarArray | None
) -> Looked | None:
    try:
        array = found if isinstance(found, EarArray) else training_images(model)
    except EarTeachError as error:
        _log.info("no nearest training images: %s", error)
        return None
    unseen = _unseen(model)
    nearest = nearest_images(np.concatenate([ears, unseen]), array)
    apart = [entry.distance for entry in nearest[len(ears) :]]
    return Looked(array, tuple(nearest[: len(ears)]), statistics.median(apart) if apart else None)


def _unseen(model: LoadedModel) -> np.ndarray:
    """At most 64 validation images as the network sees them, uint8 `(N, S, S, C)`."""
    network, named = model.network, model.checkpoint.config.data
    size, channels = network.image_size, network.in_channels
    try:
        array = EarArray.open(named.val_data, named.layout)
        rows = sampled_rows(len(array)).tolist()
        return np.stack([array.image(row, size=size, channels=channels) for row in rows])
    except EarTeachError as error:
        _log.info("no distance of validation images to compare with: %s", error)
        return np.empty((0, size, size, channels), np.uint8)
