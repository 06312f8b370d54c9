"""Baselines of an evaluation: the mean training image, and PCA of the training images."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from earteach.data.arrays import EarArray
from earteach.errors import EarTeachError
from earteach.inference.loaded_model import LoadedModel
from earteach.metrics.eigenears import Eigenears, eigenears
from earteach.metrics.eval_metrics import (
    ImageQuality,
    Intervals,
    QualityMeans,
    QualityMeter,
    intervals,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BaselineScore(QualityMeans):
    """Means over the evaluated images; `components` of PCA, fitted to `images` and their mirrors."""

    intervals: Intervals
    components: int | None = None
    images: int | None = None


@dataclass(frozen=True)
class Baselines:
    """The mean training image as the reconstruction of every image, and PCA."""

    mean_image: BaselineScore
    pca: BaselineScore


@dataclass(frozen=True)
class BaselineQuality:
    """Each image's quality as the baselines reconstruct it, and the fitted PCA."""

    mean_image: ImageQuality
    pca: ImageQuality
    eigenears: Eigenears

    def scores(self) -> Baselines:
        def score(quality: ImageQuality, **of_pca: int) -> BaselineScore:
            return BaselineScore(**quality.means(), intervals=intervals(quality), **of_pca)

        fitted = self.eigenears
        pca = score(self.pca, components=fitted.count, images=fitted.images)
        return Baselines(score(self.mean_image), pca)


def measure_baselines(
    model: LoadedModel, array: EarArray, rows: np.ndarray, batch_size: int
) -> BaselineQuality | None:
    """Fit on the training array that the checkpoint names; None, with a note, if it is gone."""
    if (fitted := training_eigenears(model)) is None:
        return None
    mean_image, pca = QualityMeter(), QualityMeter()
    for batch in model.batches(array, batch_size, rows):
        mean_image.update(fitted.mean_image(batch.images), batch.images)
        pca.update(fitted.reconstruct(batch.images), batch.images)
    return BaselineQuality(mean_image.compute(), pca.compute(), fitted)


def training_eigenears(model: LoadedModel) -> Eigenears | None:
    """PCA of the training array that the checkpoint names, with up to `latent_dim` components.

    None, with a note, if the array is gone or cannot be read.
    """
    network = model.network
    size, channels = network.image_size, network.in_channels
    try:
        train = model.open_array("train")
        return eigenears(train, components=network.latent_dim, size=size, channels=channels)
    except EarTeachError as error:
        _log.info("no baselines: %s", error)
        return None
