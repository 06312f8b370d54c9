"""`earteach sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earteach.cli.options import CheckpointDir, Ckpt, Json, Seed, found
from earteach.cli.output import Output, facts
from earteach.config import InferenceConfig


def sample(
    config: InferenceConfig,
    out: Annotated[Path, typer.Option("--out", help="Folder for the PNGs.")],
    ckpt: Ckpt = None,
    number: Annotated[int, typer.Option("--number", "-n", help="How many ears.", min=1)] = 8,
    seed: Seed = 42,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json: Json = False,
) -> None:
    """Draw new ears from what a model learned: PNGs and one grid."""
    from earteach.inference.sample import sample as core

    path = found(ckpt, checkpoint_dir)
    result = core(path, out, number=number, seed=seed, config=config)
    values = {
        "ears": f"{result.images[0]} to {result.images[-1].name}",
        "grid": str(result.grid),
        "drawn from": f"the {result.sampler}, seed {result.seed}",
    }
    Output(json).show(result, facts(f"{number} new ears of {result.checkpoint}", values))
