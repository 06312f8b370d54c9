"""The learning rate: the formula by hand, and the rate that the optimizer really had."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from earteach.config import OptimConfig
from earteach.training.lightning_module import EarVAELightning
from earteach.training.lr_schedule import cosine_factor
from tests.conftest import TINY_RUN, data_options, earteach, run_options

EPOCHS, STEPS_PER_EPOCH = 3, 6  # of 8 images each, with 41 in all
STEPS = EPOCHS * STEPS_PER_EPOCH


def by_hand(step: int, steps: int, warmup: int, peak: float) -> float:
    if step < warmup:
        return peak * (step + 1) / warmup
    angle = math.pi * (step - warmup) / (steps - warmup)
    return peak * (0.02 + 0.98 * (1 + math.cos(angle)) / 2)


@pytest.mark.parametrize(
    ("step", "wanted"),
    [(0, 0.1), (49, 5), (98, 9.9), (99, 10), (100, 10), (550, 5.1), (1000, 0.2), (1200, 0.2)],
)
def test_a_thousand_steps_on_paper(step, wanted):
    assert cosine_factor(step, 1000, OptimConfig(lr_peak=10)) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("steps", "asked", "warmup"), [(5000, 100, 100), (500, 100, 50), (50, 100, 5), (30, 1, 1)]
)
def test_every_step_has_the_rate_of_the_formula(steps, asked, warmup):
    optim = OptimConfig(lr_peak=4, lr_warmup_steps=asked)
    for step in range(steps):
        wanted = by_hand(step, steps, warmup, 4)
        assert cosine_factor(step, steps, optim) == pytest.approx(wanted), step


@pytest.mark.parametrize("steps", [1, 2, 5, 9, 19])
@pytest.mark.parametrize("asked", [0, 1, 100])
def test_short_runs_begin_at_the_peak_and_fall(steps, asked):
    optim = OptimConfig(lr_peak=10, lr_warmup_steps=asked)
    rates = [cosine_factor(n, steps, optim) for n in range(steps + 1)]
    assert rates[0] == 10
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.2 if steps > 1 else 10)


def command(ears: Path, folder: Path, *more: object) -> list[object]:
    return [
        "train", *data_options(ears), *run_options(folder), *TINY_RUN, "--epochs", EPOCHS,
        "--lr-peak", 10, *more,
    ]  # fmt: skip


def recorded(
    monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None
) -> list[tuple[int, float]]:
    """(Step, rate) of each step; the run gets a signal in one of them."""
    rates: list[tuple[int, float]] = []
    original = EarVAELightning.training_step

    def step(module: EarVAELightning, *args: Any) -> Any:
        if module.global_step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        (group,) = module.trainer.optimizers[0].param_groups
        rates.append((module.global_step, group["lr"]))
        return original(module, *args)

    monkeypatch.setattr(EarVAELightning, "training_step", step)
    return rates


WANTED = [(step, pytest.approx(1e-3 * by_hand(step, STEPS, 1, 10))) for step in range(STEPS)]


def test_the_optimizer_has_the_rate_of_the_formula(ears, tmp_path, monkeypatch):
    rates = recorded(monkeypatch)
    assert earteach(*command(ears, tmp_path)).code == 0
    assert rates == WANTED


@pytest.mark.parametrize("stop_at", [3, STEPS_PER_EPOCH - 1, STEPS_PER_EPOCH + 2])
def test_a_resumed_run_goes_on_with_its_rates(ears, tmp_path, stop_at):
    with pytest.MonkeyPatch.context() as patch:
        before = recorded(patch, stop_at)
        assert earteach(*command(ears, tmp_path)).code == 128 + signal.SIGTERM
    with pytest.MonkeyPatch.context() as patch:
        after = recorded(patch)
        assert earteach("resume", tmp_path / "checkpoints" / "last.ckpt").code == 0
    assert len(before) == stop_at + 1
    assert [*before, *after] == WANTED


def test_plateau_keeps_the_rate_while_the_loss_falls(ears, tmp_path, monkeypatch):
    rates = recorded(monkeypatch)
    options = ["--lr-schedule", "plateau", "--lr-warmup-steps", 3]
    assert earteach(*command(ears, tmp_path, *options)).code == 0
    assert rates == [(step, 1e-3) for step in range(STEPS)]
