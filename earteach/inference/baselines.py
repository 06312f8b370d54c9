"""Baselines of an evaluation: the mean training image, and PCA of the training images."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from earteach.data.arrays import EarArray
from earteach.data.image_batches import ImageBatch, image_batches
from earteach.errors import EarTeachError
from earteach.inference.loaded_model import LoadedModel
from earteach.metrics.eigenears import Eigenears, eigenears
from earteach.metrics.eval_metrics import (
    METRICS,
    ImageQuality,
    Intervals,
    QualityMeans,
    QualityMeter,
    intervals,
)
from earteach.metrics.npz_cache import load_npz, store_npz

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BaselineScore(QualityMeans):
    """Means over the evaluated images."""

    intervals: Intervals


@dataclass(frozen=True, kw_only=True)
class PCAScore(BaselineScore):
    """PCA fitted on `images` training images and their mirrors."""

    components: int
    images: int


@dataclass(frozen=True)
class Baselines:
    """The mean training image as the reconstruction of every image, and PCA."""

    mean_image: BaselineScore
    pca: PCAScore


@dataclass(frozen=True)
class BaselineQuality:
    """Each image's quality as the baselines reconstruct it, and the fitted PCA."""

    mean_image: ImageQuality
    pca: ImageQuality
    eigenears: Eigenears

    def scores(self) -> Baselines:
        def fields(quality: ImageQuality) -> dict[str, Any]:
            return {**quality.means(), "intervals": intervals(quality)}

        fitted = self.eigenears
        pca = PCAScore(components=fitted.count, images=fitted.images, **fields(self.pca))
        return Baselines(BaselineScore(**fields(self.mean_image)), pca)


def model_batches(
    model: LoadedModel, array: EarArray, rows: Sequence[int] | np.ndarray, batch_size: int
) -> Iterator[ImageBatch]:
    """The images of these rows as the model takes them."""
    size, channels, indices = model.network.image_size, model.network.in_channels, [*map(int, rows)]
    return image_batches(
        array, size=size, channels=channels, batch_size=batch_size, indices=indices
    )


def measure_baselines(
    model: LoadedModel, array: EarArray, rows: np.ndarray, batch_size: int
) -> BaselineQuality | None:
    """Fit on the training array that the checkpoint names; None, with a note, if it is gone.

    Values of whole arrays are cached beside `array` until it or the training array changes.
    """
    try:
        fitted = training_eigenears(model)
    except EarTeachError as error:
        _log.info("no baselines: %s", error)
        return None
    key, size = _cache_key(array, fitted), model.network.image_size
    cache = array.cache(f"yardsticks-{fitted.count}-{size}px-{model.network.in_channels}c")
    if (cached := load_npz(cache, key)) is not None:
        mean_image, pca = (_from_cache(cached, name, rows) for name in ("mean_image", "pca"))
        return BaselineQuality(mean_image, pca, fitted)
    meters = {"mean_image": QualityMeter(), "pca": QualityMeter()}
    for batch in model_batches(model, array, rows, batch_size):
        meters["mean_image"].update(fitted.mean_image(batch.images), batch.images)
        meters["pca"].update(fitted.reconstruct(batch.images), batch.images)
    quality = {name: meter.compute() for name, meter in meters.items()}
    if len(rows) == len(array):
        entries = {
            f"{name}_{metric}": values
            for name, each in quality.items()
            for metric, values in each.values.items()
        }
        store_npz(cache, key, **entries)
    return BaselineQuality(**quality, eigenears=fitted)


def training_eigenears(model: LoadedModel) -> Eigenears:
    """PCA of the training array that the checkpoint names, with up to `latent_dim` components.

    Raises `EarTeachError` if the array is gone or cannot be read.
    """
    train, network = model.open_array("train"), model.network
    size, channels = network.image_size, network.in_channels
    return eigenears(train, components=network.latent_dim, size=size, channels=channels)


def _cache_key(array: EarArray, fitted: Eigenears) -> dict[str, Any]:
    """What the values depend on: every image counts, and a fingerprint only samples them."""
    stats = [file.stat() for file in array.files]
    digest = hashlib.sha256(fitted.mean.tobytes() + fitted.variances.tobytes())
    return {
        "fingerprint": array.fingerprint(),
        "layout": array.layout,
        "changed": max(stat.st_mtime_ns for stat in stats),
        "bytes": sum(stat.st_size for stat in stats),
        "pca_sha256": digest.hexdigest(),
        "metrics": sorted(METRICS),
        "version": 1,
    }


def _from_cache(cached: dict[str, np.ndarray], name: str, rows: np.ndarray) -> ImageQuality:
    keys = {metric: f"{name}_{metric}" for metric in METRICS}
    return ImageQuality({m: cached[key][rows] for m, key in keys.items() if key in cached})
