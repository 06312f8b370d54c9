"""What a simple reader learns from features: ridge regression to landmarks, and who is who.

Features are `(N, d)`, `groups` names each image's person, and nobody is in training and test at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.preprocessing import KernelCenterer, StandardScaler

from earteach.metrics.bootstrap import GroupResamples, Interval

# Of the kernel's mean diagonal, which is 1 for standardised features.
PENALTIES = 10.0 ** np.arange(-5, 4.5, 0.5)
_INNER_FOLDS = 4
_COSINES = 2000
# Rows of the matrix of all cosines at a time.
_ROWS = 256


@dataclass(frozen=True)
class Reading:
    """A value with its 95 % bootstrap interval over groups, None where there are too few groups."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Identification:
    """Rank-1: how often the nearest other image is of the same person. EER: see `identify`."""

    rank1: Reading
    eer: Reading
    images: int


def person_folds(groups: np.ndarray, folds: int, seed: int) -> list[np.ndarray]:
    """The rows `(n,)` of each fold's test images: whole groups, in random order, dealt out in turn."""
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    return [np.flatnonzero(np.isin(groups, names[place::folds])) for place in range(folds)]


def landmark_errors(
    features: np.ndarray,
    landmarks: np.ndarray,
    groups: np.ndarray,
    *,
    folds: int = 5,
    seed: int = 0,
) -> np.ndarray:
    """Each image's landmark error, `(N,)`, read by ridge regression from images of other people.

    `landmarks` are `(N, K, 2)`. The error is the mean distance of the points, divided by the diagonal
    of the box around the true ones. Features are standardised and the penalty chosen on the training
    images of each fold, by folds of people within them.
    """
    errors = np.empty(len(features))
    for test in person_folds(groups, folds, seed):
        train = np.setdiff1d(np.arange(len(features)), test)
        scaled = StandardScaler().fit(features[train]).transform(features)
        kernel = (scaled @ scaled.T).astype(np.float64) / scaled.shape[1]
        sums = np.zeros(len(PENALTIES))
        for rows in person_folds(groups[train], _INNER_FOLDS, seed):
            held = train[rows]
            readings = _ridge(kernel, landmarks, np.setdiff1d(train, held), held, PENALTIES)
            sums += [point_errors(read, landmarks[held]).sum() for read in readings]
        (read,) = _ridge(kernel, landmarks, train, test, PENALTIES[[sums.argmin()]])
        errors[test] = point_errors(read, landmarks[test])
    return errors


def point_errors(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Mean distance of points `(n, K, 2)` over the diagonal of the true points' box, `(n,)`."""
    distances = np.linalg.norm(found - true, axis=2).mean(axis=1)
    return distances / np.linalg.norm(np.ptp(true, axis=1), axis=1)


def _ridge(
    kernel: np.ndarray,
    targets: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    penalties: np.ndarray,
) -> Iterator[np.ndarray]:
    """What ridge regression with an intercept reads on `test`, for each penalty.

    In its dual form (Saunders et al. 1998): all penalties follow from one eigendecomposition.
    """
    centre = KernelCenterer().fit(kernel[np.ix_(train, train)])
    values, vectors = np.linalg.eigh(centre.transform(kernel[np.ix_(train, train)]))
    across = centre.transform(kernel[np.ix_(test, train)]) @ vectors
    flat = targets[train].reshape(len(train), -1)
    mean = flat.mean(axis=0)
    turned = vectors.T @ (flat - mean)
    for penalty in penalties:
        weights = turned / (values.clip(min=0) + penalty)[:, None]
        yield (mean + across @ weights).reshape(-1, *targets.shape[1:])


def mean_reading(values: np.ndarray, resamples: GroupResamples) -> Reading:
    """The mean of values `(N,)`, those that are NaN left out."""
    return Reading(float(np.nanmean(values)), resamples.interval(resamples.means(values)))


def reduction(values: np.ndarray, beside: np.ndarray, resamples: GroupResamples) -> Reading:
    """By which share the mean of `values` is below that of `beside`, paired by image."""
    shares = 1 - resamples.means(values) / resamples.means(beside)
    return Reading(1 - float(values.mean()) / float(beside.mean()), resamples.interval(shares))


def identify(
    features: np.ndarray, groups: np.ndarray, *, resamples: GroupResamples
) -> Identification:
    """Who is who by the cosine of standardised features.

    EER is the share of errors at the cosine where as many pairs of one person are taken for two as
    pairs of two persons for one; cosines are told apart to a thousandth. Rank-1 is over the images
    whose person has another one. The intervals resample the persons looked for, not those they are
    found among.
    """
    unit = StandardScaler().fit_transform(features).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True).clip(min=1e-12)
    names, people = np.unique(groups, return_inverse=True)
    hits = np.full(len(unit), np.nan)
    # Counts of cosines, by person: of pairs of two persons, and of one.
    counts = np.zeros((2, len(names), _COSINES), np.float32)
    for start in range(0, len(unit), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(unit)))
        cosines = unit[rows] @ unit.T
        same = people[rows][:, None] == people
        other = rows[:, None] != np.arange(len(unit))
        nearest = np.where(other, cosines, -np.inf).argmax(axis=1)
        hits[rows] = np.where((same & other).any(axis=1), people[nearest] == people[rows], np.nan)
        bins = ((cosines + 1) * (_COSINES / 2)).astype(int).clip(0, _COSINES - 1)
        for pairs, kind in ((~same, 0), (same & other, 1)):
            row, _ = np.nonzero(pairs)
            np.add.at(counts[kind], (people[rows][row], bins[pairs]), 1)
    eer = float(_equal_error_rates(counts.sum(axis=1, keepdims=True))[0])
    spread = _equal_error_rates(resamples.weighted(counts))
    return Identification(
        rank1=mean_reading(hits, resamples),
        eer=Reading(eer, resamples.interval(spread)),
        images=int(np.isfinite(hits).sum()),
    )


def _equal_error_rates(counts: np.ndarray) -> np.ndarray:
    """Of histograms of cosines `(2, R, bins)`, of two persons and of one, the rates `(R,)`."""
    with np.errstate(invalid="ignore"):  # a resample of people of whom there is one image each
        two, one = counts.astype(np.float64) / counts.sum(axis=2, keepdims=True, dtype=np.float64)
    accepted = 1 - np.cumsum(two, axis=1)
    refused = np.cumsum(one, axis=1)
    place = np.abs(accepted - refused).argmin(axis=1)[:, None]
    return np.take_along_axis((accepted + refused) / 2, place, axis=1)[:, 0]
