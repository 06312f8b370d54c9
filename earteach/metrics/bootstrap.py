"""Bootstrap confidence intervals over groups of images."""

from __future__ import annotations

import numpy as np

_RESAMPLES = 2000

Interval = tuple[float, float]


class GroupResamples:
    """Cluster bootstrap: whole groups are drawn with replacement, as many as there are.

    Use it where images of one person are alike (Field and Welsh 2007,
    https://doi.org/10.1111/j.1467-9868.2007.00593.x). All values of the same images are resampled
    alike.
    """

    def __init__(self, groups: np.ndarray) -> None:
        names, self._group_of_image = np.unique(groups, return_inverse=True)
        shares = np.full(len(names), 1 / len(names))
        generator = np.random.default_rng(0)
        # How often each group is drawn, (resamples, groups).
        self._draws = generator.multinomial(len(names), shares, size=_RESAMPLES).astype(np.float32)

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
        """The 95 % percentile interval of a statistic of each resample; None for a single group."""
        if self._draws.shape[1] < 2:
            return None
        low, high = np.nanquantile(resampled, [0.025, 0.975]).tolist()
        return low, high
