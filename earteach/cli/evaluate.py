"""`earteach eval`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import RenderableType

from earteach.cli import completion
from earteach.cli.options import CheckpointDir, Ckpt, Json, LayoutChoice, found
from earteach.cli.output import Output, advice_table, facts, table
from earteach.config import InferenceConfig

if TYPE_CHECKING:
    from earteach.inference.evaluation import (
        Evaluation,
        Intervals,
        Margin,
        MeanImageScore,
        Metrics,
        PCAScore,
    )
    from earteach.inference.evaluation_files import Picture
    from earteach.metrics.bootstrap import Interval

    Score = Metrics | PCAScore | MeanImageScore

_NONE = "–"


def evaluate(
    config: InferenceConfig,
    ckpt: Ckpt = None,
    data: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--data",
            help="An array; left out, the checkpoint's validation array.",
        ),
    ] = None,
    against: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(
            "--against",
            help="Another checkpoint, or a folder with a best one, to measure beside it; repeatable.",
            metavar="CKPT",
            autocompletion=completion.checkpoints,
        ),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines/--no-baselines",
            help="Measure the mean training image and PCA of the training images beside it.",
        ),
    ] = True,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--out",
            help="Folder for pictures of the worst and best images and a table of each one's values.",
        ),
    ] = None,
    layout: LayoutChoice = None,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json: Json = False,
) -> None:
    """Measure how well a model reconstructs ears, beside the mean image, PCA and other models."""
    from earteach.inference.evaluate import evaluate as core

    path = found(ckpt, checkpoint_dir)
    result = core(
        path, data, layout=layout, baselines=baselines, against=against or (), out=out,
        config=config,
    )  # fmt: skip
    Output(json).show(result, *_parts(result))


def _parts(result: Evaluation) -> list[RenderableType]:
    images = "1 image" if result.images == 1 else f"{result.images:,} images"
    cells = [_cells(name, score) for name, score, _ in _rows(result)]
    parts: list[RenderableType] = [
        table(
            f"{images} of {result.data}", *cells[0], rows=[tuple(row.values()) for row in cells]
        )
    ]  # fmt: skip
    if result.intervals.ssim is not None:
        intervals = [
            (name, _interval(interval.psnr, 2, " dB"), _interval(interval.ssim, 4))
            for name, _, interval in _rows(result)
        ]
        title = "95 % intervals of the means, by bootstrap over images"
        parts.append(table(title, "", "PSNR", "SSIM", rows=intervals))
    return [*parts, facts(str(result.checkpoint), _facts(result)), *advice_table(result.advice)]


def _rows(result: Evaluation) -> list[tuple[str, Score, Intervals]]:
    """This model, the others, the baselines."""
    rows: list[tuple[str, Score, Intervals]] = [
        ("this model", result.metrics, result.intervals),
        *((str(other.checkpoint), other.metrics, other.intervals) for other in result.against),
    ]
    if result.baselines is not None:
        pca, mean = result.baselines.pca, result.baselines.mean_image
        rows.append((f"PCA, {pca.components} components", pca, pca.intervals))
        rows.append(("mean training image", mean, mean.intervals))
    return rows


def _cells(name: str, score: Score) -> dict[str, str]:
    from earteach.inference.evaluation import Metrics

    cells = {"": name, "PSNR": f"{score.psnr:.2f} dB", "SSIM": f"{score.ssim:.4f}"}
    if score.ms_ssim is not None:
        cells["MS-SSIM"] = f"{score.ms_ssim:.4f}"
    if isinstance(score, Metrics):
        active = f"{score.active_units}/{score.latent_dim}"
        return {**cells, "KLD": f"{score.kld:.2f} nats", "active": active}
    return {**cells, "KLD": _NONE, "active": _NONE}


def _interval(interval: Interval | None, digits: int, unit: str = "") -> str:
    if interval is None:
        return _NONE
    low, high = interval
    return f"{low:.{digits}f} to {high:.{digits}f}{unit}"


def _facts(result: Evaluation) -> dict[str, str]:
    metrics = result.metrics
    others = {"PCA": result.over_pca} if result.over_pca else {}
    others |= {str(rival.checkpoint): rival.over_it for rival in result.against}
    values = {}
    if others:
        values["PSNR"] = "\n".join(_verdict(n, m.psnr, 2, " dB") for n, m in others.items())
        values["SSIM"] = "\n".join(_verdict(n, m.ssim, 4) for n, m in others.items())
    health = result.health
    values["loss"] = (
        f"{metrics.loss:.6f}, of it {100 * health.share_kld:.2g} % KLD at its final weight"
    )
    values["reconstruction loss"] = f"{metrics.recon_loss:.6f}, from noisy codes"
    if health.train_recon_loss is not None:
        values["on training images"] = f"{health.train_recon_loss:.6f}, without augmentation"
    values["KLD per dimension"] = _spread(health.kld_per_dimension)
    if result.files is not None:
        values["worst images"] = _picture(result.files.worst)
        values["best images"] = _picture(result.files.best)
        values["each image"] = str(result.files.per_image)
    return values


def _spread(klds: Sequence[float]) -> str:
    from statistics import median

    return f"{min(klds):.2f} to {max(klds):.2f} nats, median {median(klds):.2f}"


def _verdict(other: str, margin: Margin, digits: int, unit: str = "") -> str:
    """Whether this model is ahead: `ahead of PCA by 0.52 dB (0.47 to 0.57)`."""
    mean, low, high = margin.difference, margin.low, margin.high
    who = f"{margin.standing} {other}"
    if margin.standing == "not comparable with":
        return f"{who}: an image without any error"
    if margin.standing == "undecided against":
        interval = "" if low is None else f" ({low:+.{digits}f} to {high:+.{digits}f})"
        return f"{who}: {mean:+.{digits}f}{unit}{interval}"
    apart = f"{who} by {abs(mean):.{digits}f}{unit}"
    if low is None or high is None:
        return f"{apart}, on one image"
    low, high = sorted((abs(low), abs(high)))
    return f"{apart} ({low:.{digits}f} to {high:.{digits}f})"


def _picture(picture: Picture) -> str:
    rows = "row" if len(picture.rows) == 1 else "rows"
    return f"{picture.path}: {rows} {', '.join(map(str, picture.rows))}"
