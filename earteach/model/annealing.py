"""How the weight of the KLD rises over the epochs: a pure function, without state and without torch.

Cyclic annealing is from Fu et al. 2019, https://arxiv.org/abs/1903.10145. To add a shape, write its
function, and name it in `SHAPES` and in `config.Annealing`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from earteach.config import Annealing, KLDConfig

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
    return SHAPES[config.kld_anneal_strategy](epoch, horizon, config)


def _cyclic(epoch: int, horizon: int, config: KLDConfig) -> float:
    # (epoch mod L) / L in whole numbers: with L rounded, a cycle could begin an epoch late.
    share = epoch * cycles(horizon, config) % horizon / horizon
    return min(1.0, share / config.kld_anneal_ratio)


def _linear(epoch: int, horizon: int, config: KLDConfig) -> float:
    return epoch / (horizon - 1)


def _monotonic(epoch: int, horizon: int, config: KLDConfig) -> float:
    return (1 - math.cos(math.pi * epoch / (horizon - 1))) / 2


# The rise from 0 to 1 over `horizon` epochs, at least 2.
SHAPES: dict[Annealing, Callable[[int, int, KLDConfig], float]] = {
    "cyclic": _cyclic,
    "linear": _linear,
    "monotonic": _monotonic,
}


def cycles(epochs: int, config: KLDConfig) -> int:
    """The cycles that fit: each needs two epochs, or its weight would never leave the start."""
    return min(config.kld_anneal_cycles, max(1, epochs // 2))


def note_fewer_cycles(epochs: int, config: KLDConfig) -> None:
    """Log that the run is too short for the cycles asked for, where it is."""
    horizon, wanted = config.kld_anneal_epochs or epochs, config.kld_anneal_cycles
    if config.kld_anneal_strategy == "cyclic" and 1 < horizon < 2 * wanted:
        _log.info(
            "--kld-anneal-cycles %d needs %d epochs; with %d there will be %d",
            wanted, 2 * wanted, horizon, cycles(horizon, config),
        )  # fmt: skip
