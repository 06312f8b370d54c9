"""`earteach eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from earteach.cli.options import CheckpointDir, Ckpt, Json, LayoutChoice, found
from earteach.cli.output import Output, facts, table
from earteach.config import InferenceConfig

if TYPE_CHECKING:
    from earteach.inference.evaluate import Evaluation


def evaluate(
    config: InferenceConfig,
    ckpt: Ckpt = None,
    data: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--data", help="An array; left out, the checkpoint's validation array."),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines/--no-baselines",
            help="Measure the mean training image and PCA of the training images beside it.",
        ),
    ] = True,
    layout: LayoutChoice = None,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json: Json = False,
) -> None:
    """Measure how well a model reconstructs ears, beside the mean image and PCA."""
    from earteach.inference.evaluate import evaluate as core

    path = found(ckpt, checkpoint_dir)
    result = core(path, data, layout=layout, baselines=baselines, config=config)
    metrics = result.metrics
    Output(json).show(
        result,
        table(
            f"{result.images:,} images of {result.data}", "", "PSNR", "SSIM",
            rows=_rows(result),
        ),
        facts(
            str(result.checkpoint),
            {
                "loss": f"{metrics.loss:.6f}, with the final KLD weight",
                "reconstruction loss": f"{metrics.recon_loss:.6f}, from noisy codes",
                "KLD": f"{metrics.kld:.2f} nats",
                "active units": f"{metrics.active_units} of {metrics.latent_dim}",
            },
        ),
    )  # fmt: skip


def _rows(result: Evaluation) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("this model", f"{result.metrics.psnr:.2f} dB", f"{result.metrics.ssim:.4f}")
    ]
    if result.baselines is not None:
        pca, mean = result.baselines.pca, result.baselines.mean_image
        rows += [
            (f"PCA, {pca.components} components", f"{pca.psnr:.2f} dB", f"{pca.ssim:.4f}"),
            ("mean training image", f"{mean.psnr:.2f} dB", f"{mean.ssim:.4f}"),
        ]
    return rows
