"""The sections of a run's page, as values for its template."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from markupsafe import Markup
from PIL import Image

from earteach.charts import Chart, chart, svg
from earteach.checkpoint import Checkpoint
from earteach.config import TrainConfig
from earteach.data.arrays import EarArray, resized, sampled_rows, to_channels
from earteach.errors import EarTeachError
from earteach.images import grid, to_uint8
from earteach.inference.evaluate import DetailedEvaluation
from earteach.inference.evaluation_files import comparison_strips
from earteach.inference.latent_traversal import traverse_axes
from earteach.inference.loaded_model import LoadedModel
from earteach.inference.run_record import EpochMetrics
from earteach.inference.sample import NewEars
from earteach.metrics.eigenears import Eigenears
from earteach.model.annealing import kld_weight

_PICTURED, _DIRECTIONS, _STEPS = 6, 6, 7
_LARGE, _SMALL, _GAP = 192, 96, 3


@dataclass(frozen=True)
class Picture:
    """A PNG inside the page."""

    source: str
    width: int
    height: int
    alt: str
    caption: str = ""


def picture(
    tiles: Sequence[np.ndarray],
    alt: str,
    caption: str = "",
    max_side: int = _SMALL,
    columns: int | None = None,
) -> Picture:
    """Tiles, uint8 `(S, S, C)`, in these columns or side by side; shrunk to `max_side` if larger."""
    side = min(max_side, tiles[0].shape[1])
    shrunk = [to_channels(resized(tile, side), 3) for tile in tiles]
    pixels = grid(shrunk, columns or len(tiles), _GAP)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return Picture(source, pixels.shape[1], pixels.shape[0], alt, caption)


def charts(
    epochs: Sequence[EpochMetrics], trained: Checkpoint, evaluation: DetailedEvaluation | None
) -> list[tuple[str, Markup]]:
    """Titles and drawings of the curves over epochs, which count from 1 here."""
    baselines = evaluation.summary.baselines if evaluation else None
    pca = vars(baselines.pca) if baselines else {}

    def curve(title: str, keys: dict[str, str], metric: str = "") -> Chart | None:
        series = {
            name: [(e.epoch + 1.0, e.metrics[key]) for e in epochs if key in e.metrics]
            for name, key in keys.items()
        }
        levels = {"PCA": pca[metric]} if metric in pca else {}
        return chart(title, series, levels=levels, mark=trained.epochs_completed)

    def both(name: str) -> dict[str, str]:
        return {"training": f"train/{name}", "validation": f"val/{name}"}

    length, kld = trained.config.optim.epochs, trained.config.kld
    schedule = [(epoch + 1.0, kld_weight(epoch, length, kld)) for epoch in range(length)]
    drawn = [
        curve("Loss", both("loss")),
        curve("Reconstruction loss, mean squared error", both("recon_loss")),
        curve("PSNR, dB", {"validation": "val/psnr"}, "psnr"),
        curve("SSIM", both("ssim"), "ssim"),
        curve("KLD, nats", both("kld")),
        curve("Active units", {"validation": "val/active_units"}),
        curve("Learning rate", {"at the end of the epoch": "lr"}),
        chart("KLD weight", {"schedule": schedule}, mark=trained.epochs_completed),
    ]
    return [(each.title, Markup(svg([each]))) for each in drawn if each is not None]


def reconstructions(
    model: LoadedModel, array: EarArray, evaluation: DetailedEvaluation, batch_size: int
) -> dict[str, Any]:
    """The images with the lowest and the highest PSNR, the most extreme first."""
    rows, measured = evaluation.measurement.rows, evaluation.measurement.quality
    baselines = evaluation.baselines
    order = np.argsort(measured.psnr, kind="stable")
    columns = f"input, reconstruction, {'PCA reconstruction, ' if baselines else ''}error"

    def strip(index: int, tiles: list[np.ndarray]) -> Picture:
        name = f"image {rows[index]}"
        caption = f"{name}: {measured.psnr[index]:.2f} dB, {measured.ssim[index]:.3f}"
        if baselines:
            pca = baselines.pca
            caption += f"; PCA {pca.psnr[index]:.2f} dB, {pca.ssim[index]:.3f}"
        return picture(tiles, f"{name}: {columns}", caption, _LARGE)

    groups = {}
    for title, chosen in (("Worst", order[:_PICTURED]), ("Best", order[::-1][:_PICTURED])):
        strips = comparison_strips(model, array, rows[chosen].tolist(), baselines, batch_size)
        groups[title] = [strip(*each) for each in zip(chosen.tolist(), strips, strict=True)]
    return {"columns": columns, "groups": groups}


def samples(new: NewEars) -> dict[str, Any]:
    """New ears, each above its nearest training image, and how near those are."""
    near = new.neighbours
    return {
        "pictures": [
            picture(np.split(tile, len(tile) // tile.shape[1]), f"new ear {index}", columns=1)
            for index, tile in enumerate(new.tiles, start=1)
        ],
        "drawn_from": new.source.description,
        "distance": near and float(np.median([entry.distance for entry in near.nearest])),
        "validation_distance": near and near.validation_distance,
    }


def directions(
    model: LoadedModel,
    new: NewEars | None,
    evaluation: DetailedEvaluation | None,
    batch_size: int,
) -> list[tuple[Picture, ...]]:
    """Eigenears beside the network's directions, by the variance that they explain.

    Raises `EarTeachError` if there are neither.
    """
    columns = []
    if evaluation is not None and evaluation.baselines is not None:
        columns.append(_eigenears(evaluation.baselines.eigenears, model.checkpoint.config))
    if new is not None and (mixture := new.source.mixture) is not None:
        count, shares = min(_DIRECTIONS, len(mixture.axes)), mixture.shares
        _, ears = traverse_axes(model, mixture, count, _STEPS, batch_size)
        strips = enumerate(np.split(ears, count))
        columns.append([_strip(x, f"Network direction {i + 1}", shares[i]) for i, x in strips])
    if not columns:
        raise EarTeachError("the training images are gone, and so is the mixture of their codes")
    return list(zip(*columns, strict=False))


def _eigenears(fitted: Eigenears, config: TrainConfig) -> list[Picture]:
    size, channels = config.model.image_size, config.model.in_channels
    steps = np.linspace(-3, 3, _STEPS, dtype=np.float32)[:, None]
    shares = fitted.variances / max(float(fitted.variances.sum()), 1e-30)
    strips = []
    for index in range(min(_DIRECTIONS, fitted.count)):
        along = steps * np.sqrt(fitted.variances[index]) * fitted.components[index]
        ears = torch.from_numpy(fitted.mean + along).reshape(-1, channels, size, size)
        strips.append(_strip(to_uint8(ears), f"Eigenear {index + 1}", shares[index]))
    return strips


def _strip(ears: np.ndarray, title: str, share: float) -> Picture:
    alt = f"{title}, from −3 to +3 standard deviations"
    return picture(list(ears), alt, f"{title}: {100 * float(share):.1f} %")


def data(model: LoadedModel) -> dict[str, tuple[dict[str, str], Picture | None]]:
    """What the run's arrays hold, and whether they have changed since training."""
    config = model.checkpoint.config.data
    return {
        "Training": _array(model, "train", config.train_data),
        "Validation": _array(model, "val", config.val_data),
    }


def _array(
    model: LoadedModel, name: Literal["train", "val"], path: Path
) -> tuple[dict[str, str], Picture | None]:
    """Facts, and a picture of a few images if the array can be read."""
    facts = {"array": str(path)}
    try:
        array = model.open_array(name)
        rows = sampled_rows(len(array), _STEPS).tolist()
        ears = [to_channels(model.image(array, row), 3) for row in rows]
    except EarTeachError as error:
        return {**facts, "state": str(error)}, None
    changed = model.is_as_in_training(array, name) is False
    facts |= {
        "images": f"{len(array):,}",
        "size": f"{array.width}×{array.height}, {array.channels} channels",
        "stored as": f"{array.layout}, {array.dtype}",
        "state": "has changed since training" if changed else "as in training",
    }
    return facts, picture(ears, f"some images of {path.name}")
