"""The learning rate over a run, as a multiple of `--learning-rate`."""

from __future__ import annotations

import math

from earteach.config import OptimConfig

_END = 0.02


def cosine_factor(step: int, steps: int, optim: OptimConfig) -> float:
    """The factor of one step: a linear rise to the peak, then half a cosine to 2 % of it.

    Smith and Topin 2018 (https://arxiv.org/abs/1708.07120), Loshchilov and Hutter 2017
    (https://arxiv.org/abs/1608.03983). A run shorter than ten warm-ups warms up in a tenth of its steps.
    """
    warmup = max(1, min(optim.lr_warmup_steps, steps // 10))
    share = min(1.0, max(0.0, (step - warmup) / max(1, steps - warmup)))
    fall = _END + (1 - _END) * (1 + math.cos(math.pi * share)) / 2
    return optim.lr_peak * min(fall, (step + 1) / warmup)
