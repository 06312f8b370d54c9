"""What a training run can reach on these arrays, predicted by PCA of the training images."""

from __future__ import annotations

import logging

import numpy as np

from earteach.config import TrainConfig
from earteach.data.arrays import EarArray, sampled_rows
from earteach.data.image_batches import image_batches
from earteach.errors import EarTeachError
from earteach.inspection.inspection_report import Forecast, Problem
from earteach.metrics.diagnostics import RunStatistics, predict_collapse
from earteach.metrics.eigenears import Eigenears, eigenears
from earteach.metrics.eval_metrics import psnr

# The mean PSNR of this many images is accurate to a tenth of a decibel.
_MAX_IMAGES, _BATCH_SIZE = 2**12, 64
_log = logging.getLogger(__name__)


def forecast(
    train: EarArray, val: EarArray | None, config: TrainConfig
) -> tuple[Forecast | None, list[Problem]]:
    """PCA's PSNR with as many components as latent dimensions, and how many dimensions stay active.

    Uses and stores the same PCA as `eval`. None, with a note, if training would reject the arrays.
    """
    model = config.model
    size, channels = model.image_size, model.in_channels
    try:
        pca = eigenears(train, components=model.latent_dim, size=size, channels=channels)
        quality = _psnr(pca, train if val is None else val, size, channels)
    except EarTeachError:
        _log.info("no forecast: training would reject some of these values")
        return None, []
    run = RunStatistics(config=config, eigenvalues=tuple(pca.variances.tolist()))
    prediction = Forecast(
        image_size=size,
        latent_dim=model.latent_dim,
        components=pca.count,
        psnr=float(quality.mean()),
        psnr_of="train" if val is None else "val",
        psnr_images=len(quality),
        elbo_beta=run.beta,
        alive_units=run.kept,
        eigenvalues=run.eigenvalues,
    )
    advice = predict_collapse(run)
    if advice is None:
        return prediction, []
    return prediction, [Problem("warning", "kld-weight", f"{train.path}: {advice.message}")]


def _psnr(pca: Eigenears, array: EarArray, size: int, channels: int) -> np.ndarray:
    """PCA's PSNR of up to 4,096 evenly spread images, float64 `(N,)`."""
    rows = sampled_rows(len(array), _MAX_IMAGES).tolist()
    batches = image_batches(
        array, size=size, channels=channels, batch_size=_BATCH_SIZE, indices=rows
    )
    values = [psnr(pca.reconstruct(batch.images), batch.images).numpy() for batch in batches]
    return np.concatenate(values).astype(np.float64)
