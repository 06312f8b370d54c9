"""`earteach eval`."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from earteach.cli.options import (
    CheckpointDir,
    Ckpt,
    DataArray,
    Json,
    LayoutChoice,
    complete_checkpoint,
)
from earteach.cli.output import Output, advice_table, facts, table
from earteach.config import InferenceConfig

if TYPE_CHECKING:
    from earteach.inference.evaluate import Evaluation, Score
    from earteach.inference.evaluation_files import Picture
    from earteach.metrics.bootstrap import Interval
    from earteach.metrics.eval_metrics import Margin

# The columns of the table beside those of `METRICS`: fields of `Metrics`, which baselines lack.
COLUMNS = {"KLD": "{kld:.2f} nats", "active": "{active_units}/{latent_dim}"}


def evaluate(
    config: InferenceConfig,
    ckpt: Ckpt = None,
    data: DataArray = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against",
            help="Another checkpoint, or a folder with one, to compare with; repeatable.",
            metavar="CKPT",
            autocompletion=complete_checkpoint,
        ),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines/--no-baselines",
            help="Compare with the mean training image and PCA of the training images.",
        ),
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for pictures of the worst and best images and a per-image table.",
        ),
    ] = None,
    layout: LayoutChoice = None,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json: Json = False,
) -> None:
    """Measure how well a model reconstructs ears, compared with PCA and other models."""
    from earteach.inference.evaluate import evaluate as core

    result = core(
        ckpt or checkpoint_dir, data, layout=layout, baselines=baselines, against=against or (), out=out,
        config=config,
    )  # fmt: skip
    Output(json).show(result, *_parts(result))


def _parts(result: Evaluation) -> list[RenderableType]:
    images = "1 image" if result.images == 1 else f"{result.images:,} images"
    rows = result.scores()
    cells = [_cells(name, score) for name, score, _ in rows]
    values = [tuple(row.values()) for row in cells]
    parts: list[RenderableType] = [table(f"{images} from {result.data}", *cells[0], rows=values)]
    if result.intervals["ssim"] is not None:
        intervals = [
            (name, _range(interval["psnr"], ".2f", " dB"), _range(interval["ssim"], ".4f"))
            for name, _, interval in rows
        ]
        title = "95 % intervals of the means over images"
        parts.append(table(title, "", "PSNR", "SSIM", rows=intervals))
    return [*parts, facts(str(result.checkpoint), _facts(result)), *advice_table(result.advice)]


def _cells(name: str, score: Score) -> dict[str, str]:
    from earteach.metrics.eval_metrics import METRICS

    cells = {"": name}
    for field, metric in METRICS.items():
        if (mean := getattr(score, field)) is not None:
            cells[metric.label] = metric.form.format(mean)
    measured = "kld" in vars(score)
    return cells | {
        label: form.format(**vars(score)) if measured else "–" for label, form in COLUMNS.items()
    }


def _range(interval: Interval | None, form: str, unit: str = "") -> str:
    return "–" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}{unit}"


def _facts(result: Evaluation) -> dict[str, str]:
    metrics, health = result.metrics, result.health
    margins = {"PCA": result.over_pca} if result.over_pca else {}
    margins |= {str(other.checkpoint): other.over_it for other in result.against}
    klds = sorted(health.kld_per_dimension)
    values = {
        "PSNR": "\n".join(_verdict(n, m["psnr"], 2, " dB") for n, m in margins.items()),
        "SSIM": "\n".join(_verdict(n, m["ssim"], 4) for n, m in margins.items()),
        "loss": f"{metrics.loss:.6f}, {100 * health.share_kld:.2g} % of it KLD at the final weight",
        "reconstruction loss": f"{metrics.recon_loss:.6f}, from noisy codes",
        "on training images": ""
        if health.train_recon_loss is None
        else f"{health.train_recon_loss:.6f}, without augmentation",
        "KLD per dimension": f"{klds[0]:.2f} to {klds[-1]:.2f} nats, median {median(klds):.2f}",
    }
    if result.files is not None:
        values["worst images"] = _picture(result.files.worst)
        values["best images"] = _picture(result.files.best)
        values["each image"] = str(result.files.per_image)
    return {name: value for name, value in values.items() if value}


def _verdict(other: str, margin: Margin, digits: int, unit: str = "") -> str:
    """How this model compares: `ahead of PCA by 0.52 dB (0.47 to 0.57)`."""
    mean, low, high = margin.difference, margin.low, margin.high
    text = f"{margin.standing} {other}"
    if margin.standing == "not comparable with":
        return f"{text}: an image has zero error"
    if margin.standing == "tied with":
        interval = "" if low is None else f" ({low:+.{digits}f} to {high:+.{digits}f})"
        return f"{text}: {mean:+.{digits}f}{unit}{interval}"
    text += f" by {abs(mean):.{digits}f}{unit}"
    if low is None or high is None:
        return f"{text}, on one image"
    low, high = sorted((abs(low), abs(high)))
    return f"{text} ({low:.{digits}f} to {high:.{digits}f})"


def _picture(picture: Picture) -> str:
    rows = "row" if len(picture.rows) == 1 else "rows"
    return f"{picture.path}: {rows} {', '.join(map(str, picture.rows))}"
