"""The learning rate over a run."""

from __future__ import annotations

import math

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from earteach.config import OptimConfig

_END = 0.02
# Version 1.0 multiplied a base rate by 20 · factor. The products round as they did then, so that its
# runs resume with the same weights, bit for bit.
_ROUND = 20.0


def cosine_rate(step: int, steps: int, optim: OptimConfig) -> float:
    """The learning rate of one step: a linear rise to the peak, then half a cosine to 2 % of it.

    Smith and Topin 2018 (https://arxiv.org/abs/1708.07120), Loshchilov and Hutter 2017
    (https://arxiv.org/abs/1608.03983). Warm-up takes at most a tenth of the steps.
    """
    warmup = max(1, min(optim.lr_warmup_steps, steps // 10))
    progress = min(1.0, max(0.0, (step - warmup) / max(1, steps - warmup)))
    decay = _END + (1 - _END) * (1 + math.cos(math.pi * progress)) / 2
    factor = min(decay, (step + 1) / warmup)
    return optim.peak_learning_rate / _ROUND * (_ROUND * factor)


class CosineSchedule(LambdaLR):
    """`cosine_rate` of each step, whatever base rate a checkpoint of version 1.0 restores."""

    def __init__(self, optimizer: Optimizer, steps: int, optim: OptimConfig) -> None:
        super().__init__(optimizer, lambda step: cosine_rate(step, steps, optim))

    def get_lr(self) -> list[float | torch.Tensor]:
        return [rate(self.last_epoch) for rate in self.lr_lambdas]
