"""How near a model's new ears are to real ears of the validation arrays."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from benchmarks.quality.scoring import CHANNELS, Codec
from benchmarks.quality.settings import Settings
from benchmarks.quality.two_sample import accuracy
from earteach.config import InferenceConfig
from earteach.data.arrays import EarArray, sampled_rows
from earteach.data.image_batches import image_batches, to_batch
from earteach.inference.sample import sample
from earteach.metrics.gaussian_mixture import fit_mixture
from earteach.metrics.gist import features, similarity

Accelerator = Literal["cpu", "gpu", "auto"]
_BATCH, _FITTED_IMAGES, _THUMBNAIL = 64, 4096, 16


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

    def draw(count: int) -> torch.Tensor:
        codes = torch.randn(count, latent_dim, generator=torch.Generator().manual_seed(seed))
        return _decoded(codec, codes, device)

    return Sampler("prior", draw)


def from_mixture(codec: Codec, settings: Settings, device: str = "cpu") -> Sampler:
    """Codes from earteach's Gaussian mixture, fitted to a peer's codes of 4,096 training images."""

    @torch.no_grad()
    def draw(count: int) -> torch.Tensor:
        array = EarArray.open(settings.train)
        codes, thumbnails = [], []
        for batch in image_batches(
            array, size=settings.image_size, channels=CHANNELS, batch_size=_BATCH,
            indices=sampled_rows(len(array), _FITTED_IMAGES).tolist(),
        ):  # fmt: skip
            codes.append(codec.encode(batch.images.to(device))[0].cpu().numpy())
            small = functional.adaptive_avg_pool2d(batch.images, _THUMBNAIL)
            thumbnails.append(small.flatten(1).numpy())
        mixture = fit_mixture(np.concatenate(codes), np.concatenate(thumbnails), has_side=False)
        drawn = torch.stack(list(islice(mixture.codes(settings.seed), count)))
        return _decoded(codec, drawn, device)

    return Sampler("gmm", draw)


def from_command(checkpoint: Path, seed: int, accelerator: Accelerator) -> Sampler:
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


@torch.no_grad()
def _decoded(codec: Codec, codes: torch.Tensor, device: str) -> torch.Tensor:
    decoded = [codec.decode(part.to(device)).cpu() for part in torch.split(codes, _BATCH)]
    return torch.cat(decoded).clamp(0, 1)


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
