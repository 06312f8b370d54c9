"""`earteach embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earteach.cli.options import CheckpointDir, Ckpt, FitChoice, Json, LayoutChoice
from earteach.cli.output import Output, facts
from earteach.config import InferenceConfig


def embed(
    config: InferenceConfig,
    source: Annotated[
        Path, typer.Option("--input", help="An array, a folder of images or an image.")
    ],
    out: Annotated[
        Path, typer.Option("--out", help="File to write: .npz, .parquet, or .npy for mu alone.")
    ],
    ckpt: Ckpt = None,
    logvar: Annotated[
        bool, typer.Option("--logvar", help="Add the log-variances of the codes.")
    ] = False,
    features: Annotated[
        bool,
        typer.Option("--features", help="Add the pooled features that `probe` uses."),
    ] = False,
    fit: FitChoice = "stretch",
    layout: LayoutChoice = None,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json: Json = False,
) -> None:
    """Write the latent codes of ears to a file, one named row per ear."""
    from earteach.inference.embed import embed as core

    result = core(
        ckpt or checkpoint_dir, source, out, logvar=logvar, features=features,
        layout=layout, fit=fit, config=config,
    )  # fmt: skip
    rows = {
        "ears": f"{result.images:,} from {result.input}",
        "file": str(result.path),
        "mu": f"{result.latent_dim} values each" + (", and their logvar" if logvar else ""),
    }
    if result.features is not None:
        rows["features"] = f"{result.features:,} values each"
    Output(json).show(result, facts(f"Codes from {result.checkpoint}", rows))
