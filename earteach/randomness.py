"""Randomness without state: every draw is a function of the seed and of what it is for.

Nothing needs to be saved for a run to continue exactly, and the number of worker processes cannot
matter: the order of the images follows from (seed, epoch), an image's augmentation from (seed, epoch,
index), the latent noise of a step from (seed, step, rank), that of validation from (seed, index).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What a draw is for, so that equal numbers used for two things give unrelated draws."""

    ORDER = 0
    AUGMENTATION = 1
    TRAINING_NOISE = 2
    VALIDATION_NOISE = 3
    SPLIT = 4
    WEIGHTS = 5
    VARIATION_NOISE = 6
    VIEWS = 7
    DRAWN_EARS = 8
    NEW_CODES = 9


def derive(seed: int, purpose: Purpose, *parts: int) -> int:
    """A 63-bit seed for one purpose and place (numpy's SeedSequence mixes the parts)."""
    words = np.random.SeedSequence([seed, int(purpose), *parts]).generate_state(1, np.uint64)
    return int(words[0]) >> 1


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """What torch draws inside, such as new weights, follows from the seed; its own state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, Purpose.WEIGHTS))
        yield


def permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    """The order in which an epoch sees its images, int64 `(length,)`."""
    return np.random.default_rng(derive(seed, Purpose.ORDER, epoch)).permutation(length)


def training_noise(seed: int, step: int, rank: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal latent noise of one training step on one device, float32 on the CPU."""
    generator = torch.Generator().manual_seed(derive(seed, Purpose.TRAINING_NOISE, step, rank))
    return torch.randn(shape, generator=generator)


def views_generator(seed: int, step: int, rank: int) -> torch.Generator:
    """What the second views of one training step on one device are drawn from."""
    return torch.Generator().manual_seed(derive(seed, Purpose.VIEWS, step, rank))


def validation_noise(seed: int, indices: list[int], latent_dim: int) -> torch.Tensor:
    """Standard normal latent noise of each image, float32 `(len(indices), latent_dim)` on the CPU.

    An image's noise does not depend on the batch that it is in.
    """
    return _rows([derive(seed, Purpose.VALIDATION_NOISE, index) for index in indices], latent_dim)


def variation_noise(
    seed: int, places: Sequence[int], variation: int, latent_dim: int
) -> torch.Tensor:
    """Standard normal latent noise of one variation of each ear, float32 `(len(places), latent_dim)`."""
    seeds = [derive(seed, Purpose.VARIATION_NOISE, place, variation) for place in places]
    return _rows(seeds, latent_dim)


def _rows(seeds: Sequence[int], length: int) -> torch.Tensor:
    generator = torch.Generator()
    return torch.stack([torch.randn(length, generator=generator.manual_seed(s)) for s in seeds])
