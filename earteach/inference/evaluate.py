"""How well a trained network reconstructs ears, beside the yardsticks.

>>> evaluate(Path("checkpoints"), Path("data/preprocessed/val_teacher.npy")).metrics.psnr
28.3
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from earteach import checkpoint
from earteach.config import InferenceConfig, Layout
from earteach.data.arrays import EarArray, sampled_rows
from earteach.data.image_batches import image_batches
from earteach.errors import EarTeachError
from earteach.inference import evaluation_files
from earteach.inference.baselines import Yardsticks, yardsticks
from earteach.inference.evaluation import (
    Baselines,
    Evaluation,
    Intervals,
    Margins,
    MeanImageScore,
    Metrics,
    PCAScore,
    Rival,
)
from earteach.inference.evaluation_files import Files
from earteach.inference.health import examine
from earteach.inference.loaded_model import LoadedModel, load_model
from earteach.metrics.image_quality import ImageQuality
from earteach.metrics.latent import LatentStatistics
from earteach.model.annealing import final_kld_weight
from earteach.model.loss import image_losses, total_loss
from earteach.model.vae import reparameterise
from earteach.randomness import validation_noise

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Appraisal:
    """An evaluation without rivals and files, and the values of each image in the order of `rows`."""

    evaluation: Evaluation
    rows: np.ndarray  # int64 (N,), of the array
    losses: np.ndarray  # float64 (N, 3): loss, reconstruction loss, KLD in nats
    quality: ImageQuality
    beside: Yardsticks | None


@dataclass(frozen=True)
class _Measured:
    """One pass of a model over an array: values of each image in the order of the rows."""

    losses: np.ndarray  # float64 (N, 3): loss, reconstruction loss, KLD in nats
    quality: ImageQuality
    codes: LatentStatistics

    def metrics(self, latent_dim: int) -> Metrics:
        loss, recon, kld = self.losses.mean(axis=0).tolist()
        psnr, ssim, ms_ssim = _means(self.quality)
        return Metrics(loss, recon, kld, ssim, psnr, self.codes.active_units(), latent_dim, ms_ssim)


def evaluate(
    path: str | Path,
    data: str | Path | None = None,
    *,
    layout: Layout | None = None,
    baselines: bool = True,
    against: Sequence[str | Path] = (),
    out: Path | None = None,
    config: InferenceConfig | None = None,
) -> Evaluation:
    """Measure a checkpoint on an array; left out, on the validation array that it names.

    On that array the values are those that training logged. `baselines` are fitted on the training
    array that the checkpoint names, and None where it is gone. `against` names other checkpoints, or
    folders with a best one, to measure on the same images. `out` is a folder for pictures of the
    worst and best images and a table of each image's values.

    Raises `EarTeachError` for a checkpoint or an array that cannot be read, for one of `against` that
    takes images of another size or other channels, and where `out` cannot be written.
    """
    began = time.monotonic()
    config = config or InferenceConfig()
    model = load_model(Path(path), config)
    rivals = [_comparable(Path(other), model) for other in against]
    array = open_array(model, data, layout)
    if out is not None:
        evaluation_files.prepare_folder(out)
    seen = appraise(model, array, baselines=baselines, batch_size=config.batch_size)
    return replace(
        seen.evaluation,
        against=tuple(_rival(other, array, seen.quality, config) for other in rivals),
        files=_files(out, model, array, seen, config.batch_size),
        seconds=time.monotonic() - began,
    )


def appraise(
    model: LoadedModel,
    array: EarArray,
    *,
    most: int | None = None,
    baselines: bool = True,
    batch_size: int = 32,
) -> Appraisal:
    """Measure a model on an array, or on at most so many evenly spread images of it."""
    began = time.monotonic()
    rows = sampled_rows(len(array), len(array) if most is None else most)
    measured = _measure(model, array, rows, batch_size)
    beside = yardsticks(model, array, rows, batch_size) if baselines else None
    metrics = measured.metrics(model.network.latent_dim)
    health, advice = examine(
        model, measured.codes, images=len(rows), loss=metrics.loss, recon_loss=metrics.recon_loss
    )
    evaluation = Evaluation(
        checkpoint=model.checkpoint.path,
        data=array.path,
        images=len(rows),
        metrics=metrics,
        intervals=Intervals.of(measured.quality),
        baselines=_scores(beside),
        over_pca=Margins.between(measured.quality, beside.pca.quality) if beside else None,
        against=(),
        files=None,
        health=health,
        advice=advice,
        seconds=time.monotonic() - began,
    )
    return Appraisal(evaluation, rows, measured.losses, measured.quality, beside)


def _comparable(path: Path, model: LoadedModel) -> Path:
    """The checkpoint at `path`, or the best in that folder, if it takes images as `model` does.

    It is opened again when its turn comes, so that one network at a time is in memory.
    """
    try:
        found = checkpoint.read(checkpoint.best(path) if path.is_dir() else path)
        found.model()  # weights that do not fit are said before the long work
    except EarTeachError as error:
        raise EarTeachError(f"--against {error}") from error
    theirs, ours = (c.config.model for c in (found, model.checkpoint))
    if (theirs.image_size, theirs.in_channels) != (ours.image_size, ours.in_channels):
        described = "{0.image_size}×{0.image_size}×{0.in_channels}".format
        raise EarTeachError(
            f"--against {found.path}: takes images of {described(theirs)}, and "
            f"{model.checkpoint.path} of {described(ours)}; their PSNR and SSIM cannot be compared: "
            "evaluate it by itself"
        )
    return found.path


def open_array(
    model: LoadedModel, data: str | Path | None = None, layout: Layout | None = None
) -> EarArray:
    """The array, or the validation array that the checkpoint names; `EarTeachError` without it."""
    named = model.checkpoint.config.data
    path = Path(data) if data is not None else named.val_data
    try:
        array = EarArray.open(path, layout or named.layout)
    except EarTeachError as error:
        if path.exists():
            raise
        raise EarTeachError(f"{path}: no such file; name an array with --data") from error
    array.note_conversions(model.network.image_size, model.network.in_channels)
    return array


def _measure(model: LoadedModel, array: EarArray, rows: np.ndarray, batch_size: int) -> _Measured:
    network = model.network
    losses: list[list[float]] = []  # no small tensors kept, as in `ImageQuality`
    quality, codes = ImageQuality(), LatentStatistics(network.latent_dim)
    _note_if_trained_on(model, array)
    with model.running():
        for batch in image_batches(
            array,
            size=network.image_size,
            channels=network.in_channels,
            batch_size=batch_size,
            indices=rows.tolist(),
        ):
            images = batch.images.to(model.device)
            mu, logvar = network.encode(images)
            losses += _losses(model, batch.indices, images, mu, logvar).tolist()
            codes.update(mu, logvar)
            quality.update(network.decode(mu), images)
    return _Measured(np.array(losses), quality, codes)


def _losses(
    model: LoadedModel,
    indices: Sequence[int],
    images: torch.Tensor,
    mu: torch.Tensor,
    logvar: torch.Tensor,
) -> torch.Tensor:
    """Loss, reconstruction loss and KLD of each image as validation has them, `(B, 3)`."""
    config = model.checkpoint.config
    noise = validation_noise(config.run.seed, list(indices), mu.shape[1]).to(model.device)
    noisy = model.network.decode(reparameterise(mu, logvar, noise))
    recon, kld = image_losses(noisy, images, mu, logvar)
    weight = final_kld_weight(config.kld)
    loss = total_loss(recon, kld, weight, config.kld.kld_reduction, mu.shape[1])
    return torch.stack([loss, recon, kld], dim=1)


def _note_if_trained_on(model: LoadedModel, array: EarArray) -> None:
    if model.checkpoint.about["data"].get("train") == array.fingerprint():
        _log.info(
            "%s was trained on the images of %s; how it does on others is another matter",
            model.checkpoint.path, array.path,
        )  # fmt: skip


def _scores(beside: Yardsticks | None) -> Baselines | None:
    if beside is None:
        return None
    mean_image, pca = beside.mean_image, beside.pca
    return Baselines(
        MeanImageScore(*_means(mean_image), intervals=Intervals.of(mean_image)),
        PCAScore(
            *_means(pca.quality),
            components=pca.fitted.count,
            images=pca.fitted.images,
            intervals=Intervals.of(pca.quality),
        ),
    )


def _rival(path: Path, array: EarArray, ours: ImageQuality, config: InferenceConfig) -> Rival:
    model = load_model(path, config)
    theirs = _measure(model, array, np.arange(len(array)), config.batch_size)
    return Rival(
        checkpoint=model.checkpoint.path,
        metrics=theirs.metrics(model.network.latent_dim),
        intervals=Intervals.of(theirs.quality),
        over_it=Margins.between(ours, theirs.quality),
    )


def _files(
    out: Path | None,
    model: LoadedModel,
    array: EarArray,
    seen: Appraisal,
    batch_size: int,
) -> Files | None:
    if out is None:
        return None
    pca = seen.beside.pca if seen.beside else None
    kld = seen.losses[:, 2]
    return evaluation_files.write(out, model, array, seen.quality, kld, pca, batch_size)


def _means(quality: ImageQuality) -> tuple[float, float, float | None]:
    """PSNR, SSIM and MS-SSIM."""
    ms_ssim = None if quality.ms_ssim is None else float(quality.ms_ssim.mean())
    return float(quality.psnr.mean()), float(quality.ssim.mean()), ms_ssim
