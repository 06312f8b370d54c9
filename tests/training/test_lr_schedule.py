"""The learning rate: the formula by hand, and the rate that the optimizer really had."""

from __future__ import annotations

import math
import os
import signal

import pytest
import torch

from earteach.config import OptimConfig
from earteach.training.lightning_module import EarVAELightning
from earteach.training.lr_schedule import CosineSchedule, cosine_rate
from tests.conftest import TINY_RUN, data_options, earteach, run_options

EPOCHS, STEPS_PER_EPOCH = 3, 6  # of 8 images each, with 41 in all
STEPS = EPOCHS * STEPS_PER_EPOCH


def by_hand(step, steps, warmup, peak):
    if step < warmup:
        return peak * (step + 1) / warmup
    angle = math.pi * (step - warmup) / (steps - warmup)
    return peak * (0.02 + 0.98 * (1 + math.cos(angle)) / 2)


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.1), (49, 5), (98, 9.9), (99, 10), (100, 10), (550, 5.1), (1000, 0.2), (1200, 0.2)],
)
def test_a_thousand_steps_on_paper(step, rate):
    assert cosine_rate(step, 1000, OptimConfig(learning_rate=10)) == pytest.approx(rate)


@pytest.mark.parametrize("steps", [1, 2, 5, 9, 19])
@pytest.mark.parametrize("asked", [0, 1, 100])
def test_short_runs_begin_at_the_peak_and_fall(steps, asked):
    optim = OptimConfig(learning_rate=10, lr_warmup_steps=asked)
    rates = [cosine_rate(n, steps, optim) for n in range(steps + 1)]
    assert rates[0] == 10
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.2 if steps > 1 else 10)


def version_1_0(step, steps, base=1e-4, lr_peak=20.0):
    """As version 1.0 computed it: LambdaLR multiplied the base rate by this factor."""
    warmup = max(1, min(100, steps // 10))
    share = min(1.0, max(0.0, (step - warmup) / max(1, steps - warmup)))
    fall = 0.02 + (1 - 0.02) * (1 + math.cos(math.pi * share)) / 2
    return base * (lr_peak * min(fall, (step + 1) / warmup))


def test_a_checkpoint_of_version_1_0_goes_on_with_its_rates_bit_for_bit():
    def optimizer(rate):
        return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)

    old = torch.optim.lr_scheduler.LambdaLR(optimizer(1e-4), lambda step: 20.0)
    old.optimizer.step()
    old.step()
    new = CosineSchedule(optimizer(2e-3), 700, OptimConfig())
    new.load_state_dict(old.state_dict())
    for step in range(2, 701):
        new.optimizer.step()
        new.step()
        assert new.get_last_lr() == [version_1_0(step, 700)], step


def command(ears, folder, *more):
    return [
        "train", *data_options(ears), *run_options(folder), *TINY_RUN, "--epochs", EPOCHS,
        "--learning-rate", 1e-2, *more,
    ]  # fmt: skip


def recorded(monkeypatch, stop_at=None):
    """(Step, rate) of each step; the run gets a signal in one of them."""
    rates = []
    original = EarVAELightning.training_step

    def step(module, *args):
        if module.global_step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        (group,) = module.trainer.optimizers[0].param_groups
        rates.append((module.global_step, group["lr"]))
        return original(module, *args)

    monkeypatch.setattr(EarVAELightning, "training_step", step)
    return rates


@pytest.mark.slow
def test_the_optimizer_has_the_rate_of_the_formula_also_after_a_resume(ears, tmp_path):
    stop_at = STEPS_PER_EPOCH + 2
    with pytest.MonkeyPatch.context() as patch:
        before = recorded(patch, stop_at)
        assert earteach(*command(ears, tmp_path)).code == 128 + signal.SIGTERM
    with pytest.MonkeyPatch.context() as patch:
        after = recorded(patch)
        assert earteach("resume", tmp_path / "checkpoints" / "last.ckpt").code == 0
    assert len(before) == stop_at + 1
    expected = [(step, pytest.approx(by_hand(step, STEPS, 1, 1e-2))) for step in range(STEPS)]
    assert [*before, *after] == expected


@pytest.mark.slow
def test_plateau_keeps_the_rate_while_the_loss_falls(ears, tmp_path, monkeypatch):
    rates = recorded(monkeypatch)
    options = ["--lr-schedule", "plateau", "--lr-warmup-steps", 3, "--lr-peak", 7]
    assert earteach(*command(ears, tmp_path, *options)).code == 0
    assert rates == [(step, 1e-2) for step in range(STEPS)]


def test_lr_peak_is_converted_for_one_release(ears, tmp_path):
    options = [*data_options(ears), *run_options(tmp_path), *TINY_RUN, "--lr-peak", 7]
    result = earteach("train", *options, "--learning-rate", 1e-3, "--dry-run", "--json")
    assert result.json["learning_rate"] == 7e-3
    assert "note: --lr-peak will be removed: use --learning-rate 0.007" in result.err
