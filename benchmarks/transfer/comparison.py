"""The same training from every start, each with the best of the same learning rates.

The best rate is chosen by the figure that is compared, on the test people; to avoid that, name a single
one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.transfer.backbones import FROZEN, Backbone

# What was measured during a training: rows of a step and its figures.
Curve = list[list[float]]
# Given the backbone, its learning rate, the seed and the steps.
Train = Callable[[Backbone, float, int, int], Curve]
Loss = Callable[[Curve], float]


@dataclass
class Comparison:
    """Runs every training once; `path` keeps their curves, so that a comparison can go on."""

    starts: Mapping[str, Backbone]
    rates: Sequence[float]
    seeds: int
    steps: int
    path: Path | None = None

    def __post_init__(self) -> None:
        kept = self.path.read_text(encoding="utf-8") if self.path and self.path.exists() else ""
        self._finished: dict[str, Curve] = dict(map(json.loads, kept.splitlines()))

    def curves(self, name: str, train: Train, loss: Loss) -> dict[str, list[Curve]]:
        """By start, the curve of each seed, at the learning rate with the lowest mean loss."""
        return {start: self._of_start(start, name, train, loss) for start in self.starts}

    def _of_start(self, start: str, name: str, train: Train, loss: Loss) -> list[Curve]:
        rates = self.rates[:1] if start == FROZEN else self.rates
        tried = [
            [self._curve(start, name, train, rate, seed) for seed in range(self.seeds)]
            for rate in rates
        ]
        return min(tried, key=lambda curves: fmean(map(loss, curves)))

    def _curve(self, start: str, name: str, train: Train, rate: float, seed: int) -> Curve:
        key = f"{name}, {start}, rate {rate:g}, seed {seed}, {self.steps} steps"
        if key not in self._finished:
            self._finished[key] = train(self.starts[start], rate, seed, self.steps)
            line = json.dumps([key, self._finished[key]])
            print(line, file=sys.stderr, flush=True)
            if self.path:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
        return self._finished[key]


def mean_and_range(values: Sequence[float], digits: int) -> str:
    """As in `3.21 (3.05–3.40)`."""
    mean, low, high = (f"{v:.{digits}f}" for v in (fmean(values), min(values), max(values)))
    return mean if len(values) == 1 else f"{mean} ({low}–{high})"
