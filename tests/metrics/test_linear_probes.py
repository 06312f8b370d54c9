"""The probes beside scikit-learn's ridge regression, grid search, ROC curve and nearest neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_curve
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from earteach.metrics import linear_probes as probes
from earteach.metrics.bootstrap import GroupResamples
from earteach.metrics.linear_probes import (
    PENALTIES,
    identify,
    landmark_errors,
    mean_estimate,
    person_folds,
    point_errors,
    reduction,
)


def data(
    people: int = 12, each: int = 4, length: int = 9, noise: float = 0.02, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, landmarks that are nearly linear in them, and people."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([f"p{number}" for number in range(people)], each)
    features = rng.normal(size=(len(groups), length)) * rng.uniform(0.1, 30, length) + 5
    weights = rng.normal(size=(length, 10)) / features.std(axis=0)[:, None]
    points = 0.5 + 0.05 * features @ weights + noise * rng.normal(size=(len(groups), 10))
    return features, points.reshape(-1, 5, 2), groups


def test_nobody_is_in_training_and_test_and_everyone_is_tested_once():
    groups = data()[2]
    folds = person_folds(groups, 5, seed=3)
    assert sorted(np.concatenate(folds)) == list(range(len(groups)))
    for rows in folds:
        outside = np.setdiff1d(np.arange(len(groups)), rows)
        assert not set(groups[rows]) & set(groups[outside])
    other = person_folds(groups, 5, seed=4)
    assert [list(rows) for rows in other] != [list(rows) for rows in folds]


@pytest.mark.parametrize("length", [9, 120])
def test_errors_are_those_of_scikit_learns_ridge(length, monkeypatch):
    """One penalty, so that nothing is chosen: a kernel divided by d takes the penalty times d."""
    features, points, groups = data(length=length)
    monkeypatch.setattr(probes, "PENALTIES", np.array([0.1]))
    errors = landmark_errors(features, points, groups, folds=4, seed=1)
    for rows in person_folds(groups, 4, seed=1):
        train = np.setdiff1d(np.arange(len(groups)), rows)
        ridge = make_pipeline(StandardScaler(), Ridge(alpha=0.1 * length, solver="svd"))
        ridge.fit(features[train], points[train].reshape(len(train), -1))
        predicted = ridge.predict(features[rows]).reshape(-1, 5, 2)
        for prediction, row in zip(predicted, rows, strict=True):
            box = points[row].max(axis=0) - points[row].min(axis=0)
            distances = [np.hypot(*(prediction[k] - points[row, k])) for k in range(5)]
            assert errors[row] == pytest.approx(np.mean(distances) / np.hypot(*box), rel=1e-6)


@pytest.mark.parametrize("noise", [0.001, 0.3])
def test_the_penalty_is_the_best_in_folds_of_people_within_training(noise):
    features, points, groups = data(length=40, noise=noise)
    errors = landmark_errors(features, points, groups, folds=4, seed=1)
    rows = person_folds(groups, 4, seed=1)[0]
    train = np.setdiff1d(np.arange(len(groups)), rows)
    scaled = StandardScaler().fit(features[train]).transform(features)
    flat = points.reshape(len(points), -1)

    def error(fitted: np.ndarray, rows: np.ndarray, penalty: float) -> np.ndarray:
        ridge = Ridge(alpha=penalty * 40, solver="svd").fit(scaled[fitted], flat[fitted])
        return point_errors(ridge.predict(scaled[rows]).reshape(-1, 5, 2), points[rows])

    inner = [train[held] for held in person_folds(groups[train], 4, seed=1)]
    sums = [
        sum(error(np.setdiff1d(train, held), held, penalty).sum() for held in inner)
        for penalty in PENALTIES
    ]
    best = PENALTIES[np.argmin(sums)]
    assert np.allclose(errors[rows], error(train, rows, best), rtol=1e-5)


def identities(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    groups = np.repeat([f"p{number}" for number in range(20)], 3)
    groups = np.concatenate([groups, ["alone"]])
    centres = dict(zip(sorted(set(groups)), rng.normal(size=(21, 6)), strict=True))
    return np.stack([centres[name] for name in groups]) + rng.normal(size=(61, 6)), groups


def test_rank_1_and_eer_are_those_of_scikit_learn(monkeypatch):
    features, groups = identities()
    monkeypatch.setattr(probes, "_ROWS", 7)
    scaled = StandardScaler().fit_transform(features)
    result = identify(features, groups, resamples=GroupResamples(groups))
    nearest = NearestNeighbors(n_neighbors=2, metric="cosine").fit(scaled)
    second = nearest.kneighbors(scaled, return_distance=False)[:, 1]
    known = groups != "alone"
    assert result.images == 60
    assert result.rank1.value == np.mean(groups[second][known] == groups[known])
    unit = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    upper = np.triu_indices(61, 1)
    refused_two, taken_one, _ = roc_curve(
        (groups[:, None] == groups)[upper], (unit @ unit.T)[upper], drop_intermediate=False
    )
    crossing = np.abs(refused_two - (1 - taken_one)).argmin()
    expected = (refused_two[crossing] + 1 - taken_one[crossing]) / 2
    assert 0.1 < expected < 0.4
    assert result.eer.value == pytest.approx(expected, abs=0.01)


def test_intervals_are_of_people_and_paired():
    """Images of a person are alike: over people the mean is far less certain than over images."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40).astype(str), 25)
    values = np.repeat(rng.normal(10, 1, 40), 25) + 0.01 * rng.normal(size=1000)
    resamples = GroupResamples(groups)
    mean = mean_estimate(values, resamples)
    assert mean.value == pytest.approx(values.mean())
    assert mean.interval is not None
    low, high = mean.interval
    # Normal theory for the mean of 40 people.
    spread = 1.96 * values.reshape(40, 25).mean(axis=1).std(ddof=1) / np.sqrt(40)
    assert (high - low) / 2 == pytest.approx(spread, rel=0.1)
    below = reduction(0.9 * values, values, resamples)
    assert below.value == pytest.approx(0.1)
    assert below.interval == pytest.approx((0.1, 0.1))


def test_means_ignore_nan_and_one_person_has_no_interval():
    values = np.array([1.0, np.nan, 3.0, 5.0])
    means = set(np.round(GroupResamples(np.array(["a", "a", "b", "b"])).means(values), 6))
    # Twice a, twice b, and one of each: the mean of 1, 3 and 5.
    assert means == {1.0, 4.0, 3.0}
    estimate = mean_estimate(values, GroupResamples(np.array(["a"] * 4)))
    assert (estimate.value, estimate.interval) == (3.0, None)
