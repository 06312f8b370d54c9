"""How near a model's new ears are to real ears of the validation arrays."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from benchmarks.quality.scoring import Codec
from benchmarks.quality.two_sample import accuracy
from earteach.config import InferenceConfig
from earteach.data.image_batches import to_batch
from earteach.inference.sample import sample
from earteach.metrics.gist import features, similarity

Accelerator = Literal["cpu", "gpu", "auto"]
_BATCH = 64


@dataclass(frozen=True)
class Sampler:
    """A source of new ears: `draw(n)` returns `(n, 3, S, S)` in [0, 1]."""

    name: str
    draw: Callable[[int], torch.Tensor]


def likeness(images: torch.Tensor, real: torch.Tensor) -> dict[str, float]:
    """Of images to as many real ones, `(N, 3, S, S)` in [0, 1]."""
    measured = asdict(similarity(features(images), features(real)))
    return {**measured, "two_sample": accuracy(images, real)}


def from_prior(codec: Codec, latent_dim: int, seed: int, device: str = "cpu") -> Sampler:
    """Codes from a standard normal."""

    @torch.no_grad()
    def draw(count: int) -> torch.Tensor:
        codes = torch.randn(count, latent_dim, generator=torch.Generator().manual_seed(seed))
        decoded = [codec.decode(part.to(device)).cpu() for part in torch.split(codes, _BATCH)]
        return torch.cat(decoded).clamp(0, 1)

    return Sampler("prior", draw)


def from_mixture(checkpoint: Path, seed: int, accelerator: Accelerator) -> Sampler:
    """Ears written by `earteach sample --sampler gmm`."""
    config = InferenceConfig(precision="32", accelerator=accelerator)

    def draw(count: int) -> torch.Tensor:
        with tempfile.TemporaryDirectory() as name:
            written = sample(
                checkpoint,
                Path(name),
                number=count,
                seed=seed,
                sampler="gmm",
                nearest=False,
                config=config,
            )
            return to_batch(np.stack([_read(path) for path in written.images]))

    return Sampler("gmm", draw)


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
