"""How far new ears of a model are from real ones of the validation arrays."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.quality.scoring import Codec
from earteach.data.batches import to_batch

_BATCH = 64
_DISTANCES = "earteach.metrics.distances"


@dataclass(frozen=True)
class Distance:
    """Fréchet and kernel distance on the features of a fixed random network; smaller is nearer."""

    frechet: float
    kernel: float


@dataclass(frozen=True)
class Sampler:
    """A way of drawing new ears: `draw(n)` gives `(n, 3, S, S)` in [0, 1]."""

    name: str
    draw: Callable[[int], torch.Tensor]


def distance(images: torch.Tensor, real: torch.Tensor) -> Distance:
    """Between two sets of images `(N, 3, S, S)` in [0, 1]."""
    distances: Any = import_module(_DISTANCES)
    ours, theirs = distances.features(images), distances.features(real)
    return Distance(
        float(distances.frechet_distance(ours, theirs)),
        float(distances.kernel_distance(ours, theirs)),
    )


def can_measure() -> bool:
    """Whether this earteach has the distances."""
    return find_spec(_DISTANCES) is not None


def from_prior(codec: Codec, latent_dim: int, seed: int, device: str = "cpu") -> Sampler:
    """Codes from a standard normal."""

    @torch.no_grad()
    def draw(count: int) -> torch.Tensor:
        codes = torch.randn(count, latent_dim, generator=torch.Generator().manual_seed(seed))
        decoded = [codec.decode(part.to(device)).cpu() for part in torch.split(codes, _BATCH)]
        return torch.cat(decoded).clamp(0, 1)

    return Sampler("prior", draw)


def from_command(checkpoint: Path, name: str, seed: int) -> Sampler:
    """What `earteach sample --sampler NAME` writes."""

    def draw(count: int) -> torch.Tensor:
        sample: Any = import_module("earteach.inference.sample").sample
        with tempfile.TemporaryDirectory() as folder:
            written = sample(checkpoint, Path(folder), number=count, seed=seed, sampler=name)
            return to_batch(np.stack([_read(path) for path in written.images]))

    return Sampler(name, draw)


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
