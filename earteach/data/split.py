"""Split groups, such as people, into training and validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from earteach.data.patterns import search
from earteach.errors import EarTeachError
from earteach.randomness import Purpose, derive


@dataclass(frozen=True)
class Split:
    """Validation takes the groups that match `val_groups`, or else random ones of all."""

    val_fraction: float = 0.15
    val_groups: str | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1:
            raise EarTeachError(f"--val-fraction {self.val_fraction}: must lie between 0 and 1")

    def validation(self, groups: Sequence[str]) -> set[str]:
        """The groups for validation, given the group of each image.

        Raises `EarTeachError` if one of the two arrays would be empty.
        """
        counts = dict.fromkeys(sorted(groups), 0)
        for group in groups:
            counts[group] += 1
        if self.val_groups is not None:
            chosen = {group for group in counts if search("--val-groups", self.val_groups, group)}
        else:
            chosen = self._random_share(counts)
        if not chosen or len(chosen) == len(counts):
            share = "none" if not chosen else "all"
            how = f"--val-groups {self.val_groups}" if self.val_groups else "the split"
            raise EarTeachError(
                f"{how}: puts {share} of the {len(counts)} groups in validation; each array needs "
                f"at least one (some of the groups: {', '.join(list(counts)[:5])})"
            )
        return chosen

    def _random_share(self, counts: dict[str, int]) -> set[str]:
        """Whole groups in random order until they hold `val_fraction` of the images."""
        order = np.random.default_rng(derive(self.seed, Purpose.SPLIT)).permutation(len(counts))
        names, target = list(counts), self.val_fraction * sum(counts.values())
        chosen: set[str] = set()
        taken = 0
        for name in (names[index] for index in order[:-1]):  # the last one stays for training
            # A group that would lead away from the target ends the search, unless it is the first.
            if taken + counts[name] / 2 <= target:
                chosen.add(name)
                taken += counts[name]
            elif chosen:
                break
        return chosen or {min(names, key=lambda name: counts[name])}
