"""The schedule of the KLD weight against values worked out on paper."""

import logging

import pytest

from earteach.config import KLDConfig
from earteach.model.annealing import final_kld_weight, kld_weight, note_fewer_cycles


def weights(epochs: int, **options: object) -> list[float]:
    config = KLDConfig(**{"kld_weight": 1.0, **options})
    return [kld_weight(epoch, epochs, config) for epoch in range(epochs)]


CYCLIC = {"kld_anneal_cycles": 2}
ON_PAPER = [
    ({**CYCLIC, "kld_anneal_strategy": "cyclic"}, [0, 0.5, 1, 1, 0, 0.5, 1, 1]),
    ({"kld_anneal_strategy": "linear"}, [0, 1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7, 6 / 7, 1]),
    ({"kld_anneal_strategy": "monotonic"},
     [0, 0.0495, 0.1883, 0.3887, 0.6113, 0.8117, 0.9505, 1]),
    ({**CYCLIC, "kld_anneal_ratio": 1.0}, [0, 0.25, 0.5, 0.75, 0, 0.25, 0.5, 0.75]),
    ({**CYCLIC, "kld_anneal_start": 0.2, "kld_anneal_end": 0.8, "kld_weight": 0.1},
     [0.02, 0.05, 0.08, 0.08, 0.02, 0.05, 0.08, 0.08]),
    # 22 epochs in 10 cycles of 2.2: with a rounded length, the second half would start late.
    ({"kld_anneal_cycles": 10, "kld_anneal_ratio": 1.0},
     [t / 11 for t in (0, 5, 10, 4, 9, 3, 8, 2, 7, 1, 6)] * 2),
    # Runs too short for the four cycles of the default have fewer, of at least two epochs.
    ({}, [1]), ({}, [0, 1]), ({}, [0, 2 / 3, 1]), ({}, [0, 1, 0, 1]), ({}, [0, 1] * 4),
]  # fmt: skip


@pytest.mark.parametrize(("options", "expected"), ON_PAPER)
def test_each_epoch_has_the_weight_worked_out_on_paper(options, expected):
    assert weights(len(expected), **options) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("strategy", ["cyclic", "linear", "monotonic"])
@pytest.mark.parametrize("horizon", [1, 5, 8])
def test_after_its_horizon_the_schedule_holds_its_final_weight(strategy, horizon):
    options = {"kld_weight": 0.5, "kld_anneal_strategy": strategy, "kld_anneal_end": 0.8}
    whole = weights(20, **options, kld_anneal_epochs=horizon)
    assert whole[:horizon] == weights(horizon, **options)
    assert whole[horizon:] == pytest.approx([0.4] * (20 - horizon))
    assert final_kld_weight(KLDConfig(**options)) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("options", "epochs", "fitting"),
    [
        ({}, 7, "with 7 there will be 3"),
        ({}, 8, None),
        ({}, 1, None),
        ({"kld_anneal_strategy": "linear"}, 2, None),
        ({"kld_anneal_epochs": 3}, 100, "with 3 there will be 1"),
    ],
)
def test_a_run_too_short_for_its_cycles_is_noted(caplog, options, epochs, fitting):
    with caplog.at_level(logging.INFO, "earteach"):
        note_fewer_cycles(epochs, KLDConfig(**options))
    expected = [f"--kld-anneal-cycles 4 needs 8 epochs; {fitting}"] if fitting else []
    assert caplog.messages == expected
