"""`earteach embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earteach.cli.options import CheckpointDir, Ckpt, FitChoice, Json, LayoutChoice, found
from earteach.cli.output import Output, facts
from earteach.config import InferenceConfig


def embed(
    config: InferenceConfig,
    source: Annotated[
        Path, typer.Option("--input", help="An array, a folder of images or one image.")
    ],
    out: Annotated[
        Path, typer.Option("--out", help="The file: .npz, .parquet, or .npy for mu alone.")
    ],
    ckpt: Ckpt = None,
    logvar: Annotated[
        bool, typer.Option("--logvar", help="Log-variances of the codes beside their means.")
    ] = False,
    features: Annotated[
        bool,
        typer.Option(
            "--features", help="Means of the encoder's maps at strides 2 to 16 over the image."
        ),
    ] = False,
    fit: FitChoice = "stretch",
    layout: LayoutChoice = None,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json: Json = False,
) -> None:
    """Write the latent codes of ears, row for row, with their names."""
    from earteach.inference.embed import embed as core

    result = core(
        found(ckpt, checkpoint_dir),
        source,
        out,
        logvar=logvar,
        features=features,
        layout=layout,
        fit=fit,
        config=config,
    )
    values = {
        "ears": f"{result.images:,} of {result.input}",
        "file": str(result.path),
        "mu": f"{result.latent_dim} numbers each" + (", and their logvar" if logvar else ""),
    }
    if result.features is not None:
        values["features"] = f"{result.features} numbers each"
    Output(json).show(result, facts(f"Codes by {result.checkpoint}", values))
