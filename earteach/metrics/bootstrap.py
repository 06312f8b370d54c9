"""Bootstrap confidence intervals of means over images or groups of images."""

from __future__ import annotations

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
# Row numbers drawn at a time, which bounds the memory.
_ROWS_AT_ONCE = 2**21

Interval = tuple[float, float]


def mean_interval(
    values: np.ndarray, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Interval | None:
    """The percentile bootstrap interval of the mean of `values` `(N,)`.

    Efron and Tibshirani 1993, chapter 13: N values are drawn with replacement `resamples` times, and
    the interval holds the middle `level` of the means. The rows drawn depend on the seed and N alone,
    so several series over the same images are resampled alike. None for fewer than two values, and
    where one is not finite.
    """
    count = len(values)
    if count < 2 or not np.isfinite(values).all():
        return None
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    at_once = max(1, _ROWS_AT_ONCE // count)
    for start in range(0, resamples, at_once):
        number = min(at_once, resamples - start)
        rows = generator.integers(count, size=(number, count))
        means[start : start + number] = values[rows].mean(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail]).tolist()
    return low, high


class GroupResamples:
    """Cluster bootstrap: whole groups are drawn with replacement, as many as there are.

    Use it where images of one person are alike (Field and Welsh 2007,
    https://doi.org/10.1111/j.1467-9868.2007.00593.x). All values of the same images are resampled
    alike.
    """

    def __init__(
        self, groups: np.ndarray, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
    ) -> None:
        names, self._group_of_image = np.unique(groups, return_inverse=True)
        shares = np.full(len(names), 1 / len(names))
        generator = np.random.default_rng(seed)
        # How often each group is drawn, (resamples, groups).
        self._draws = generator.multinomial(len(names), shares, size=resamples).astype(np.float32)
        self._tail = (1 - level) / 2

    def means(self, values: np.ndarray) -> np.ndarray:
        """The mean over images in each resample, `(resamples,)`; NaN values are ignored."""
        known, length = np.isfinite(values), self._draws.shape[1]
        sums = np.bincount(self._group_of_image[known], values[known], minlength=length)
        counts = np.bincount(self._group_of_image[known], minlength=length)
        with np.errstate(invalid="ignore"):  # a resample may hold no image with a value
            return (self._draws @ sums) / (self._draws @ counts)

    def weighted(self, counts: np.ndarray) -> np.ndarray:
        """Counts `(…, groups, bins)` summed over the groups of each resample, `(…, resamples, bins)`."""
        return self._draws @ counts

    def interval(self, resampled: np.ndarray) -> Interval | None:
        """The percentile interval of a statistic of each resample; None for a single group."""
        if self._draws.shape[1] < 2:
            return None
        low, high = np.nanquantile(resampled, [self._tail, 1 - self._tail]).tolist()
        return low, high
