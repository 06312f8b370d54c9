"""`earteach sharpen`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from earteach.cli.options import CheckpointDir, Ckpt, Json, Seed
from earteach.cli.output import Output, bar, counting, duration, facts, note
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

    with bar() as update:
        result = core(
            ckpt or checkpoint_dir,
            steps=steps, seed=seed, config=config, progress=steps_shown(update),
        )  # fmt: skip
    rows = {
        "second decoder": str(result.path),
        "learned from": f"{result.images:,} images, {result.steps:,} steps",
        "next": f"earteach sample {result.checkpoint} --out DIR",
    }
    Output(json).show(result, facts(f"Sharpened {result.checkpoint}", rows))


def steps_shown(update: Callable[..., None] | None) -> Callable[[int, int], None]:
    """Shows the steps in a `bar` if there is one; after a tenth, a note says how long the others take.

    In the first twentieth, the decoder does not learn yet, so these steps are shorter.
    """
    show = update and counting(update, "sharpening")
    began: float | None = None

    def shown(done: int, total: int) -> None:
        nonlocal began
        timed = total // 10 - total // 20
        if done == total // 20:
            began = time.monotonic()
        elif done == total // 10 and began is not None:
            seconds = (time.monotonic() - began) / timed * (total - done)
            note(f"{done} of {total} steps; the others will take about {duration(seconds)}")
        if show:
            show(done, total)

    return shown
