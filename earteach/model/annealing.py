"""How the weight of the KLD rises over the epochs: a pure function, without state and without torch.

Cyclic annealing is from Fu et al. 2019, https://arxiv.org/abs/1903.10145.
"""

from __future__ import annotations

import logging
import math

from earteach.config import KLDConfig

_log = logging.getLogger(__name__)


def kld_weight(epoch: int, epochs: int, config: KLDConfig) -> float:
    """The weight in `epoch` (from 0) of a run of `epochs`."""
    start, end = config.kld_anneal_start, config.kld_anneal_end
    return (start + (end - start) * progress(epoch, epochs, config)) * config.kld_weight


def final_kld_weight(config: KLDConfig) -> float:
    """The weight at the schedule's end, by which validation judges in every epoch.

    A schedule that returns to zero must not make its own zero look best.
    """
    return config.kld_anneal_end * config.kld_weight


def progress(epoch: int, epochs: int, config: KLDConfig) -> float:
    """How far the schedule has risen in `epoch`, from 0 to 1."""
    horizon = config.kld_anneal_epochs or epochs
    if horizon == 1 or epoch >= horizon:
        return 1.0
    if config.kld_anneal_strategy == "cyclic":
        # (epoch mod L) / L in whole numbers: with L rounded, a cycle could begin an epoch late.
        share = epoch * cycles(horizon, config) % horizon / horizon
        return min(1.0, share / config.kld_anneal_ratio)
    linear = epoch / (horizon - 1)
    if config.kld_anneal_strategy == "linear":
        return linear
    return (1 - math.cos(math.pi * linear)) / 2


def cycles(epochs: int, config: KLDConfig) -> int:
    """The cycles that fit: each needs two epochs, or its weight would never leave the start."""
    if epochs < 2 * config.kld_anneal_cycles:
        return max(1, epochs // 2)
    return config.kld_anneal_cycles


def note_fewer_cycles(epochs: int, config: KLDConfig) -> None:
    """Log that the run is too short for the cycles asked for, where it is."""
    horizon = config.kld_anneal_epochs or epochs
    fitting = cycles(horizon, config)
    if (
        config.kld_anneal_strategy == "cyclic"
        and horizon > 1
        and fitting < config.kld_anneal_cycles
    ):
        _log.info(
            "--kld-anneal-cycles %d needs %d epochs; with %d there will be %d",
            config.kld_anneal_cycles, 2 * config.kld_anneal_cycles, horizon, fitting,
        )  # fmt: skip
