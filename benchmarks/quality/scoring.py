"""The measurement of every model: PSNR and SSIM of the image decoded from mu, in float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch

from benchmarks.quality.settings import Settings
from earteach.data.arrays import EarArray, sampled_rows
from earteach.data.image_batches import image_batches, to_batch
from earteach.images import to_uint8
from earteach.metrics.eval_metrics import psnr, ssim
from earteach.metrics.latent import LatentStatistics

CHANNELS = 3
SHEET_EARS = 12
_BATCH = 64


class Codec(Protocol):
    """Images `(B, 3, S, S)` in [0, 1] to mu and logvar, `(B, D)`, and back."""

    def encode(self, x: torch.Tensor, /) -> tuple[torch.Tensor, torch.Tensor]: ...

    def decode(self, z: torch.Tensor, /) -> torch.Tensor: ...


@dataclass(frozen=True)
class Score:
    """Means over the images, PSNR in dB; `active_units` counts dimensions of mu with variance > 0.01."""

    images: int
    psnr: float
    ssim: float
    active_units: int


@dataclass(frozen=True)
class Point:
    """A point of the curve: seconds of training, and the score on a part of each array."""

    seconds: float
    scores: dict[str, Score]


def open_arrays(settings: Settings) -> dict[str, EarArray]:
    """The validation arrays by name."""
    return {name: EarArray.open(path) for name, path in settings.val.items()}


@torch.no_grad()
def score(
    codec: Codec,
    array: EarArray,
    settings: Settings,
    *,
    most: int | None = None,
    device: str = "cpu",
) -> Score:
    """Measure on the whole array, or on `most` evenly spread images."""
    rows = sampled_rows(len(array), len(array) if most is None else most).tolist()
    sums = torch.zeros(2, dtype=torch.float64)
    statistics = None
    for batch in image_batches(
        array, size=settings.image_size, channels=CHANNELS, batch_size=_BATCH, indices=rows
    ):
        images = batch.images.to(device)
        mu, _ = codec.encode(images)
        decoded = codec.decode(mu).clamp(0, 1)
        quality = torch.stack([psnr(decoded, images), ssim(decoded, images)])
        sums += quality.double().sum(dim=1).cpu()
        # PCA of few images has fewer components.
        statistics = statistics or LatentStatistics(mu.shape[1])
        statistics.update(mu)
    assert statistics is not None
    psnr_mean, ssim_mean = (sums / len(rows)).tolist()
    return Score(len(rows), psnr_mean, ssim_mean, statistics.active_units())


def score_all(
    codec: Codec,
    arrays: Mapping[str, EarArray],
    settings: Settings,
    *,
    most: int | None = None,
    device: str = "cpu",
) -> dict[str, Score]:
    """`score` on each array."""
    return {
        name: score(codec, array, settings, most=most, device=device)
        for name, array in arrays.items()
    }


def real_ears(arrays: Mapping[str, EarArray], settings: Settings, count: int) -> torch.Tensor:
    """Up to `count` images, evenly spread over all arrays, `(N, 3, S, S)` in [0, 1].

    The first halves of all arrays come first: the two-sample test learns from them and is tested on the
    rest, which are of other people where an array is in the order of its people.
    """
    halves = [(0, 0.5), (0.5, 1)]
    images = [
        (array, row)
        for start, end in halves
        for array in arrays.values()
        for row in range(int(start * len(array)), int(end * len(array)))
    ]
    chosen = [images[index] for index in sampled_rows(len(images), count)]
    return _stack(chosen, settings)


def sheet_ears(arrays: Mapping[str, EarArray], settings: Settings) -> torch.Tensor:
    """The ears of the sheet: an equal share of each array, evenly spread."""
    share, rest = divmod(SHEET_EARS, len(arrays))
    chosen = [
        (array, row)
        for index, array in enumerate(arrays.values())
        for row in sampled_rows(len(array), share + (index < rest)).tolist()
    ]
    return _stack(chosen, settings)


@torch.no_grad()
def reconstructed(codec: Codec, images: torch.Tensor, device: str = "cpu") -> np.ndarray:
    """Reconstructions, uint8 `(B, S, S, 3)`."""
    mu, _ = codec.encode(images.to(device))
    return to_uint8(codec.decode(mu))


def _stack(chosen: list[tuple[EarArray, int]], settings: Settings) -> torch.Tensor:
    size = settings.image_size
    return to_batch(
        np.stack([array.image(row, size=size, channels=CHANNELS) for array, row in chosen])
    )


def scores_to_dict(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {name: asdict(score) for name, score in scores.items()}
