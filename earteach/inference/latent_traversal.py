"""Paths through latent space: between two ears, and along the directions in which ears vary most."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from earteach.config import InferenceConfig
from earteach.data import photographs
from earteach.data.image_batches import to_batch
from earteach.data.photographs import Unreadable
from earteach.errors import EarTeachError
from earteach.inference.loaded_model import LoadedModel, load_model
from earteach.inference.sample import decode, prepare_paths, write_ears, write_grid
from earteach.inference.samplers import get_mixture
from earteach.inference.second_decoder import load_second_decoder
from earteach.metrics.gaussian_mixture import CodeMixture

_GRID_COLUMNS = 16
_MAX_SIGMA = 3.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Interpolation:
    """The ears from the first to the second, and a grid of them all.

    `turned`: the two ears face different ways, so the second was mirrored.
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
    """A direction in latent space, and the share of the images' variance that it explains."""

    share: float


@dataclass(frozen=True)
class Traversal:
    """The ears along each direction, one row of the grid each, from −3 to +3 standard deviations."""

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
    config: InferenceConfig = InferenceConfig(),
) -> Interpolation:
    """Decode `number` codes from the first ear's to the second's, both included.

    An end is a photograph or a row of the validation array that the checkpoint names. Interpolation is
    spherical because codes lie near a sphere: the midpoint of a straight line decodes to a blurred,
    pale ear. If the ears face different ways and the network knows sides, the second is mirrored, with
    a note.

    Raises `EarTeachError` for an end that cannot be read, and for fewer than two images.
    """
    if number < 2:
        raise EarTeachError(f"--number {number}: must be at least 2 with --interpolate")
    model = load_model(path, config)
    names, images = zip(*(_read_end(model, end) for end in ends), strict=True)
    paths = prepare_paths(out, number)
    with model.running() as network:
        mu = network.encode(to_batch(np.stack(images)).to(model.device))[0]
    first, second = mu.float().cpu().clone()  # tensors of inference mode cannot be modified
    side = model.network.side_dimension
    turned = side is not None and bool(first[side] != second[side])
    if side is not None and turned:
        _log.info("%s faces the other way than %s: using its mirror image", *names[::-1])
        second[side] = first[side]
    codes = slerp(first, second, torch.linspace(0, 1, number))
    metadata = {"Checkpoint": model.checkpoint.path.name, "Interpolated": " to ".join(names)}
    sharpened = load_second_decoder(model)
    network = model.network if sharpened is None else sharpened.network
    ears = np.concatenate(list(decode(model, torch.split(codes, config.batch_size), network)))
    write_ears([ears], paths, metadata)
    grid = write_grid(list(ears), _GRID_COLUMNS, paths, metadata)
    return Interpolation(model.checkpoint.path, (names[0], names[1]), turned, paths, grid)


def traverse(
    path: str | Path,
    out: Path,
    directions: int,
    *,
    number: int = 7,
    config: InferenceConfig = InferenceConfig(),
) -> Traversal:
    """Decode the mean code moved along the directions in which the training ears vary most.

    Each direction gives a row of `number` ears, from −3 to +3 standard deviations of the training
    codes. The directions are those of `CodeMixture.axes`. PCA of the codes would order them by the
    variance of the codes, which means little: a VAE gives every dimension unit variance.

    Raises `EarTeachError` for more directions than exist, and if there is neither a stored mixture nor
    the training array.
    """
    for option, value, minimum in (("--traverse", directions, 1), ("--number", number, 2)):
        if value < minimum:
            raise EarTeachError(f"{option} {value}: must be at least {minimum} with --traverse")
    model = load_model(path, config)
    if directions > (limit := model.network.latent_dim):  # before a mixture is fitted
        raise EarTeachError(f"--traverse {directions}: must be at most {limit}, the code's length")
    try:
        mixture = get_mixture(model)
    except EarTeachError as error:
        raise EarTeachError(f"--traverse {directions}: {error}") from error
    if directions > len(mixture.axes):
        raise EarTeachError(
            f"--traverse {directions}: the codes of the training images vary in "
            f"{len(mixture.axes)} directions; use at most that many"
        )
    paths = prepare_paths(out, directions * number)
    sigmas, ears = traverse_axes(model, mixture, directions, number, config.batch_size)
    metadata = {"Checkpoint": model.checkpoint.path.name, "Traversed": f"{directions} directions"}
    write_ears([ears], paths, metadata)
    grid = write_grid(list(ears), number, paths, metadata)
    shares = tuple(map(Direction, mixture.shares[:directions].tolist()))
    return Traversal(model.checkpoint.path, shares, sigmas, paths, grid)


def traverse_axes(
    model: LoadedModel, mixture: CodeMixture, directions: int, number: int, batch_size: int
) -> tuple[tuple[float, ...], np.ndarray]:
    """The standard deviations and their ears, direction by direction, uint8 `(N, S, S, C)`."""
    sigmas = torch.linspace(-_MAX_SIGMA, _MAX_SIGMA, number)
    axes = torch.from_numpy(mixture.axes[:directions])
    codes = mixture.mean_code() + (axes[:, None] * sigmas[:, None]).flatten(0, 1)
    return tuple(sigmas.tolist()), np.concatenate(
        list(decode(model, torch.split(codes, batch_size)))
    )


def slerp(a: torch.Tensor, b: torch.Tensor, fractions: torch.Tensor) -> torch.Tensor:
    """Spherical linear interpolation from `a` to `b`, both `(D,)`, at N fractions: `(N, D)`.

    White 2016 (https://arxiv.org/abs/1609.04468); linear if the arc between them is not unique.
    """
    t = fractions[:, None]
    angle = torch.arccos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))
    if not torch.sin(angle) > 1e-4:  # also true for NaN, the angle of a zero code
        return (1 - t) * a + t * b
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


def _read_end(model: LoadedModel, end: Path | int) -> tuple[str, np.ndarray]:
    """The name of an end, and its ear at the network's size, uint8 `(S, S, C)`."""
    if isinstance(end, Path) and not end.exists():
        raise EarTeachError(f"--interpolate {end}: no such file; name an image or a row number")
    size, channels = model.network.image_size, model.network.in_channels
    try:
        if isinstance(end, Path):
            return str(end), photographs.square(photographs.read(end), size, channels).image
        array = model.open_array("val")
    except Unreadable as error:
        raise EarTeachError(
            f"--interpolate {end}: {error}; name an image, or a row number of the validation array"
        ) from error
    except EarTeachError as error:
        raise EarTeachError(
            f"--interpolate {end}: is a row of the validation array, but {error}"
        ) from error
    if not 0 <= end < len(array):
        raise EarTeachError(
            f"--interpolate {end}: {array.path} has rows 0 to {len(array) - 1}; name one of them"
        )
    return f"{array.path}[{end}]", model.image(array, end)
