"""Whether an exported file computes torch's numbers on validation images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from earteach.data.arrays import EarArray, sampled_rows
from earteach.data.image_batches import to_batch
from earteach.errors import EarTeachError
from earteach.inference.export.parts import Job
from earteach.synthetic.drawn_ear import draw_ear

TOLERANCE = 1e-3
_BATCHES = [1, 3, 5]

Run = Callable[[torch.Tensor], list[np.ndarray]]


@dataclass(frozen=True)
class Parity:
    """The largest difference from torch over all outputs, on `images` images."""

    images: int
    max_abs_error: float
    passed: bool


@dataclass(frozen=True)
class Quantization:
    """What int8 costs, on `images` validation images that were not used for calibration.

    `psnr` and `float_psnr` are those of reconstructions, in dB, with the other half of the network in
    float; `psnr_loss` is their difference. None for features, which make no image.
    `signal_to_noise` is that of the output, of mu, or of the worst map, in dB: the variance of the
    float output over its mean squared difference from the int8 output.
    """

    to: Literal["int8"]
    images: int
    calibration_images: int
    psnr: float | None
    float_psnr: float | None
    psnr_loss: float | None
    signal_to_noise: float


def check_parity(job: Job, run: Run) -> Parity:
    """Run the file on batches of 1, 3 and 5 images and compare it with torch.

    Raises `EarTeachError` where an output differs by more than 1e-3 times its largest magnitude, or
    than 1e-3 if that is below 1.
    """
    images = ear_images(job, sum(_BATCHES))
    inputs = inputs_of(job, images)
    rows = torch.arange(sum(_BATCHES)) % len(inputs)
    largest = 0.0
    for batch in torch.split(inputs[rows], _BATCHES):
        for expected, output in zip(run_torch(job.module, batch), run(batch), strict=True):
            error = float(np.abs(expected - output).max())
            if not error <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
                raise EarTeachError(
                    f"the exported network differs from torch's by {error:.3g}, more than "
                    f"{TOLERANCE:g}, so it was removed; report this with `pip list` and the "
                    "checkpoint's options"
                )
            largest = max(largest, error)
    return Parity(len(images), largest, True)


def run_torch(module: nn.Module, batch: torch.Tensor) -> list[np.ndarray]:
    with torch.inference_mode():
        return [output.numpy() for output in module(batch)]


def ear_images(job: Job, limit: int) -> np.ndarray:
    """Up to `limit` images for the job, uint8 `(N, size, size, C)`.

    They are spread evenly over the validation array that the checkpoint names; without it, drawn ears.
    """
    data, channels = job.checkpoint.config.data, job.model.in_channels
    try:
        array = EarArray.open(data.val_data, data.layout)
        rows = sampled_rows(len(array), limit).tolist()
        return np.stack([array.image(row, size=job.size, channels=channels) for row in rows])
    except EarTeachError:
        drawn = [draw_ear(0, index, job.size).image for index in range(limit)]
        return np.stack(drawn)[..., :channels]


def inputs_of(job: Job, images: np.ndarray) -> torch.Tensor:
    """The part's input for images, uint8 `(N, size, size, C)`: the images, or their codes."""
    if job.preprocessing:
        return torch.from_numpy(images)
    batch = to_batch(images)
    if job.part != "decoder":
        return batch
    with torch.inference_mode():
        return job.model.encode(batch)[0].clone()
