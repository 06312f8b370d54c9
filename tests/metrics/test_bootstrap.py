"""Bootstrap intervals against scipy's."""

import numpy as np
import pytest
from scipy import stats

from earteach.metrics import bootstrap
from earteach.metrics.bootstrap import mean_interval


def draw(count: int, seed: int = 0) -> np.ndarray:
    """Skewed, as the PSNRs of images are."""
    return 20 + np.random.default_rng(seed).gamma(3.0, 2.0, size=count)


@pytest.mark.parametrize(("count", "level"), [(2, 0.95), (15, 0.8), (500, 0.95)])
def test_the_interval_is_that_of_scipy(count, level):
    values = draw(count)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, confidence_level=level, method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    ours = mean_interval(values, resamples=20_000, level=level)
    width = theirs.high - theirs.low
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.04 * width)


def test_drawing_in_pieces_changes_nothing(monkeypatch):
    values = draw(101)
    whole = mean_interval(values)
    monkeypatch.setattr(bootstrap, "_ROWS_AT_ONCE", 333)
    assert mean_interval(values) == pytest.approx(whole, rel=1e-12)


def test_the_same_rows_are_drawn_for_every_series_of_a_seed():
    values = draw(50)
    low, high = mean_interval(values)
    assert mean_interval(values, seed=1) != (low, high)
    assert mean_interval(values + 5) == pytest.approx((low + 5, high + 5), rel=1e-12)


@pytest.mark.parametrize("values", [[1.0], [1.0, np.inf], [np.nan, 2.0, 3.0]])
def test_there_is_no_interval_for_one_or_infinite_values(values):
    assert mean_interval(np.array(values)) is None
