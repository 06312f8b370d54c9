"""Images per second of a backbone, on one thread or several, as torch is set."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch

from benchmarks.transfer.backbones import IMAGENET, TUNED, Backbone

COLUMNS = {"image": "", "batch": ".0f", "earteach, images/s": "", "ImageNet, images/s": ""}
SETTINGS = (("64×64", 64, (64, 64)), ("480×360", 1, (360, 480)))
SECONDS = 3.0


def throughput_rows(made: Mapping[str, Backbone]) -> list[list[str | float | None]]:
    """Both backbones with every stride, in turn."""
    rows: list[list[str | float | None]] = []
    for name, batch, size in SETTINGS:
        images = torch.rand(batch, 3, *size)
        speeds = [
            images_per_second(made[s], images) if s in made else None for s in (TUNED, IMAGENET)
        ]
        rows.append([name, batch, *speeds])
    return rows


@torch.inference_mode()
def images_per_second(make: Backbone, images: torch.Tensor) -> float:
    backbone = make(0).eval()
    backbone(images)
    start, passes = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        backbone(images)
        passes += 1
    return passes * len(images) / (time.perf_counter() - start)
