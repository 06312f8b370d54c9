"""The mixture of a network's codes of its training images: fitted once, kept beside the checkpoint."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from earteach.data.arrays import EarArray, sampled_rows
from earteach.data.image_batches import image_batches
from earteach.inference.loaded_model import LoadedModel
from earteach.metrics.gaussian_mixture import CodeMixture, fit_mixture
from earteach.metrics.npz_cache import load_npz, store_npz
from earteach.model.pca_path import mirrored
from earteach.model.vae import EarVAE

_VERSION = 1
_MOST_IMAGES = 4096
# Fixed, as is the precision, so that what is kept does not depend on who asks first.
_BATCH = 32
_PICTURE_SIDE = 16
_log = logging.getLogger(__name__)


def training_images(model: LoadedModel) -> EarArray:
    """The training array that the checkpoint names; a note says where it has changed since.

    Raises `EarTeachError` where it is gone.
    """
    named = model.checkpoint.config.data
    array = EarArray.open(named.train_data, named.layout)
    trained_on = model.checkpoint.about.get("data", {}).get("train")
    if trained_on is not None and trained_on != array.fingerprint():
        _log.info("%s: has changed since this network was trained on it", array.path)
    return array


def kept_mixture(model: LoadedModel) -> CodeMixture | None:
    """The mixture beside the checkpoint, or None where there is none of these very weights."""
    found = load_npz(_place(model), _about(model))
    return None if found is None else CodeMixture(**found)


def fitted_mixture(model: LoadedModel, array: EarArray) -> CodeMixture:
    """Fit on mu of at most 4,096 evenly spread images of the array, and keep it for the next time."""
    rows = sampled_rows(len(array), _MOST_IMAGES)
    _log.info("fitting a mixture to the codes of %d images of %s", len(rows), array.path)
    codes, pictures = _read(model, array, rows)
    mixture = fit_mixture(codes, pictures, sided=model.network.side_dimension is not None)
    store_npz(_place(model), _about(model), **vars(mixture))
    return mixture


def _read(model: LoadedModel, array: EarArray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes, and the images at 16 pixels a side, turned to the network's side where it has one."""
    network = model.network
    codes, pictures = [], []
    with torch.inference_mode():
        for batch in image_batches(
            array,
            size=network.image_size,
            channels=network.in_channels,
            batch_size=_BATCH,
            indices=rows.tolist(),
        ):
            mu = network.encode(batch.images.to(model.device))[0].cpu()
            images = batch.images
            if network.side_dimension is not None:
                images = mirrored(images, mu[:, network.side_dimension] < 0)
            codes.append(mu.numpy())
            pictures.append(
                functional.adaptive_avg_pool2d(images, _PICTURE_SIDE).flatten(1).numpy()
            )
    return np.concatenate(codes), np.concatenate(pictures)


def _place(model: LoadedModel) -> Path:
    path = model.checkpoint.path
    return path.with_name(f"{path.stem}.mixture.npz")


def _about(model: LoadedModel) -> dict[str, object]:
    return {"weights": _weights_hash(model.network), "images": _MOST_IMAGES, "version": _VERSION}


def _weights_hash(network: EarVAE) -> str:
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()
