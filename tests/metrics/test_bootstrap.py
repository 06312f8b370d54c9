"""Bootstrap intervals against scipy's, and against what they promise."""

import numpy as np
import pytest
from scipy import stats

from earteach.metrics import bootstrap
from earteach.metrics.bootstrap import mean_interval


def draw(count: int, seed: int = 0) -> np.ndarray:
    """Skewed, as the PSNRs of images are."""
    return 20 + np.random.default_rng(seed).gamma(3.0, 2.0, size=count)


@pytest.mark.parametrize("level", [0.95, 0.8])
@pytest.mark.parametrize("count", [2, 15, 500])
def test_is_that_of_scipy(count, level):
    values = draw(count)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, confidence_level=level, method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    ours = mean_interval(values, resamples=20_000, level=level)
    width = theirs.high - theirs.low
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.04 * width)


def test_holds_the_true_mean_as_often_as_it_says():
    hits = 0
    for seed in range(300):
        low, high = mean_interval(draw(60, seed), resamples=500)
        hits += low <= 20 + 3.0 * 2.0 <= high
    assert 0.91 <= hits / 300 <= 0.98


def test_many_images_are_drawn_in_pieces(monkeypatch):
    values = draw(101)
    whole = mean_interval(values)
    monkeypatch.setattr(bootstrap, "_DRAWN", 333)
    assert mean_interval(values) == pytest.approx(whole, rel=1e-12)


def test_the_seed_decides_and_the_same_rows_are_drawn_for_each_series():
    values = draw(50)
    low, high = mean_interval(values)
    assert mean_interval(values) == (low, high)
    assert mean_interval(values, seed=1) != (low, high)
    assert mean_interval(values + 5) == pytest.approx((low + 5, high + 5), rel=1e-12)


@pytest.mark.parametrize("values", [[1.0], [1.0, np.inf], [np.nan, 2.0, 3.0]])
def test_there_is_none_where_it_would_mean_nothing(values):
    assert mean_interval(np.array(values)) is None
