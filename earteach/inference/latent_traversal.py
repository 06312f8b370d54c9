"""Ways through the codes: from one ear to another, and along the directions that change ears most."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from earteach.config import InferenceConfig
from earteach.data import photographs
from earteach.data.arrays import EarArray
from earteach.data.image_batches import to_batch
from earteach.data.photographs import Unreadable
from earteach.errors import EarTeachError
from earteach.images import grid
from earteach.inference.code_mixture import fitted_mixture
from earteach.inference.loaded_model import LoadedModel, load_model
from earteach.inference.sample import GRID, claim, decoded, find_mixture, write_ears
from earteach.metrics.gaussian_mixture import CodeMixture

_COLUMNS = 16
_FARTHEST = 3.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Interpolation:
    """The ears on the way from the first to the second, and the strip of them all.

    `turned`: the two look to different sides, and the second one's mirror image took its place.
    """

    checkpoint: Path
    ends: tuple[str, str]
    turned: bool
    images: tuple[Path, ...]
    grid: Path
    seed: None = None
    sampler: None = None


@dataclass(frozen=True)
class Direction:
    """A direction in the codes and the share of the pictures' variance that it explains."""

    share: float


@dataclass(frozen=True)
class Traversal:
    """The ears along each direction, row by row from −3 to +3 standard deviations."""

    checkpoint: Path
    directions: tuple[Direction, ...]
    sigmas: tuple[float, ...]
    images: tuple[Path, ...]
    grid: Path
    seed: None = None
    sampler: None = None


def interpolate(
    path: str | Path,
    out: Path,
    ends: tuple[Path | int, Path | int],
    *,
    number: int = 8,
    config: InferenceConfig | None = None,
) -> Interpolation:
    """Decode `number` codes from the one of the first ear to that of the second, both included.

    An end is a photograph of an ear, or a row of the validation array that the checkpoint names. The
    way is spherical: the codes of ears lie near a sphere, and the middle of a straight line between
    two of them is a blurred, pale ear. Where the network knows sides and the ears look to different
    ones, the mirror image of the second takes its place, with a note.

    Raises `EarTeachError` for an end that cannot be read, and for fewer than two images.
    """
    if number < 2:
        raise EarTeachError(f"--number {number}: must be at least 2 with --interpolate")
    config = config or InferenceConfig()
    model = load_model(Path(path), config)
    names, pictures = zip(*(_end(model, end) for end in ends), strict=True)
    paths = claim(out, number)
    with model.running() as network:
        mu = network.encode(to_batch(np.stack(pictures)).to(model.device))[0]
    first, second = mu.float().cpu().clone()  # what inference mode made cannot be changed
    side = model.network.side_dimension
    turned = side is not None and bool(first[side] != second[side])
    if side is not None and turned:
        _log.info("%s looks to the other side than %s: its mirror image is taken", *names[::-1])
        second[side] = first[side]
    codes = spherical(first, second, torch.linspace(0, 1, number))
    ears = decoded(model, codes, config.batch_size)
    facts = {"Checkpoint": model.checkpoint.path.name, "Interpolated": " to ".join(names)}
    write_ears(out, paths, ears, grid(list(ears), columns=min(number, _COLUMNS)), facts)
    return Interpolation(model.checkpoint.path, (names[0], names[1]), turned, paths, out / GRID)


def traverse(
    path: str | Path,
    out: Path,
    directions: int,
    *,
    number: int = 7,
    config: InferenceConfig | None = None,
) -> Traversal:
    """Decode the mean code moved along the directions in which the training ears differ most.

    Each direction is a row of `number` ears from −3 to +3 standard deviations of the training codes.
    The directions are uncorrelated and in the order of how much of the pictures' variance they
    explain; PCA of the codes would order them by their length in the code, which says little: a VAE
    draws all of a code's numbers to unit variance.

    Raises `EarTeachError` for more directions than there are, and where neither a kept mixture nor
    the training array is there.
    """
    for option, value, least in (("--traverse", directions, 1), ("--number", number, 2)):
        if value < least:
            raise EarTeachError(f"{option} {value}: must be at least {least} with --traverse")
    config = config or InferenceConfig()
    model = load_model(Path(path), config)
    try:
        found = find_mixture(model)
    except EarTeachError as error:
        raise EarTeachError(f"--traverse {directions}: {error}") from error
    _check_enough(model.network.latent_dim, directions)
    paths = claim(out, directions * number)
    mixture = fitted_mixture(model, found) if isinstance(found, EarArray) else found
    _check_enough(len(mixture.axes), directions)
    sigmas, ears = along_axes(model, mixture, directions, number, config.batch_size)
    facts = {"Checkpoint": model.checkpoint.path.name, "Traversed": f"{directions} directions"}
    write_ears(out, paths, ears, grid(list(ears), columns=number), facts)
    shares = mixture.shares[:directions].tolist()
    return Traversal(
        checkpoint=model.checkpoint.path,
        directions=tuple(map(Direction, shares)),
        sigmas=sigmas,
        images=paths,
        grid=out / GRID,
    )


def along_axes(
    model: LoadedModel, mixture: CodeMixture, directions: int, number: int, batch_size: int
) -> tuple[tuple[float, ...], np.ndarray]:
    """The standard deviations and the ears there, direction by direction, uint8 `(N, S, S, C)`."""
    sigmas = torch.linspace(-_FARTHEST, _FARTHEST, number)
    axes = torch.from_numpy(mixture.axes[:directions])
    codes = mixture.central() + (axes[:, None] * sigmas[:, None]).flatten(0, 1)
    return tuple(sigmas.tolist()), decoded(model, codes, batch_size)


def _check_enough(there: int, wanted: int) -> None:
    if wanted > there:
        raise EarTeachError(
            f"--traverse {wanted}: the codes of the training images differ in {there} directions; "
            "name at most as many"
        )


def spherical(a: torch.Tensor, b: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The codes `(N, D)` at places in [0, 1] of the arc from `a` to `b`, both `(D,)`.

    White 2016 (https://arxiv.org/abs/1609.04468); a straight line where there is no one arc.
    """
    along = places[:, None]
    angle = torch.arccos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))
    if not torch.sin(angle) > 1e-4:  # also where a code is 0, and has no direction
        return (1 - along) * a + along * b
    return (torch.sin((1 - along) * angle) * a + torch.sin(along * angle) * b) / torch.sin(angle)


def _end(model: LoadedModel, end: Path | int) -> tuple[str, np.ndarray]:
    """The name of an interpolation's end, and the ear as the network sees it, uint8 `(S, S, C)`."""
    size, channels = model.network.image_size, model.network.in_channels
    if isinstance(end, int):
        array = _validation_images(model, end)
        return f"{array.path}[{end}]", array.image(end, size=size, channels=channels)
    if not end.exists():
        raise EarTeachError(f"--interpolate {end}: no such file; name an image or a row number")
    try:
        return str(end), photographs.square(photographs.read(end), size, channels).image
    except Unreadable as error:
        raise EarTeachError(
            f"--interpolate {end}: {error}; name an image, or a row number of the validation array"
        ) from error


def _validation_images(model: LoadedModel, row: int) -> EarArray:
    named = model.checkpoint.config.data
    try:
        array = EarArray.open(named.val_data, named.layout)
    except EarTeachError as error:
        raise EarTeachError(
            f"--interpolate {row}: is a row of the validation array, but {error}"
        ) from error
    if not 0 <= row < len(array):
        raise EarTeachError(
            f"--interpolate {row}: {array.path} has rows 0 to {len(array) - 1}; name one of them"
        )
    return array
