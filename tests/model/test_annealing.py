"""The schedule against DESIGN.md section 5, written a second time in exact fractions."""

import logging
import math
from fractions import Fraction

import pytest

from earteach.config import KLDConfig
from earteach.model.annealing import final_kld_weight, kld_weight, note_fewer_cycles

STRATEGIES = ["cyclic", "linear", "monotonic"]
LENGTHS = [1, 2, 3, 4, 7, 8, 9, 22, 50, 200]


def share(epoch: int, epochs: int, strategy: str, cycles: int, ratio: str) -> float:
    if epochs == 1:
        return 1.0
    linear = Fraction(epoch, max(1, epochs - 1))
    if strategy == "linear":
        return float(linear)
    if strategy == "monotonic":
        return (1 - math.cos(math.pi * linear)) / 2
    if epochs < 2 * cycles:
        cycles = max(1, epochs // 2)
    length = Fraction(epochs, cycles)
    return float(min(Fraction(1), (epoch % length) / (length * Fraction(ratio))))


def weights(epochs: int, config: KLDConfig, upto: int | None = None) -> list[float]:
    return [kld_weight(epoch, epochs, config) for epoch in range(upto or epochs)]


@pytest.mark.parametrize("epochs", LENGTHS)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("cycles", "ratio", "start", "end"),
    # 22 epochs in 10 cycles: a cycle's length is no whole number, and some begin at an epoch.
    [(4, "0.5", 0.0, 1.0), (10, "0.3", 0.2, 0.9), (1, "1.0", 1.0, 0.0), (3, "0.5", 0.5, 0.5)],
)
def test_every_epoch_has_the_weight_of_the_formula(epochs, strategy, cycles, ratio, start, end):
    config = KLDConfig(
        kld_weight=0.01, kld_anneal_strategy=strategy, kld_anneal_cycles=cycles,
        kld_anneal_ratio=float(ratio), kld_anneal_start=start, kld_anneal_end=end,
    )  # fmt: skip
    wanted = [
        (start + (end - start) * share(epoch, epochs, strategy, cycles, ratio)) * 0.01
        for epoch in range(epochs)
    ]
    assert weights(epochs, config) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [
        ("cyclic", [0, 0.5, 1, 1, 0, 0.5, 1, 1]),
        ("linear", [0, 1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7, 6 / 7, 1]),
        ("monotonic", [0, 0.0495, 0.1883, 0.3887, 0.6113, 0.8117, 0.9505, 1]),
    ],
)
def test_eight_epochs_on_paper(strategy, wanted):
    config = KLDConfig(kld_weight=1.0, kld_anneal_strategy=strategy, kld_anneal_cycles=2)
    assert weights(8, config) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    ("epochs", "wanted"),
    # Fewer cycles than the four asked for; with each of two epochs the second is at full weight.
    [(1, [1]), (2, [0, 1]), (3, [0, 2 / 3, 1]), (4, [0, 1, 0, 1]), (8, [0, 1] * 4)],
)
def test_short_runs_have_fewer_cycles_and_never_no_weight(epochs, wanted):
    assert weights(epochs, KLDConfig(kld_weight=1.0)) == pytest.approx(wanted)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("horizon", [1, 5, 8])
def test_after_its_horizon_the_schedule_holds_its_final_weight(strategy, horizon):
    options = {"kld_weight": 0.5, "kld_anneal_strategy": strategy, "kld_anneal_end": 0.8}
    whole = KLDConfig(**options, kld_anneal_epochs=horizon)
    seen = weights(20, whole)
    assert seen[:horizon] == weights(horizon, KLDConfig(**options))
    assert seen[horizon:] == pytest.approx([0.4] * (20 - horizon))
    assert final_kld_weight(whole) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("options", "epochs", "noted"),
    [
        ({}, 7, "--kld-anneal-cycles 4 needs 8 epochs; with 7 there will be 3"),
        ({}, 8, None),
        ({}, 2, "--kld-anneal-cycles 4 needs 8 epochs; with 2 there will be 1"),
        ({}, 1, None),
        ({"kld_anneal_strategy": "linear"}, 2, None),
        (
            {"kld_anneal_epochs": 3},
            100,
            "--kld-anneal-cycles 4 needs 8 epochs; with 3 there will be 1",
        ),
        ({"kld_anneal_epochs": 50}, 3, None),
    ],
)
def test_fewer_cycles_are_noted(caplog, options, epochs, noted):
    with caplog.at_level(logging.INFO, "earteach"):
        note_fewer_cycles(epochs, KLDConfig(**options))
    if noted is None:
        assert caplog.messages == []
    else:
        (message,) = caplog.messages
        assert message == noted
