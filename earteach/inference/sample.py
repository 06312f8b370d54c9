"""New ears from the prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from earteach.config import InferenceConfig
from earteach.errors import EarTeachError
from earteach.images import grid, make_folder, refuse_foreign, remove_stale, to_uint8, write_png
from earteach.inference.running import open_model

GRID = "grid.png"


@dataclass(frozen=True)
class Samples:
    """The pictures that were written: one for each ear, and one grid of them all."""

    checkpoint: Path
    seed: int
    sampler: Literal["prior"]
    images: tuple[Path, ...]
    grid: Path


def sample(
    path: str | Path,
    out: Path,
    *,
    number: int = 8,
    seed: int = 42,
    config: InferenceConfig | None = None,
) -> Samples:
    """Decode `number` codes drawn from the standard normal prior and write them as PNGs.

    The same checkpoint and seed give the same ears. Pictures of an earlier call are replaced; files
    that earteach did not write are an `EarTeachError`.
    """
    if number < 1:
        raise EarTeachError(f"--number {number}: must be at least 1")
    config = config or InferenceConfig()
    model = open_model(Path(path), config)
    generator = torch.Generator().manual_seed(seed)
    with model.running() as network:
        decoded = [
            to_uint8(network.sample(min(config.batch_size, number - start), generator))
            for start in range(0, number, config.batch_size)
        ]
    ears = [ear for batch in decoded for ear in batch]
    make_folder(out)
    digits = max(3, len(str(number - 1)))
    paths = tuple(out / f"sample-{place:0{digits}d}.png" for place in range(number))
    for target in (*paths, out / GRID):
        refuse_foreign(target)
    facts = {"Checkpoint": model.checkpoint.path.name, "Seed": str(seed)}
    for target, ear in zip(paths, ears, strict=True):
        write_png(target, ear, facts)
    write_png(out / GRID, grid(ears, columns=math.ceil(math.sqrt(number))), facts)
    remove_stale(out, "sample-*.png", keep=paths)
    return Samples(model.checkpoint.path, seed, "prior", paths, out / GRID)
