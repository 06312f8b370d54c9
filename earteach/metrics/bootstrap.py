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


class GroupResamples:
    """Whole groups drawn with replacement, as often as there are groups, `resamples` times.

    Where several images of each person are alike, other images are other people: this is the bootstrap
    for them (Field and Welsh 2007, https://doi.org/10.1111/j.1467-9868.2007.00593.x). All values of the
    same images are resampled alike.
    """

    def __init__(
        self,
        groups: np.ndarray,
        *,
        resamples: int = RESAMPLES,
        level: float = LEVEL,
        seed: int = 0,
    ) -> None:
        names, self._places = np.unique(groups, return_inverse=True)
        shares = np.full(len(names), 1 / len(names))
        generator = np.random.default_rng(seed)
        # How often each group is drawn, (resamples, groups).
        self._drawn = generator.multinomial(len(names), shares, size=resamples).astype(np.float32)
        self._tail = (1 - level) / 2

    def means(self, values: np.ndarray) -> np.ndarray:
        """The mean over images in each resample, `(resamples,)`; NaN are left out."""
        known, length = np.isfinite(values), self._drawn.shape[1]
        sums = np.bincount(self._places[known], values[known], minlength=length)
        counts = np.bincount(self._places[known], minlength=length)
        with np.errstate(invalid="ignore"):  # no image with a value was drawn
            return (self._drawn @ sums) / (self._drawn @ counts)

    def weighted(self, counts: np.ndarray) -> np.ndarray:
        """Sums over groups of counts `(…, groups, bins)` in each resample, `(…, resamples, bins)`."""
        return self._drawn @ counts

    def interval(self, resampled: np.ndarray) -> Interval | None:
        """The percentile interval of what was computed on each resample; None for a single group."""
        if self._drawn.shape[1] < 2:
            return None
        low, high = np.nanquantile(resampled, [self._tail, 1 - self._tail]).tolist()
        return low, high
