"""Whether an exported file gives torch's numbers, on validation images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from earteach.checkpoint import Checkpoint
from earteach.data.arrays import EarArray, sampled_rows
from earteach.data.image_batches import to_batch
from earteach.errors import EarTeachError
from earteach.inference.export.parts import Job
from earteach.synthetic.drawn_ear import draw_ear

TOLERANCE = 1e-3
_BATCHES = (1, 3, 5)

Run = Callable[[torch.Tensor], list[np.ndarray]]


@dataclass(frozen=True)
class Parity:
    """The largest difference from torch, over all outputs, on so many images."""

    images: int
    max_abs_error: float
    passed: bool


def compared(job: Job, run: Run) -> Parity:
    """Run the file at batch 1, 3 and 5.

    Raises `EarTeachError` where it differs by more than 1e-3 of an output's largest value, or than
    1e-3 where that is below 1.
    """
    images = ear_images(job, sum(_BATCHES))
    worst = 0.0
    for batch in _batches(inputs_of(job, images)):
        for wanted, got in zip(by_torch(job.module, batch), run(batch), strict=True):
            error = float(np.abs(wanted - got).max())
            worst = max(worst, float("inf") if np.isnan(error) else error)
            if not error <= TOLERANCE * max(1.0, float(np.abs(wanted).max())):
                raise EarTeachError(
                    f"the exported network differs from torch's by {error:.3g}, more than "
                    f"{TOLERANCE:g}, so it was removed; report this with `pip list` and the "
                    "checkpoint's options"
                )
    return Parity(len(images), worst, True)


def by_torch(module: nn.Module, batch: torch.Tensor) -> list[np.ndarray]:
    with torch.inference_mode():
        return [output.numpy() for output in module(batch)]


def ear_images(job: Job, most: int) -> np.ndarray:
    """Evenly spread images of the validation array that the checkpoint names, or drawn ears.

    uint8 `(N, size, size, C)`, at most so many.
    """
    found = _validation_images(job.found, job.size, job.model.in_channels, most)
    if found is None:
        drawn = np.stack([draw_ear(0, index, job.size).image for index in range(most)])
        found = drawn[..., : job.model.in_channels]
    return found


def inputs_of(job: Job, images: np.ndarray) -> torch.Tensor:
    """The part's input for images, uint8 `(N, size, size, C)`: these, or their codes."""
    if job.preprocessing:
        return torch.from_numpy(images)
    batch = to_batch(images)
    if job.part != "decoder":
        return batch
    with torch.inference_mode():
        return job.model.encode(batch)[0].clone()


def _batches(inputs: torch.Tensor) -> Iterator[torch.Tensor]:
    """Each of the sizes; of few images some are in several batches."""
    first = 0
    for size in _BATCHES:
        yield inputs[[place % len(inputs) for place in range(first, first + size)]]
        first += size


def _validation_images(found: Checkpoint, size: int, channels: int, most: int) -> np.ndarray | None:
    named = found.config.data
    try:
        array = EarArray.open(named.val_data, named.layout)
        rows = sampled_rows(len(array), most).tolist()
        return np.stack([array.image(row, size=size, channels=channels) for row in rows])
    except EarTeachError:
        return None
