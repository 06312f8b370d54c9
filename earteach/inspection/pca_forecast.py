"""What a run can come to on these arrays, foretold by PCA of the training images before it begins."""

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
from earteach.metrics.image_quality import psnr

# The mean PSNR of so many images is known to a tenth of a decibel.
_MEASURED, _AT_ONCE = 2**12, 64
_log = logging.getLogger(__name__)


def forecast(
    train: EarArray, val: EarArray | None, config: TrainConfig
) -> tuple[Forecast | None, list[Problem]]:
    """PCA's PSNR with as many components as `config` has latent numbers, and how many stay alive.

    PCA is that of `eval`, found or kept beside the training array. None, with a note, where an array
    holds values that training would refuse.
    """
    model = config.model
    size, channels = model.image_size, model.in_channels
    try:
        fitted = eigenears(train, components=model.latent_dim, size=size, channels=channels)
        measured = train if val is None else val
        quality = _psnr(fitted, measured, size, channels)
    except EarTeachError:
        _log.info("no forecast: training would refuse values that are found here")
        return None, []
    run = RunStatistics(config=config, eigenvalues=tuple(fitted.variances.tolist()))
    made = Forecast(
        image_size=size,
        latent_dim=model.latent_dim,
        components=fitted.count,
        psnr=float(quality.mean()),
        psnr_of="train" if val is None else "val",
        psnr_images=len(quality),
        elbo_beta=run.beta,
        alive_units=run.kept,
        eigenvalues=run.eigenvalues,
    )
    advice = predict_collapse(run)
    if advice is None:
        return made, []
    return made, [Problem("warning", "kld-weight", f"{train.path}: {advice.message}")]


def _psnr(fitted: Eigenears, array: EarArray, size: int, channels: int) -> np.ndarray:
    """PCA's PSNR of each image, or of many evenly spread ones."""
    rows = sampled_rows(len(array), _MEASURED).tolist()
    batches = image_batches(array, size=size, channels=channels, batch_size=_AT_ONCE, indices=rows)
    values = [psnr(fitted.reconstruct(batch.images), batch.images).numpy() for batch in batches]
    return np.concatenate(values).astype(np.float64)
