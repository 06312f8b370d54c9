"""How well a network reconstructs ears: measure it, and measure the baselines.

Metrics of single images are in `metrics/eval_metrics.py`.

>>> evaluate(Path("checkpoints"), Path("data/preprocessed/val_teacher.npy")).metrics.psnr
28.3
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from earteach import checkpoint
from earteach.checkpoint import Checkpoint
from earteach.config import InferenceConfig, Layout
from earteach.data.arrays import EarArray, sampled_rows
from earteach.errors import EarTeachError
from earteach.inference import evaluation_files
from earteach.inference.baselines import (
    BaselineQuality,
    Baselines,
    BaselineScore,
    measure_baselines,
)
from earteach.inference.evaluation_files import Files
from earteach.inference.loaded_model import LoadedModel, load_model
from earteach.metrics.diagnostics import Advice, recorded_advice, recorded_history
from earteach.metrics.eval_metrics import (
    ImageQuality,
    Intervals,
    Margin,
    QualityMeans,
    QualityMeter,
    intervals,
    margins,
)
from earteach.metrics.latent import LatentStatistics
from earteach.model.annealing import final_kld_weight
from earteach.model.loss import VAEBatch, reported_loss, vae_terms
from earteach.model.vae import reparameterise
from earteach.randomness import validation_noise

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Metrics(QualityMeans):
    """Means over images. PSNR (dB) and SSIM decode mu; loss and recon_loss decode a noisy code.

    `kld` is in nats, summed over dimensions.
    """

    loss: float
    recon_loss: float
    kld: float
    active_units: int
    latent_dim: int


Score = Metrics | BaselineScore


@dataclass(frozen=True)
class ComparedModel:
    """Another checkpoint on the same images; `over_it` is positive where this model is better."""

    checkpoint: Path
    metrics: Metrics
    intervals: Intervals
    over_it: dict[str, Margin]


@dataclass(frozen=True)
class Health:
    """What lies behind the means.

    `kld_per_dimension` is in nats; `share_kld` is the KLD's share of the loss. `train_recon_loss` is
    that of up to 64 training images without augmentation, as training measured it; None if unknown.
    """

    kld_per_dimension: tuple[float, ...]
    share_kld: float
    train_recon_loss: float | None


@dataclass(frozen=True)
class Evaluation:
    """The result of `earteach eval`; `advice` is what training's run diagnostics last gave."""

    checkpoint: Path
    data: Path
    images: int
    metrics: Metrics
    intervals: Intervals
    baselines: Baselines | None
    over_pca: dict[str, Margin] | None
    against: tuple[ComparedModel, ...]
    files: Files | None
    health: Health
    advice: tuple[Advice, ...]

    def scores(self) -> list[tuple[str, Score, Intervals]]:
        """Names, means and intervals of this model, other models, and the baselines."""
        rows: list[tuple[str, Score, Intervals]] = [
            ("this model", self.metrics, self.intervals),
            *((str(other.checkpoint), other.metrics, other.intervals) for other in self.against),
        ]
        if self.baselines is not None:
            pca, mean = self.baselines.pca, self.baselines.mean_image
            rows.append((f"PCA, {pca.components} components", pca, pca.intervals))
            rows.append(("mean training image", mean, mean.intervals))
        return rows


@dataclass(frozen=True)
class Measurement:
    """One pass of a network over rows of an array, with a value for each of `rows`."""

    rows: np.ndarray  # int64 (N,)
    losses: np.ndarray  # float64 (N, 3): loss, reconstruction loss, KLD in nats
    quality: ImageQuality
    codes: LatentStatistics
    latent_dim: int

    def metrics(self) -> Metrics:
        loss, recon, kld = self.losses.mean(axis=0).tolist()
        return Metrics(
            loss=loss,
            recon_loss=recon,
            kld=kld,
            active_units=self.codes.active_units(),
            latent_dim=self.latent_dim,
            **self.quality.means(),
        )


@dataclass(frozen=True)
class DetailedEvaluation:
    """An evaluation of one model, and the values of each image behind it."""

    summary: Evaluation
    measurement: Measurement
    baselines: BaselineQuality | None


def evaluate(
    path: str | Path,
    data: str | Path | None = None,
    *,
    layout: Layout | None = None,
    baselines: bool = True,
    against: Sequence[str | Path] = (),
    out: Path | None = None,
    config: InferenceConfig = InferenceConfig(),
) -> Evaluation:
    """Measure a checkpoint, or a folder's best, on an array.

    `data` defaults to the validation array that the checkpoint names; on it the values equal those
    that training logged. `baselines` are fitted on the training array that the checkpoint names, and
    None if it is gone. `against` names other checkpoints or folders to measure on the same images.
    `out` is a folder for pictures of the worst and best images and a table of each image's values.

    Raises `EarTeachError` if a checkpoint or the array cannot be read, if one of `against` takes
    images of another size or number of channels, and if `out` cannot be written.
    """
    model = load_model(Path(path), config)
    others = [_check_comparable(Path(other), model) for other in against]
    array = model.open_data(data, layout)
    if out is not None:
        evaluation_files.prepare_folder(out)
    return evaluate_model(
        model, array, config, baselines=baselines, against=others, out=out
    ).summary


def evaluate_model(
    model: LoadedModel,
    array: EarArray,
    config: InferenceConfig,
    *,
    baselines: bool = True,
    against: Sequence[Path] = (),
    out: Path | None = None,
    max_images: int | None = None,
) -> DetailedEvaluation:
    """Evaluate a loaded model on an array, or on up to `max_images` evenly spread images of it."""
    batch_size, trained = config.batch_size, model.checkpoint
    rows = sampled_rows(len(array), max_images or len(array))
    measured = _measure(model, array, rows, batch_size)
    beside = measure_baselines(model, array, rows, batch_size) if baselines else None
    files = None
    if out is not None:
        kld = measured.losses[:, 2]
        files = evaluation_files.write(out, model, array, measured.quality, kld, beside, batch_size)
    summary = Evaluation(
        checkpoint=trained.path,
        data=array.path,
        images=len(rows),
        metrics=measured.metrics(),
        intervals=intervals(measured.quality),
        baselines=beside.scores() if beside else None,
        over_pca=margins(measured.quality, beside.pca) if beside else None,
        against=tuple(_compare(other, array, measured, config) for other in against),
        files=files,
        health=_health(trained, measured),
        advice=recorded_advice(trained.state) or (),
    )
    return DetailedEvaluation(summary, measured, beside)


def _measure(model: LoadedModel, array: EarArray, rows: np.ndarray, batch_size: int) -> Measurement:
    network, config = model.network, model.checkpoint.config
    if model.is_as_in_training(array, "train"):
        _log.info(
            "%s was trained on the images of %s; it may do worse on others",
            model.checkpoint.path, array.path,
        )  # fmt: skip
    terms = vae_terms(config, final_kld_weight(config.kld))  # as in validation
    losses: list[list[float]] = []
    meter, codes = QualityMeter(), LatentStatistics(network.latent_dim)
    with model.running():
        for batch in model.batches(array, batch_size, rows):
            images = batch.images.to(model.device)
            mu, logvar = network.encode(images)
            noise = validation_noise(config.run.seed, batch.indices, mu.shape[1]).to(model.device)
            noisy = network.decode(reparameterise(mu, logvar, noise))
            batch_terms = VAEBatch(noisy, images, mu, logvar)
            values = {t.name: t.values_of(batch_terms) for t in terms if t.in_loss}
            loss = reported_loss(terms, values)
            losses += torch.stack([loss, values["recon"], values["kld"]], dim=1).tolist()
            codes.update(mu, logvar)
            meter.update(network.decode(mu), images)
    return Measurement(rows, np.array(losses), meter.compute(), codes, network.latent_dim)


def _health(trained: Checkpoint, measured: Measurement) -> Health:
    loss, _, kld = measured.losses.mean(axis=0).tolist()
    config, history = trained.config, recorded_history(trained.state)
    terms = vae_terms(config, final_kld_weight(config.kld))
    term = next(term for term in terms if term.name == "kld")
    return Health(
        kld_per_dimension=tuple(measured.codes.kld_per_dimension().tolist()),
        share_kld=term.weight * kld / term.divisor / loss if loss else 0.0,
        train_recon_loss=history[-1].clean_recon if history else None,
    )


def _check_comparable(path: Path, model: LoadedModel) -> Path:
    """The checkpoint at `path`, or the folder's best, if it takes the same images as `model`.

    It is loaded again when its turn comes, to hold one network at a time in memory.
    """
    try:
        other = checkpoint.find(path)
        other.model()  # raises before the long work if weights do not fit
    except EarTeachError as error:
        raise EarTeachError(f"--against {error}") from error
    theirs, ours = (c.config.model for c in (other, model.checkpoint))
    if (theirs.image_size, theirs.in_channels) != (ours.image_size, ours.in_channels):
        shape = "{0.image_size}×{0.image_size}×{0.in_channels}".format
        raise EarTeachError(
            f"--against {other.path}: takes {shape(theirs)} images, but {model.checkpoint.path} "
            f"takes {shape(ours)}; their PSNR and SSIM cannot be compared: evaluate it by itself"
        )
    return other.path


def _compare(
    path: Path, array: EarArray, ours: Measurement, config: InferenceConfig
) -> ComparedModel:
    theirs = _measure(load_model(path, config), array, ours.rows, config.batch_size)
    over_it = margins(ours.quality, theirs.quality)
    return ComparedModel(path, theirs.metrics(), intervals(theirs.quality), over_it)
