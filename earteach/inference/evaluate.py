"""How well a trained network reconstructs ears, beside the yardsticks.

>>> evaluate(Path("checkpoints"), Path("data/preprocessed/val_teacher.npy")).metrics.psnr
28.3
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from earteach.config import InferenceConfig, Layout
from earteach.data.arrays import EarArray
from earteach.data.batches import image_batches
from earteach.data.randomness import validation_noise
from earteach.errors import EarTeachError
from earteach.inference.running import RunningModel, open_model
from earteach.metrics.latent import LatentStatistics
from earteach.metrics.quality import psnr, ssim
from earteach.model.annealing import final_kld_weight
from earteach.model.loss import image_losses, total_loss
from earteach.model.vae import reparameterise

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metrics:
    """Means over the images. PSNR (dB) and SSIM decode mu; loss and recon_loss decode a noisy code.

    `kld` is in nats, summed over the dimensions.
    """

    loss: float
    recon_loss: float
    kld: float
    ssim: float
    psnr: float
    active_units: int
    latent_dim: int


@dataclass(frozen=True)
class MeanImageScore:
    """The mean training image as everyone's reconstruction."""

    psnr: float
    ssim: float


@dataclass(frozen=True)
class PCAScore:
    """PCA fitted on `images` training images and their mirrors."""

    psnr: float
    ssim: float
    components: int
    images: int


@dataclass(frozen=True)
class Baselines:
    """The yardsticks, on the same images."""

    mean_image: MeanImageScore
    pca: PCAScore


@dataclass(frozen=True)
class Evaluation:
    """What `earteach eval` shows."""

    checkpoint: Path
    data: Path
    images: int
    metrics: Metrics
    baselines: Baselines | None
    seconds: float


def evaluate(
    path: str | Path,
    data: str | Path | None = None,
    *,
    layout: Layout | None = None,
    baselines: bool = True,
    config: InferenceConfig | None = None,
) -> Evaluation:
    """Measure a checkpoint on an array; left out, on the validation array that it names.

    On that array the values are those that training logged. `baselines` are fitted on the training
    array that the checkpoint names, and None where it is gone.

    Raises `EarTeachError` for a checkpoint or an array that cannot be read.
    """
    began = time.monotonic()
    config = config or InferenceConfig()
    model = open_model(Path(path), config)
    named = model.checkpoint.config.data
    array = _open(Path(data) if data is not None else named.val_data, layout or named.layout)
    size, channels = model.network.image_size, model.network.in_channels
    array.note_conversions(size, channels)
    metrics = _measure(model, array, config.batch_size)
    return Evaluation(
        checkpoint=model.checkpoint.path,
        data=array.path,
        images=len(array),
        metrics=metrics,
        baselines=_baselines(model, array, config.batch_size) if baselines else None,
        seconds=time.monotonic() - began,
    )


def _open(path: Path, layout: Layout | None) -> EarArray:
    try:
        return EarArray.open(path, layout)
    except EarTeachError as error:
        if path.exists():
            raise
        raise EarTeachError(f"{path}: no such file; name an array with --data") from error


def _measure(model: RunningModel, array: EarArray, batch_size: int) -> Metrics:
    network, config = model.network, model.checkpoint.config
    sums = torch.zeros(5, dtype=torch.float64)
    statistics = LatentStatistics(network.latent_dim)
    with model.running():
        for batch in image_batches(
            array, size=network.image_size, channels=network.in_channels, batch_size=batch_size
        ):
            images = batch.images.to(model.device)
            noise = validation_noise(config.run.seed, batch.indices, network.latent_dim)
            mu, logvar = network.encode(images)
            noisy = network.decode(reparameterise(mu, logvar, noise.to(model.device)))
            recon, kld = image_losses(noisy, images, mu, logvar)
            loss = total_loss(
                recon, kld, final_kld_weight(config.kld), config.kld.kld_reduction, mu.shape[1]
            )
            decoded = network.decode(mu)
            with torch.autocast(model.device.type, enabled=False):
                rows = [loss, recon, kld, ssim(decoded, images), psnr(decoded, images)]
            sums += torch.stack(rows).double().sum(dim=1).cpu()
            statistics.update(mu)
    loss_mean, recon_mean, kld_mean, ssim_mean, psnr_mean = (sums / len(array)).tolist()
    return Metrics(
        loss=loss_mean,
        recon_loss=recon_mean,
        kld=kld_mean,
        ssim=ssim_mean,
        psnr=psnr_mean,
        active_units=statistics.active_units(),
        latent_dim=network.latent_dim,
    )


def _baselines(model: RunningModel, array: EarArray, batch_size: int) -> Baselines | None:
    # scikit-learn takes a second to import, which `--no-baselines` need not wait for.
    from earteach.metrics.eigenears import eigenears, measure

    named = model.checkpoint.config.data
    size, channels = model.network.image_size, model.network.in_channels
    try:
        train = EarArray.open(named.train_data, named.layout)
        fitted = eigenears(train, components=model.network.latent_dim, size=size, channels=channels)
    except EarTeachError as error:
        _log.info("no baselines: %s", error)
        return None
    batches = image_batches(array, size=size, channels=channels, batch_size=batch_size)
    scores = measure(fitted, (batch.images for batch in batches))
    return Baselines(
        MeanImageScore(*scores.mean_image),
        PCAScore(*scores.pca, components=fitted.count, images=fitted.images),
    )
