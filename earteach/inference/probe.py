"""How well linear probes predict landmarks, and recognise people, from a network's features.

>>> probe(Path("checkpoints"), Path("val_teacher.npy"), landmarks=Path("val_landmarks.npy")).results
(ProbeResult(probe="landmarks", features="codes", metric="error", value=0.037, …), …)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.nn import functional

from earteach.config import InferenceConfig, Layout
from earteach.data.arrays import EarArray
from earteach.inference.baselines import training_eigenears
from earteach.inference.loaded_model import LoadedModel, load_model
from earteach.inference.probe_labels import Labels, labelled_rows, read_labels
from earteach.metrics import linear_probes as probes
from earteach.metrics.bootstrap import GroupResamples, Interval

FOLDS = 5
_PIXELS = 16


@dataclass(frozen=True)
class ProbeResult:
    """One probe on one kind of features, over `images` images.

    `probe` is "landmarks" or "identities"; `metric` is "error" (a fraction of the diagonal of the
    ear's box), "rank1" or "eer"; `features` are "codes", "pooled", "pca", "pixels", "random_codes" or
    "random_pooled", with `length` values per image. `interval` is the 95 % bootstrap interval over
    groups. `below_pca` is the fraction by which an error is below PCA's, paired by image, else None.
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
    """What `earteach probe` reports; `groups` are the people."""

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
    config: InferenceConfig = InferenceConfig(),
) -> Probed:
    """Probe a checkpoint's codes and pooled features on an array, beside simpler features.

    `landmarks` is a `.npy` `(N, K, 2)` in fractions of the images, or a `.csv` as `prepare` takes it;
    by default the file that `prepare` wrote beside the array. `groups` gives each image's person: a
    `.csv` with the columns `row` and `group`, or a regular expression for file names; by default the
    manifest.

    Raises `EarTeachError` where there is nothing to probe, or too few people for the folds.
    """
    model = load_model(path, config)
    array = model.open_data(data, layout)
    labels = read_labels(array, landmarks, groups, identities=identities)
    features = _features(model, array, config.batch_size, seed)
    results = [*_probe_landmarks(features, labels, model.network.side_dimension, seed)]
    if identities:
        results += _probe_identities(features, labels.groups)
    return Probed(model.checkpoint.path, array.path, len(set(labels.groups)), FOLDS, tuple(results))


def _probe_landmarks(
    features: Mapping[str, np.ndarray], labels: Labels, side_dimension: int | None, seed: int
) -> Iterator[ProbeResult]:
    if labels.landmarks is None:
        return
    rows = labelled_rows(labels.landmarks)
    people, points = labels.groups[rows], labels.landmarks[rows]
    resamples = GroupResamples(people)
    errors = {
        name: probes.landmark_errors(values[rows], points, people, folds=FOLDS, seed=seed)
        for name, values in _with_side(features, side_dimension).items()
    }
    for name, values in errors.items():
        mean = probes.mean_estimate(values, resamples)
        with_pca = name != "pca" and "pca" in errors
        below = probes.reduction(values, errors["pca"], resamples) if with_pca else ()
        length = features[name].shape[1]
        yield ProbeResult("landmarks", name, length, "error", *mean, len(values), *below)


def _with_side(
    features: Mapping[str, np.ndarray], side_dimension: int | None
) -> Mapping[str, np.ndarray]:
    """Append to all features themselves times the code's side, 1 or −1: linear on each side."""
    if side_dimension is None:
        return features
    side = features["codes"][:, [side_dimension]]
    return {name: np.hstack([values, values * side]) for name, values in features.items()}


def _probe_identities(
    features: Mapping[str, np.ndarray], people: np.ndarray
) -> Iterator[ProbeResult]:
    resamples = GroupResamples(people)
    for name, values in features.items():
        result = probes.identify(values, people, resamples=resamples)
        for metric, estimate in (("rank1", result.rank1), ("eer", result.eer)):
            yield ProbeResult("identities", name, values.shape[1], metric, *estimate, result.images)


def _features(
    model: LoadedModel, array: EarArray, batch_size: int, seed: int
) -> dict[str, np.ndarray]:
    """Each kind of features of all images, float32 `(N, …)`."""
    network, pca = model.network, training_eigenears(model)
    random_network = model.untrained(seed, pca_init=False)
    batches = defaultdict[str, list[np.ndarray]](list)
    for batch in model.batches(array, batch_size):
        images = batch.images
        with model.running():
            codes, _, pooled = network.embed(images.to(model.device))
            random_codes, _, random_pooled = random_network.embed(images.to(model.device))
            features = {
                "codes": codes,
                "pooled": pooled,
                **({"pca": pca.codes(images)} if pca else {}),
                "pixels": functional.adaptive_avg_pool2d(images, _PIXELS).flatten(1),
                "random_codes": random_codes,
                "random_pooled": random_pooled,
            }
        for name, values in features.items():
            batches[name].append(values.float().cpu().numpy())
    return {name: np.concatenate(values) for name, values in batches.items()}
