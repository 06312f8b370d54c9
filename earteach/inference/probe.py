"""How much a simple reader learns from what a network gives: landmarks, and who is who.

>>> probe(Path("checkpoints"), Path("val_teacher.npy"), landmarks=Path("val_landmarks.npy")).results
(ProbeResult(probe="landmarks", features="codes", metric="error", value=0.037, …), …)
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from earteach.config import InferenceConfig, Layout
from earteach.data.arrays import EarArray
from earteach.data.image_batches import image_batches
from earteach.errors import EarTeachError
from earteach.inference.baselines import training_eigenears
from earteach.inference.evaluate import open_array
from earteach.inference.loaded_model import LoadedModel, load_model
from earteach.inference.probe_labels import Labels, known, read_labels
from earteach.metrics import linear_probes as probes
from earteach.metrics.bootstrap import GroupResamples, Interval
from earteach.metrics.eigenears import Eigenears
from earteach.model.vae import EarVAE
from earteach.randomness import Purpose, derive

FOLDS = 5
_PIXELS = 16
# The network's own features, which come with its word for the side.
_OWN = ("codes", "pooled")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProbeResult:
    """One probe of one kind of features, over `images` images.

    `probe` is "landmarks" or "identities"; `metric` is "error" (a share of the diagonal of the ear's
    box), "rank1" or "eer"; `features` are "codes", "pooled", "pca", "pixels", "random_codes" or
    "random_pooled", `length` numbers for an image. `interval` is the 95 % bootstrap interval over
    groups. `below_pca` is the share by which an error is below PCA's, paired by image; None for others.
    """

    probe: str
    features: str
    length: int
    metric: str
    value: float
    interval: Interval | None
    images: int
    below_pca: float | None = None
    below_pca_interval: Interval | None = None


@dataclass(frozen=True)
class Probed:
    """What `earteach probe` shows; `groups` are the people."""

    checkpoint: Path
    data: Path
    groups: int
    folds: int
    results: tuple[ProbeResult, ...]


def probe(
    path: str | Path,
    data: str | Path | None = None,
    *,
    landmarks: str | Path | None = None,
    identities: bool = False,
    groups: str | None = None,
    seed: int = 0,
    layout: Layout | None = None,
    config: InferenceConfig | None = None,
) -> Probed:
    """Probe a checkpoint's codes and pooled features on an array, beside simpler features.

    `landmarks` is a `.npy` `(N, K, 2)` in fractions of the images, or a `.csv` as `prepare` takes it;
    left out, the file that `prepare` wrote beside the array. `groups` says who is who: a `.csv` with a
    column `group`, or a regular expression on file names; left out, the manifest beside the array.

    Raises `EarTeachError` where there is nothing to probe, or too few people to keep apart.
    """
    config = config or InferenceConfig()
    model = load_model(Path(path), config)
    array = open_array(model, data, layout)
    named = None if landmarks is None else Path(landmarks)
    labels = read_labels(array, named, groups, identities=identities)
    features = _features(model, array, config.batch_size, seed)
    results = [*_landmarks(features, labels, model.network.side_dimension, seed)]
    if identities:
        results += _identities(features, labels)
    return Probed(model.checkpoint.path, array.path, len(set(labels.groups)), FOLDS, tuple(results))


def _landmarks(
    features: Mapping[str, np.ndarray], labels: Labels, side: int | None, seed: int
) -> Iterator[ProbeResult]:
    if labels.landmarks is None:
        return
    read = _with_side(features, side)
    rows = known(labels.landmarks)
    people, points = labels.groups[rows], labels.landmarks[rows]
    resamples = GroupResamples(people)
    errors = {
        name: probes.landmark_errors(values[rows], points, people, folds=FOLDS, seed=seed)
        for name, values in read.items()
    }
    for name, found in errors.items():
        below = None
        if name != "pca" and "pca" in errors:
            below = probes.reduction(found, errors["pca"], resamples)
        reading = probes.mean_reading(found, resamples)
        yield ProbeResult(
            probe="landmarks", features=name, length=features[name].shape[1], metric="error",
            value=reading.value, interval=reading.interval, images=len(found),
            below_pca=below.value if below else None,
            below_pca_interval=below.interval if below else None,
        )  # fmt: skip


def _with_side(features: Mapping[str, np.ndarray], side: int | None) -> Mapping[str, np.ndarray]:
    """What is read of a network that says which side an ear looks to: its features, and these again
    times that side, so that what is read is linear on each side."""
    if side is None:
        return features
    sides = features["codes"][:, [side]]
    own = {name: np.concatenate([features[name], features[name] * sides], 1) for name in _OWN}
    return {**features, **own}


def _identities(features: Mapping[str, np.ndarray], labels: Labels) -> Iterator[ProbeResult]:
    resamples = GroupResamples(labels.groups)
    for name, values in features.items():
        found = probes.identify(values, labels.groups, resamples=resamples)
        for metric, reading in (("rank1", found.rank1), ("eer", found.eer)):
            yield ProbeResult(
                probe="identities", features=name, length=values.shape[1], metric=metric,
                value=reading.value, interval=reading.interval, images=found.images,
            )  # fmt: skip


def _features(
    model: LoadedModel, array: EarArray, batch_size: int, seed: int
) -> dict[str, np.ndarray]:
    """Each kind of features of all images, float32 `(N, …)`."""
    network, random = model.network, _random_network(model, seed)
    pca = _eigenears(model)
    rows: dict[str, list[np.ndarray]] = {}
    for batch in image_batches(
        array, size=network.image_size, channels=network.in_channels, batch_size=batch_size
    ):
        with model.running():
            found = dict(_of_batch(network, random, pca, batch.images, model.device))
        for name, values in found.items():
            rows.setdefault(name, []).append(values.float().cpu().numpy())
    return {name: np.concatenate(values) for name, values in rows.items()}


def _of_batch(
    network: EarVAE,
    random: EarVAE,
    pca: Eigenears | None,
    images: torch.Tensor,
    device: torch.device,
) -> Iterator[tuple[str, torch.Tensor]]:
    on_device = images.to(device)
    mu, _, features = network.embed(on_device)
    yield from (("codes", mu), ("pooled", features))
    if pca is not None:
        yield "pca", pca.codes(images)
    yield "pixels", functional.adaptive_avg_pool2d(images, _PIXELS).flatten(1)
    mu, _, features = random.embed(on_device)
    yield from (("random_codes", mu), ("random_pooled", features))


def _random_network(model: LoadedModel, seed: int) -> EarVAE:
    """The same architecture before training, without a beginning from PCA."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, Purpose.WEIGHTS))
        made = EarVAE(**{**model.checkpoint.config.model.to_dict(), "pca_init": False})
    return made.eval().to(model.device)


def _eigenears(model: LoadedModel) -> Eigenears | None:
    try:
        return training_eigenears(model)
    except EarTeachError as error:
        _log.info("no PCA beside it: %s", error)
        return None
