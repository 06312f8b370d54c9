"""How far a mean over images could lie elsewhere, had other images been drawn."""

from __future__ import annotations

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
# Row numbers drawn at a time, which bounds the memory whatever the number of images.
_DRAWN = 2**21

Interval = tuple[float, float]


def mean_interval(
    values: np.ndarray, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Interval | None:
    """The percentile bootstrap interval of the mean of `values` `(N,)`.

    Efron and Tibshirani 1993, chapter 13. N values are drawn with replacement `resamples` times; the
    interval holds the middle `level` of the means. The rows drawn depend on the seed and N alone, so
    that several series of the same images are resampled alike. None where there are fewer than two
    values, or where one is not finite.
    """
    count = len(values)
    if count < 2 or not np.isfinite(values).all():
        return None
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    at_once = max(1, _DRAWN // count)
    for start in range(0, resamples, at_once):
        number = min(at_once, resamples - start)
        rows = generator.integers(count, size=(number, count))
        means[start : start + number] = values[rows].mean(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail]).tolist()
    return low, high
