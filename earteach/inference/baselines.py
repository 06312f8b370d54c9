"""The yardsticks on the images that a network is measured on, computed once for each array."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from earteach.data.arrays import EarArray
from earteach.data.image_batches import image_batches
from earteach.errors import EarTeachError
from earteach.inference.loaded_model import LoadedModel
from earteach.metrics.image_quality import ImageQuality
from earteach.metrics.npz_cache import load_npz, store_npz

if TYPE_CHECKING:
    from earteach.metrics.eigenears import Eigenears

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PCAValues:
    """PCA, and the quality of its reconstruction of each image."""

    fitted: Eigenears
    quality: ImageQuality


@dataclass(frozen=True)
class Yardsticks:
    """The mean training image's quality as the reconstruction of each image, and PCA's."""

    mean_image: ImageQuality
    pca: PCAValues


def yardsticks(
    model: LoadedModel, array: EarArray, rows: np.ndarray, batch_size: int
) -> Yardsticks | None:
    """Fitted on the training array that the checkpoint names; None with a note where it is gone.

    The values of all rows are kept beside `array`, and found there until it or the training array
    changes.
    """
    size, channels = model.network.image_size, model.network.in_channels
    try:
        fitted = training_eigenears(model)
    except EarTeachError as error:
        _log.info("no baselines: %s", error)
        return None
    about = _about(array, fitted)
    kept = array.path.with_name(
        f"{array.path.stem}.yardsticks-{fitted.count}-{size}px-{channels}c.npz"
    )
    if (found := load_npz(kept, about)) is not None:
        mean_image, pca = (_restored(found, name, rows) for name in ("mean_image", "pca"))
        return Yardsticks(mean_image, PCAValues(fitted, pca))
    mean_image, pca = ImageQuality(), ImageQuality()
    for batch in image_batches(
        array, size=size, channels=channels, batch_size=batch_size, indices=rows.tolist()
    ):
        mean_image.update(fitted.mean_image(batch.images), batch.images)
        pca.update(fitted.reconstruct(batch.images), batch.images)
    if len(rows) == len(array):
        store_npz(kept, about, **_values(mean_image, "mean_image"), **_values(pca, "pca"))
    return Yardsticks(mean_image, PCAValues(fitted, pca))


def training_eigenears(model: LoadedModel) -> Eigenears:
    """PCA of the training array that the checkpoint names, of as many components as its code has.

    Raises `EarTeachError` where the array is gone or cannot be read.
    """
    # scikit-learn takes a second to import, which `--no-baselines` need not wait for.
    from earteach.metrics.eigenears import eigenears

    named, network = model.checkpoint.config.data, model.network
    return eigenears(
        EarArray.open(named.train_data, named.layout),
        components=network.latent_dim,
        size=network.image_size,
        channels=network.in_channels,
    )


def _about(array: EarArray, fitted: Eigenears) -> dict[str, Any]:
    """What the values depend on; each image counts here, of which a fingerprint takes a sample."""
    state = array.path.stat()
    digest = hashlib.sha256(fitted.mean.tobytes() + fitted.variances.tobytes())
    return {
        "fingerprint": array.fingerprint(),
        "layout": array.layout,
        "changed": state.st_mtime_ns,
        "bytes": state.st_size,
        "pca_sha256": digest.hexdigest(),
        "version": 1,
    }


def _values(quality: ImageQuality, name: str) -> dict[str, np.ndarray]:
    values = {"psnr": quality.psnr, "ssim": quality.ssim, "ms_ssim": quality.ms_ssim}
    return {f"{name}_{key}": value for key, value in values.items() if value is not None}


def _restored(found: dict[str, np.ndarray], name: str, rows: np.ndarray) -> ImageQuality:
    ms_ssim = found.get(f"{name}_ms_ssim")
    return ImageQuality.of(
        found[f"{name}_psnr"][rows],
        found[f"{name}_ssim"][rows],
        None if ms_ssim is None else ms_ssim[rows],
    )
