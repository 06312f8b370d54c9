"""Run diagnostics on made-up statistics: which advice they give, and that its numbers are right."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from earteach.config import TrainConfig
from earteach.metrics.diagnostics import (
    Advice,
    EpochLosses,
    RunStatistics,
    diagnose,
    predict_collapse,
)

SIZE, LATENT = 32, 16
PIXELS = 3 * SIZE**2
# As those of ear photographs fall, in summed pixels.
EIGENVALUES = tuple(100 * rank**-1.7 for rank in range(1, LATENT + 1))
# β 0.02 at the default weight.
BETA = 0.00025 * PIXELS / (2 * LATENT)


def config(**options: Any) -> TrainConfig:
    plain = {"image_size": SIZE, "latent_dim": LATENT, "epochs": 20, "learning_rate": 1e-3}
    return TrainConfig().with_options({**plain, "lr_schedule": "plateau", **options})


def epoch(recon: float = 0.004, **others: float) -> EpochLosses:
    losses = EpochLosses(recon, recon, recon * 1.05, recon * 1.1, learning_rate=1e-3)
    return replace(losses, **others)


def falling(epochs: int = 20, start: float = 0.02, end: float = 0.004) -> tuple[EpochLosses, ...]:
    """A curve that converges in the first half of the epochs."""
    return tuple(epoch(end + (start - end) * math.exp(-12 * e / epochs)) for e in range(epochs))


def codes(beta: float = BETA) -> dict[str, tuple[float, ...]]:
    """A linear network at this β: KLD ½ ln(λ / β) and variance 1 − β / λ where λ > β."""
    return {
        "kld_per_dimension": tuple(max(0.0, math.log(v / beta) / 2) for v in EIGENVALUES),
        "variance": tuple(max(0.0, 1 - beta / v) for v in EIGENVALUES),
    }


def run(**changes: Any) -> RunStatistics:
    """A healthy run, changed."""
    healthy = RunStatistics(
        config=config(), epochs=20, steps=1000, finished=True, history=falling(), images=50,
        recon_loss=0.0042, mean_image_error=0.05, eigenvalues=EIGENVALUES, **codes(),
    )  # fmt: skip
    return replace(healthy, **changes)


def at_weight(history: tuple[EpochLosses, ...] = (), **options: Any) -> RunStatistics:
    """The code that a linear network has with these options."""
    chosen = config(**options)
    divisor = LATENT if chosen.kld.kld_reduction == "mean" else 1
    beta = chosen.kld.kld_weight * PIXELS / 2 / divisor
    return run(config=chosen, **codes(beta), recon_loss=0.02, history=history)


def only(advice: tuple[Advice, ...], code: str) -> Advice:
    assert [entry.code for entry in advice] == [code]
    return advice[0]


CREEPING = tuple(epoch(0.09 - 1e-5 * e, learning_rate=1e-7) for e in range(20))
USELESS = tuple(epoch(0.2 + 0.001 * (e % 2)) for e in range(20))
RISING = tuple(epoch(0.004 * 1.03**e) for e in range(20))
# Best in epoch 9; then training images get better and validation images worse.
OVERFITTED = tuple(epoch(0.01 * 0.9**e, val_recon=0.01 + 0.001 * abs(e - 8)) for e in range(20))
IMPROVING = tuple(epoch(0.02 * 0.95**e) for e in range(20))
FLAT = tuple(epoch(0.004 if e == 6 else 0.0041) for e in range(30))

# name: statistics, code, option, value, a part of the message
SICK: dict[str, tuple[RunStatistics, str, str, Any, str]] = {
    "collapse under sum": (
        # β 1.5 drops the ranks from 12 on.
        at_weight(kld_reduction="sum", kld_weight=0.001), "kld_weight_high", "kld_reduction", "mean",
        "β, 1.5 in ELBO units, exceeds what 5 of 16 dimensions each explain",
    ),
    "collapse under mean": (
        at_weight(kld_weight=2.5), "kld_weight_high", "kld_weight", 0.00093,
        "only 0 of 16 latent dimensions are active",
    ),
    "all dimensions noisy": (
        # β 4.8: 100 · 5^−1.7 is the last eigenvalue above it.
        run(config=config(kld_weight=0.05), history=(), kld_per_dimension=(0.6,) * LATENT,
            variance=(0.8,) * LATENT),
        "kld_weight_high", "kld_weight", 0.00093, "exceeds what 11 of 16 dimensions each explain",
    ),
    "almost no KLD weight": (
        run(config=config(kld_weight=1e-9), **codes(1e-9 * PIXELS / 2 / LATENT)),
        "kld_weight_low", "kld_weight", 0.00093, "nats, has almost no noise",
    ),
    "wide codes": (
        run(config=config(kld_weight=1e-9), variance=(37.0,) * LATENT),
        "kld_weight_low", "kld_weight", 0.00093, "a variance of 37",
    ),
    "no KLD weight": (
        run(config=config(kld_weight=0.0)), "kld_weight_low", "kld_weight", 0.00093, "of the loss",
    ),
    "annealed to nothing": (
        run(config=config(kld_anneal_end=0.0)), "kld_weight_low", "kld_anneal_end", 1.0, "instead of 0",
    ),
    "learning rate too low": (
        run(config=config(learning_rate=1e-7), history=CREEPING),
        "learning_rate_low", "learning_rate", 1e-4, "0.09 to 0.08981",
    ),
    "nothing learned": (
        run(config=config(learning_rate=0.5), history=USELESS),
        "learning_rate_high", "learning_rate", 1e-4, "that of the mean image is 0.05",
    ),
    "worse and worse": (
        run(history=RISING, finished=False), "learning_rate_high", "learning_rate", 1e-4,
        "rose from 0.004 to 0.00681",
    ),
    "scattered codes": (
        run(kld_per_dimension=(12.0,) * LATENT), "learning_rate_high", "learning_rate", 1e-4,
        f"the KLD weight allows {math.log(EIGENVALUES[7] / BETA) / 2:.1f}",
    ),
    "overfitting": (
        run(config=config(augmentation="light"), history=OVERFITTED, finished=False),
        "overfitting", "augmentation", "full", "since epoch 9",
    ),
    "overfitting with full augmentation": (
        run(config=config(augmentation="full", base_channels=64), history=OVERFITTED),
        "overfitting", "base_channels", 32, "rose from 0.01 to 0.02",
    ),
    "memorized from the start": (
        run(config=config(augmentation="none"),
            history=tuple(epoch(val_recon=0.032, val_loss=0.02) for _ in range(20))),
        "overfitting", "augmentation", "light", "8 times that on training images",
    ),
    "still improving": (
        run(history=IMPROVING), "still_improving", "epochs", 40, "by 23% in the last 5 epochs",
    ),
    "early plateau": (
        run(history=FLAT, epochs=30, config=config(epochs=30)),
        "plateau", "learning_rate", 3.3e-4, "in epoch 7, and the 23 epochs since",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sick", "code", "option", "value", "text"), SICK.values(), ids=SICK)
def test_advice_names_the_problem_and_an_option_with_a_valid_value(
    sick: RunStatistics, code: str, option: str, value: Any, text: str
) -> None:
    advice = only(diagnose(sick), code)
    assert advice.option == option
    # The smallest eigenvalue should be ten times β.
    assert advice.value == (pytest.approx(value, rel=0.03) if isinstance(value, float) else value)
    assert text in advice.message
    assert "\n" not in advice.message
    written = f"{advice.value:g}" if isinstance(advice.value, float) else str(advice.value)
    assert f"--{option.replace('_', '-')} {written}" in advice.message
    config().with_options({advice.option: advice.value})  # raises if the option refuses the value
    # A young run is not judged, whatever it looks like.
    assert diagnose(replace(sick, history=sick.history[:4], epochs=4)) == ()
    assert diagnose(replace(sick, steps=60)) == ()
    if code.startswith("kld"):
        assert diagnose(replace(sick, images=3)) == ()


def test_the_advised_weight_puts_beta_at_a_tenth_of_the_smallest_eigenvalue() -> None:
    for reduction, divisor in (("mean", LATENT), ("sum", 1)):
        sick = at_weight(kld_reduction=reduction, kld_weight=2.5 * divisor**0.5)
        weight = diagnose(sick)[0].value
        assert isinstance(weight, float)
        assert weight * PIXELS / 2 / divisor == pytest.approx(EIGENVALUES[-1] / 10, rel=0.05)
        cured = at_weight(kld_reduction=reduction, kld_weight=weight)
        assert diagnose(replace(cured, recon_loss=0.0042)) == ()
    # A schedule that ends at half of the weight needs twice the weight.
    full, half = (
        diagnose(replace(at_weight(kld_weight=2.5), config=config(**options)))[0].value
        for options in ({"kld_weight": 2.5}, {"kld_weight": 5.0, "kld_anneal_end": 0.5})
    )
    assert half == pytest.approx(2 * float(full), rel=0.05)


EARLY = {"kld_anneal_strategy": "linear", "epochs": 20}
HEALTHY: dict[str, RunStatistics] = {
    "healthy": run(),
    "unfinished": run(finished=False),
    "nothing known": RunStatistics(config=config()),
    "no eigenvalues": replace(at_weight(kld_weight=2.5), eigenvalues=()),
    "a weight on its way up": replace(at_weight(kld_weight=2.5, **EARLY), epochs=9),
    # Epoch 12 of 20 is early in a cycle of 5.
    "a low weight early in a cycle": replace(
        SICK["almost no KLD weight"][0], epochs=12, finished=False
    ),
    "wide codes at a weight that holds them": run(variance=(3.0,) * LATENT),
    "a slow start": run(
        history=tuple(epoch(0.2 * 0.97**e) for e in range(12)), epochs=12, finished=False
    ),
    "noise of the codes at a rising weight": run(
        config=config(kld_weight=0.01), history=RISING, finished=False, **codes(0.96)
    ),
    "a gap between training and validation": run(
        history=tuple(epoch(val_recon=0.008, val_loss=0.02) for _ in range(20))
    ),
    "improving but unfinished": run(history=IMPROVING, finished=False),
}  # fmt: skip


@pytest.mark.parametrize("healthy", HEALTHY.values(), ids=HEALTHY)
def test_there_is_no_advice_without_a_problem(healthy: RunStatistics) -> None:
    assert diagnose(healthy) == ()


def test_errors_that_rise_with_the_weight_are_not_overfitting() -> None:
    both = tuple(replace(e, clean_recon=e.val_recon / 1.6) for e in OVERFITTED)
    assert all(advice.code != "overfitting" for advice in diagnose(run(history=both)))


def test_a_weight_that_collapses_everything_is_not_blamed_on_the_learning_rate() -> None:
    mean = tuple(epoch(0.05) for _ in range(20))
    for weight in (2.5, 0.25):
        assert only(diagnose(at_weight(mean, kld_weight=weight)), "kld_weight_high")
    assert only(diagnose(run(history=mean)), "learning_rate_high")


def test_a_bad_learning_rate_hides_everything_that_may_follow_from_it() -> None:
    both = run(config=config(learning_rate=0.5, kld_weight=1e-9), history=USELESS)
    assert only(diagnose(both), "learning_rate_high")
    code_and_data = at_weight(OVERFITTED, kld_weight=2.5, augmentation="none")
    assert [advice.code for advice in diagnose(code_and_data)] == ["kld_weight_high", "overfitting"]


def test_unknown_eigenvalues_follow_the_usual_decay() -> None:
    sick = at_weight(kld_weight=2.5)
    assert diagnose(replace(sick, eigenvalues=EIGENVALUES[:4])) == diagnose(sick)


def test_the_side_is_not_judged() -> None:
    """Its code is fixed; in a code of three it would be a third of the dimensions."""
    kld, variance = codes()["kld_per_dimension"][:2], (0.9, 0.9)
    three = run(
        config=config(latent_dim=3, kld_weight=3.0), kld_per_dimension=(*kld, 2.0),
        variance=(*variance, 0.0), history=(),
    )  # fmt: skip
    assert only(diagnose(three), "kld_weight_high")
    assert diagnose(replace(three, side_dimension=2)) == ()


def test_collapse_is_predicted_before_the_first_step() -> None:
    sick = config(kld_reduction="sum", kld_weight=0.001)
    advice = predict_collapse(RunStatistics(sick, eigenvalues=EIGENVALUES))
    assert advice is not None
    assert (advice.option, advice.value) == ("kld_reduction", "mean")
    assert "about 11 of 16 latent units will stay alive" in advice.message
    assert predict_collapse(RunStatistics(config(), eigenvalues=EIGENVALUES)) is None
    assert predict_collapse(RunStatistics(sick, eigenvalues=(0.0,) * 16)) is None
