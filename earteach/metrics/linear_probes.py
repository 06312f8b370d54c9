"""Linear probes: ridge regression to landmarks, and recognition of people by cosine.

Features are `(N, d)`. `groups` `(N,)` names each image's person; a person's images are never split
between training and test.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sklearn.preprocessing import KernelCenterer, StandardScaler

from earteach.metrics.bootstrap import GroupResamples, Interval

# Relative to the kernel's mean diagonal, which is 1 for standardised features.
PENALTIES = 10.0 ** np.arange(-5, 4.5, 0.5)
_INNER_FOLDS = 4
_BINS = 2000
# Rows of the matrix of all cosines at a time.
_ROWS = 256


class Estimate(NamedTuple):
    """A value with its 95 % bootstrap interval over groups; None for a single group."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Identification:
    """See `identify`; `images` are those of people with several images."""

    rank1: Estimate
    eer: Estimate
    images: int


def person_folds(groups: np.ndarray, folds: int, seed: int) -> list[np.ndarray]:
    """The test rows of each fold: whole groups, shuffled and dealt out in turn."""
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    return [np.flatnonzero(np.isin(groups, names[fold::folds])) for fold in range(folds)]


def landmark_errors(
    features: np.ndarray,
    landmarks: np.ndarray,
    groups: np.ndarray,
    *,
    folds: int = 5,
    seed: int = 0,
) -> np.ndarray:
    """Each image's `point_errors`, `(N,)`, with ridge regression trained on other people's images.

    `landmarks` are `(N, K, 2)`. Each fold standardises the features and chooses the penalty on its
    training images, the latter by inner folds of people.
    """
    errors = np.empty(len(features))
    for test in person_folds(groups, folds, seed):
        train = np.setdiff1d(np.arange(len(features)), test)
        scaled = StandardScaler().fit(features[train]).transform(features)
        kernel = (scaled @ scaled.T).astype(np.float64) / scaled.shape[1]
        sums = np.zeros(len(PENALTIES))
        for rows in person_folds(groups[train], _INNER_FOLDS, seed):
            held_out = train[rows]
            rest = np.setdiff1d(train, held_out)
            predictions = _ridge(kernel, landmarks, rest, held_out, PENALTIES)
            sums += [point_errors(points, landmarks[held_out]).sum() for points in predictions]
        (prediction,) = _ridge(kernel, landmarks, train, test, PENALTIES[[sums.argmin()]])
        errors[test] = point_errors(prediction, landmarks[test])
    return errors


def point_errors(points: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Mean distance of points `(n, K, 2)` over the diagonal of the true points' box, `(n,)`."""
    distances = np.linalg.norm(points - true, axis=2).mean(axis=1)
    return distances / np.linalg.norm(np.ptp(true, axis=1), axis=1)


def _ridge(
    kernel: np.ndarray,
    targets: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    penalties: np.ndarray,
) -> Iterator[np.ndarray]:
    """Predictions of ridge regression with an intercept on `test`, for each penalty.

    In its dual form (Saunders et al. 1998), one eigendecomposition serves all penalties.
    """
    centre = KernelCenterer().fit(kernel[np.ix_(train, train)])
    values, vectors = np.linalg.eigh(centre.transform(kernel[np.ix_(train, train)]))
    across = centre.transform(kernel[np.ix_(test, train)]) @ vectors
    flat = targets[train].reshape(len(train), -1)
    mean = flat.mean(axis=0)
    rotated = vectors.T @ (flat - mean)
    for penalty in penalties:
        weights = rotated / (values.clip(min=0) + penalty)[:, None]
        yield (mean + across @ weights).reshape(-1, *targets.shape[1:])


def mean_estimate(values: np.ndarray, resamples: GroupResamples) -> Estimate:
    """The mean of values `(N,)`, ignoring NaN."""
    return Estimate(float(np.nanmean(values)), resamples.interval(resamples.means(values)))


def reduction(values: np.ndarray, baseline: np.ndarray, resamples: GroupResamples) -> Estimate:
    """The fraction by which the mean of `values` is below the baseline's, paired by image."""
    fractions = 1 - resamples.means(values) / resamples.means(baseline)
    fraction = 1 - float(values.mean()) / float(baseline.mean())
    return Estimate(fraction, resamples.interval(fractions))


def identify(
    features: np.ndarray, groups: np.ndarray, *, resamples: GroupResamples
) -> Identification:
    """Recognition of people by the cosine of standardised features.

    Rank-1: how often the nearest other image shows the same person, over images of people with
    several. EER: the error rate at the cosine, to a thousandth, where false matches are as frequent as
    false non-matches. Intervals resample the people searched for, not the gallery.
    """
    unit = StandardScaler().fit_transform(features).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True).clip(min=1e-12)
    names, people = np.unique(groups, return_inverse=True)
    hits = np.full(len(unit), np.nan)
    # Histograms of cosines by person: of pairs of two people, and of pairs of one.
    counts = np.zeros((2, len(names), _BINS), np.float32)
    for start in range(0, len(unit), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(unit)))
        cosines = unit[rows] @ unit.T
        same = people[rows][:, None] == people
        other = rows[:, None] != np.arange(len(unit))
        nearest = np.where(other, cosines, -np.inf).argmax(axis=1)
        hits[rows] = np.where((same & other).any(axis=1), people[nearest] == people[rows], np.nan)
        bins = ((cosines + 1) * (_BINS / 2)).astype(int).clip(0, _BINS - 1)
        for histogram, pairs in zip(counts, (~same, same & other), strict=True):
            row, _ = np.nonzero(pairs)
            np.add.at(histogram, (people[rows][row], bins[pairs]), 1)
    eer = float(_equal_error_rates(counts.sum(axis=1, keepdims=True))[0])
    resampled = _equal_error_rates(resamples.weighted(counts))
    rank1, images = mean_estimate(hits, resamples), int(np.isfinite(hits).sum())
    return Identification(rank1, Estimate(eer, resamples.interval(resampled)), images)


def _equal_error_rates(counts: np.ndarray) -> np.ndarray:
    """Equal error rates `(R,)` of R pairs of histograms, `(2, R, bins)`: two people, one person."""
    with np.errstate(invalid="ignore"):  # a resample may hold people with one image each
        two, one = counts.astype(np.float64) / counts.sum(axis=2, keepdims=True, dtype=np.float64)
    false_matches = 1 - np.cumsum(two, axis=1)
    false_non_matches = np.cumsum(one, axis=1)
    crossing = np.abs(false_matches - false_non_matches).argmin(axis=1)[:, None]
    rates = (false_matches + false_non_matches) / 2
    return np.take_along_axis(rates, crossing, axis=1)[:, 0]
