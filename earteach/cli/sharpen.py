"""`earteach sharpen`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earteach.cli.options import CheckpointDir, Ckpt, Json, Seed
from earteach.cli.output import Output, facts, progress_bar
from earteach.config import SHARPEN_STEPS, InferenceConfig


def sharpen(
    config: InferenceConfig,
    ckpt: Ckpt = None,
    steps: Annotated[int, typer.Option("--steps", help="Training steps.", min=1)] = SHARPEN_STEPS,
    seed: Seed = 42,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json: Json = False,
) -> None:
    """Train a second decoder, with which `sample` draws sharper ears.

    It is stored beside the checkpoint. Reconstructions keep the first decoder, whose error is smaller.
    """
    from earteach.inference.sharpen import sharpen as core

    with progress_bar("sharpening") as progress:
        result = core(
            ckpt or checkpoint_dir,
            steps=steps, seed=seed, config=config, progress=progress,
        )  # fmt: skip
    rows = {
        "second decoder": str(result.path),
        "learned from": f"{result.images:,} images, {result.steps:,} steps",
        "next": f"earteach sample {result.checkpoint} --out DIR",
    }
    Output(json).show(result, facts(f"Sharpened {result.checkpoint}", rows))
