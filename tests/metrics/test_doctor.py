"""The doctor on signs made by hand: what it says, when it is silent, and that its numbers are right."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median
from typing import Any

import pytest

from earteach.config import TrainConfig
from earteach.metrics.doctor import Advice, diagnose, foretell
from earteach.metrics.signs import Epoch, Signs

SIZE, LATENT = 32, 16
DIMENSIONS = 3 * SIZE**2
# As photographs of ears have them, in summed pixels.
EIGENVALUES = tuple(100 * rank**-1.7 for rank in range(1, LATENT + 1))
# β 0.02 at the default weight: 0.00025 · 3072 / (2 · 16).
BETA = 0.00025 * DIMENSIONS / (2 * LATENT)


def config(**options: Any) -> TrainConfig:
    plain = {"image_size": SIZE, "latent_dim": LATENT, "epochs": 20, "learning_rate": 1e-3}
    return TrainConfig().with_options({**plain, "lr_schedule": "plateau", **options})


def epoch(recon: float = 0.004, **others: float) -> Epoch:
    return replace(Epoch(recon, recon, recon * 1.05, recon * 1.1, learning_rate=1e-3), **others)


def falling(epochs: int = 20, start: float = 0.02, end: float = 0.004) -> tuple[Epoch, ...]:
    """A curve that has reached its end in half of the epochs."""
    return tuple(epoch(end + (start - end) * math.exp(-12 * e / epochs)) for e in range(epochs))


def codes(*, beta: float = BETA) -> dict[str, tuple[float, ...]]:
    """What a linear network has at this β: KLD ½ ln(λ / β) and variance 1 − β / λ where λ > β."""
    return {
        "kld_per_dimension": tuple(max(0.0, math.log(v / beta) / 2) for v in EIGENVALUES),
        "variance": tuple(max(0.0, 1 - beta / v) for v in EIGENVALUES),
    }


def signs(**changes: Any) -> Signs:
    """A run that is well, changed."""
    well = Signs(
        config=config(), epochs=20, steps=1000, finished=True, history=falling(), images=50,
        recon_loss=0.0042, mean_image_error=0.05, eigenvalues=EIGENVALUES, **codes(),
    )  # fmt: skip
    return replace(well, **changes)


def only(found: tuple[Advice, ...], code: str) -> Advice:
    assert [advice.code for advice in found] == [code]
    return found[0]


def test_a_run_that_is_well_hears_nothing() -> None:
    assert diagnose(signs()) == ()
    assert diagnose(signs(finished=False)) == ()


def test_nothing_known_is_nothing_said() -> None:
    assert diagnose(Signs(config=config())) == ()
    assert diagnose(Signs(config=config(), epochs=20, steps=1000, finished=True)) == ()


def test_advice_names_an_option_and_a_value_that_it_takes() -> None:
    for sick in SICK.values():
        for advice in diagnose(sick):
            # Raises where the option does not take the value.
            changed = config().with_options({advice.option: advice.value})
            assert {o.name: v for _, o, v in changed.options()}[advice.option] == advice.value
            assert "\n" not in advice.message
            flag = "--" + advice.option.replace("_", "-")
            assert f"{flag} {_written(advice.value)}" in advice.message


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def collapsed(**options: Any) -> Signs:
    """What the weight would leave of the code."""
    made = config(**options)
    reduced = made.kld.kld_reduction == "mean"
    beta = made.kld.kld_weight * DIMENSIONS / 2 / (LATENT if reduced else 1)
    return signs(config=made, **codes(beta=beta), recon_loss=0.02, history=())


def test_collapse_under_sum_asks_for_mean() -> None:
    # β 1.5 drops the ranks from 12 on; a sixteenth of it keeps the last one ten times over.
    advice = only(diagnose(collapsed(kld_reduction="sum", kld_weight=0.001)), "kld_weight_high")
    assert (advice.option, advice.value) == ("kld_reduction", "mean")
    assert "11 latent dimensions of 16 are in use" in advice.message
    assert "β, 1.5 in ELBO units, is more than what 5 of 16 dimensions explain" in advice.message


def test_collapse_is_foretold_before_the_first_step() -> None:
    sick = config(kld_reduction="sum", kld_weight=0.001)
    advice = foretell(Signs(config=sick, eigenvalues=EIGENVALUES))
    assert advice is not None
    assert (advice.option, advice.value) == ("kld_reduction", "mean")
    assert "about 11 of 16 latent units will stay alive" in advice.message
    assert "β, 1.5 in ELBO units, is more than what 5 of 16 dimensions explain" in advice.message
    assert foretell(Signs(config=config(), eigenvalues=EIGENVALUES)) is None
    assert foretell(Signs(config=sick, eigenvalues=(0.0,) * 16)) is None


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_collapse_asks_for_the_weight_that_keeps_the_last_dimension(reduction: str) -> None:
    sick = collapsed(kld_reduction=reduction, kld_weight=2.5 if reduction == "mean" else 0.16)
    advice = only(diagnose(sick), "kld_weight_high")
    assert advice.option == "kld_weight"
    beta = advice.value * DIMENSIONS / 2 / (LATENT if reduction == "mean" else 1)
    assert beta == pytest.approx(EIGENVALUES[-1] / 10, rel=0.05)
    cured = collapsed(kld_reduction=reduction, kld_weight=advice.value)
    assert diagnose(replace(cured, recon_loss=0.0042)) == ()


def test_the_shares_of_an_annealed_weight_count() -> None:
    """The advised value is what the option takes, and the schedule ends in half of it."""
    sick = collapsed(kld_weight=2.5)
    half = replace(sick, config=config(kld_weight=5.0, kld_anneal_end=0.5))
    values = [only(diagnose(s), "kld_weight_high").value for s in (sick, half)]
    assert values[1] == pytest.approx(2 * values[0], rel=0.05)


def test_eigenvalues_that_are_not_known_follow_the_law() -> None:
    sick = collapsed(kld_weight=2.5)
    few = replace(sick, eigenvalues=EIGENVALUES[:4])
    assert diagnose(few) == diagnose(sick)
    assert diagnose(replace(sick, eigenvalues=())) == ()


def test_idle_dimensions_are_not_the_weights_fault_where_it_would_keep_them() -> None:
    idle = codes()
    idle["variance"] = (*idle["variance"][:8], *[0.0] * 8)
    assert diagnose(signs(**idle)) == ()


def test_codes_that_drown_in_noise_are_a_collapse_though_all_vary() -> None:
    """A network that began as PCA still has the variance of its codes when their noise is as wide."""
    drowned = {"kld_per_dimension": (0.6,) * LATENT, "variance": (0.8,) * LATENT}
    sick = signs(config=config(kld_weight=0.05), **drowned, history=())
    advice = only(diagnose(sick), "kld_weight_high")
    assert "at 0.6 nats a latent dimension is mostly noise" in advice.message
    # β 4.8: 100 · 5^−1.7 is the last that is more.
    assert "more than what 11 of 16 dimensions explain" in advice.message
    assert diagnose(replace(sick, kld_per_dimension=(1.2,) * LATENT)) == ()
    # At β 2 more than half of them are worth their cost.
    assert diagnose(replace(sick, config=config(kld_weight=0.02))) == ()


@pytest.mark.parametrize(("reduction", "side", "fewer"), [
    ("sum", None, "or --latent-dim 5 if"), ("sum", 15, "or --latent-dim 6 if"),
    ("mean", None, None),
])  # fmt: skip
def test_fewer_dimensions_are_a_way_out_where_the_weight_does_not_rise_with_them(
    reduction: str, side: int | None, fewer: str | None
) -> None:
    sick = collapsed(kld_reduction=reduction, kld_weight=0.05 / (16 if reduction == "sum" else 1))
    few = replace(sick, side_dimension=side, eigenvalues=(*EIGENVALUES[:5], *[1e-3] * 11))
    advice = only(diagnose(few), "kld_weight_high")
    assert fewer in advice.message if fewer else "--latent-dim" not in advice.message


@pytest.mark.parametrize("side", [None, 15])
def test_dimensions_to_spare_are_said_where_nothing_is_missed(side: int | None) -> None:
    idle = codes()
    idle["variance"] = (*idle["variance"][:6], *[0.0] * 10)
    spare = signs(**idle, recon_loss=5e-5, history=(), side_dimension=side)
    advice = only(diagnose(spare), "latent_dim")
    assert (advice.option, advice.value) == ("latent_dim", 6 if side is None else 7)


def test_the_only_dimension_is_not_to_spare() -> None:
    idle = {"kld_per_dimension": (0.0,), "variance": (0.0,), "recon_loss": 5e-5}
    assert diagnose(signs(config=config(latent_dim=1, pca_init=False), **idle, history=())) == ()


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_a_weight_on_its_way_up_is_not_judged(share: float) -> None:
    early = {"kld_anneal_strategy": "linear", "epochs": 20}
    sick = collapsed(kld_weight=2.5)
    at = replace(sick, config=config(kld_weight=2.5, **early), epochs=1 + round(19 * share))
    assert diagnose(replace(at, epochs=max(5, at.epochs), finished=False)) == ()
    assert diagnose(replace(at, epochs=20))


def low(**changes: Any) -> Signs:
    made = config(kld_weight=1e-9)
    beta = 1e-9 * DIMENSIONS / 2 / LATENT
    return replace(signs(config=made, **codes(beta=beta)), **changes)


def test_a_weight_that_is_too_low_is_raised_to_where_the_last_dimension_has_its_margin() -> None:
    advice = only(diagnose(low()), "kld_weight_low")
    beta = float(advice.value) * DIMENSIONS / 2 / LATENT
    assert beta == pytest.approx(EIGENVALUES[-1] / 10, rel=0.05)
    middle = median(math.log(value / 9.6e-8) / 2 for value in EIGENVALUES)
    assert f"at {middle:.1f} nats" in advice.message


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"kld_per_dimension": (6.0,) * LATENT}, "6.0 nats"),
        ({"variance": (37.0,) * LATENT}, "a variance of 37"),
        ({"kld_per_dimension": (2.5,) * LATENT}, "of the loss"),
    ],
)
def test_each_sign_of_a_low_weight_is_named(changes: dict[str, Any], seen: str) -> None:
    assert seen in only(diagnose(low(**changes)), "kld_weight_low").message


def test_no_weight_at_all_is_too_low() -> None:
    advice = only(diagnose(signs(config=config(kld_weight=0.0))), "kld_weight_low")
    assert advice.value == pytest.approx(EIGENVALUES[-1] / 10 * 2 / DIMENSIONS * LATENT, rel=0.05)


def test_a_schedule_that_ends_at_no_weight_is_to_end_at_one() -> None:
    advice = only(diagnose(low(config=config(kld_anneal_end=0.0))), "kld_weight_low")
    assert (advice.option, advice.value) == ("kld_anneal_end", 1.0)
    assert "--kld-weight" not in advice.message


def test_a_low_weight_is_judged_at_its_height() -> None:
    # Epoch 11 of 20, of which a cycle takes 5, is the second of its cycle.
    assert diagnose(low(epochs=12, finished=False)) == ()
    assert diagnose(low(epochs=15, finished=False))


def test_wide_codes_at_a_weight_that_holds_them_are_not_its_fault() -> None:
    assert diagnose(signs(variance=(3.0,) * LATENT)) == ()


def test_the_fixed_dimension_of_the_side_says_nothing() -> None:
    """It is idle where all ears look to one side, and would be a third of a code of three."""
    kld = (*(math.log(value / BETA) / 2 for value in EIGENVALUES[:2]), 2.0)
    three = signs(
        config=config(latent_dim=3), kld_per_dimension=kld, variance=(0.9, 0.9, 0.0),
        recon_loss=5e-5,
    )  # fmt: skip
    assert only(diagnose(three), "latent_dim")
    assert diagnose(replace(three, side_dimension=2)) == ()
    assert replace(three, side_dimension=2).klds == list(kld[:2])


def test_a_rate_that_leads_nowhere_is_raised() -> None:
    creeping = tuple(epoch(0.09 - 1e-5 * e, learning_rate=1e-7) for e in range(20))
    advice = only(diagnose(signs(config=config(learning_rate=1e-7), history=creeping)),
                  "learning_rate_low")  # fmt: skip
    assert (advice.option, advice.value) == ("learning_rate", 1e-4)
    assert "0.09 to 0.08981" in advice.message
    # The way to come counts while the run goes on: a tenth of it is behind.
    long = config(learning_rate=1e-6, epochs=200)
    slow = tuple(replace(e, learning_rate=1e-6) for e in creeping)
    assert diagnose(signs(config=long, history=slow, finished=False)) == ()


BROKEN = tuple(epoch(0.2 + 0.001 * (e % 2)) for e in range(20))


def test_a_rate_that_leaves_nothing_but_worse_than_the_mean_image_is_lowered() -> None:
    sick = signs(config=config(learning_rate=0.5), history=BROKEN)
    advice = only(diagnose(sick), "learning_rate_high")
    assert (advice.option, advice.value) == ("learning_rate", 1e-4)
    assert "the mean image would have 0.05" in advice.message
    assert only(diagnose(replace(sick, config=config(learning_rate=1e-4))),
                "learning_rate_high").value == 1e-5  # fmt: skip


def test_a_slow_beginning_is_not_a_high_rate() -> None:
    slow = tuple(epoch(0.2 * 0.97**e) for e in range(12))
    assert diagnose(signs(history=slow, epochs=12, finished=False)) == ()


def test_a_weight_that_drops_all_is_not_a_high_rate() -> None:
    mean = tuple(epoch(0.05) for _ in range(20))
    # β 240, and 24 where the first eigenvalue is 100: a deep network may drop that too.
    for weight in (2.5, 0.25):
        sick = replace(collapsed(kld_weight=weight), history=mean)
        assert only(diagnose(sick), "kld_weight_high")
    assert only(diagnose(signs(history=mean)), "learning_rate_high")


def test_a_training_error_that_jumps_again_and_again_is_a_high_rate() -> None:
    spikes = {8: 0.02, 9: 0.006, 14: 0.03}
    history = list(falling())
    for place, error in spikes.items():
        history[place] = replace(history[place], train_recon=error)
    advice = only(diagnose(signs(history=tuple(history))), "learning_rate_high")
    assert "jumped 2 times, last to 0.03 in epoch 15" in advice.message
    history[14] = falling()[14]
    assert diagnose(signs(history=tuple(history))) == ()  # once is no habit
    invisible = tuple(epoch(4e-5, train_recon=4e-5 if e % 2 else 1.2e-4) for e in range(20))
    assert diagnose(signs(history=invisible)) == ()


def test_an_error_that_rises_from_the_start_is_a_high_rate() -> None:
    rising = tuple(epoch(0.004 * 1.03**e) for e in range(20))
    advice = only(diagnose(signs(history=rising, finished=False)), "learning_rate_high")
    assert "rose from 0.004 to 0.00681" in advice.message
    # The noise of codes that a rising weight widens, 0.01 / 2 in all, is no fault of the rate.
    noisy = signs(config=config(kld_weight=0.01), history=rising, **codes(beta=0.96))
    assert diagnose(replace(noisy, finished=False)) == ()


def test_codes_far_beyond_what_the_weight_allows_are_a_high_rate() -> None:
    thrown = (12.0,) * LATENT
    advice = only(diagnose(signs(kld_per_dimension=thrown)), "learning_rate_high")
    assert f"leave {math.log(EIGENVALUES[7] / BETA) / 2:.1f}" in advice.message


def overfitted(**changes: Any) -> tuple[Epoch, ...]:
    """Best in epoch 9; then seen ears get better and unseen ones worse."""
    return tuple(
        epoch(0.01 * 0.9**e, val_recon=0.01 + 0.001 * abs(e - 8), **changes) for e in range(20)
    )


@pytest.mark.parametrize(
    ("strength", "option", "value"),
    [("none", "augmentation", "light"), ("light", "augmentation", "full"),
     ("full", "base_channels", 32), ("full", "epochs", 9)],
)  # fmt: skip
def test_overfitting_asks_for_more_augmentation_then_a_smaller_network_then_fewer_epochs(
    strength: str, option: str, value: Any
) -> None:
    channels = 1 if option == "epochs" else 64
    made = config(augmentation=strength, base_channels=channels)
    sick = signs(config=made, history=overfitted(), finished=False)
    advice = only(diagnose(sick), "overfitting")
    assert (advice.option, advice.value) == (option, value)
    assert "since epoch 9" in advice.message
    assert "rose from 0.01 to 0.02" in advice.message


def test_an_error_that_rises_with_the_weight_is_not_overfitting() -> None:
    both = tuple(replace(e, clean_recon=e.val_recon / 1.6) for e in overfitted())
    assert all(advice.code != "overfitting" for advice in diagnose(signs(history=both)))


def test_a_gap_alone_is_not_overfitting_unless_it_is_wide_and_stands() -> None:
    def gap(times: float, fall: float) -> tuple[Epoch, ...]:
        return tuple(
            epoch(0.004, val_recon=0.004 * times * (1 - fall * e / 20), val_loss=0.02)
            for e in range(20)
        )

    assert diagnose(signs(history=gap(2, 0))) == ()
    assert diagnose(signs(history=gap(8, 0.3))) == ()
    advice = only(diagnose(signs(history=gap(8, 0))), "overfitting")
    assert "8 times that on training images" in advice.message


def augmented(times: float, unseen: float = 1.05) -> tuple[Epoch, ...]:
    return tuple(
        replace(e, train_recon=e.clean_recon * times, val_recon=e.clean_recon * unseen)
        for e in falling()
    )


@pytest.mark.parametrize(("strength", "weaker"), [("full", "light"), ("light", "none")])
def test_augmentation_that_costs_more_than_the_ears_is_weakened(strength: str, weaker: str) -> None:
    made = config(augmentation=strength)
    advice = only(diagnose(signs(config=made, history=augmented(3))), "augmentation")
    assert (advice.option, advice.value) == ("augmentation", weaker)
    assert "3.0 times" in advice.message
    assert diagnose(signs(config=made, history=augmented(1.6))) == ()
    # Where unseen ears are harder, augmentation is what helps.
    assert diagnose(signs(config=made, history=augmented(3, unseen=1.4))) == ()
    assert diagnose(signs(config=config(augmentation="none"), history=augmented(3))) == ()


def test_a_training_error_of_a_fast_epoch_is_not_augmentation() -> None:
    """It is a mean over the epoch, the clean one is from the end."""
    fast = tuple(
        epoch(0.5**e, train_recon=2.5 * 0.5**e, clean_recon=0.5**e, val_recon=0.5**e)
        for e in range(12)
    )
    found = diagnose(signs(history=fast, epochs=12, finished=False))
    assert all(advice.code != "augmentation" for advice in found)


def test_a_run_that_still_improves_is_to_go_on() -> None:
    improving = tuple(epoch(0.02 * 0.95**e) for e in range(20))
    advice = only(diagnose(signs(history=improving)), "still_improving")
    assert (advice.option, advice.value) == ("epochs", 40)
    assert "earteach resume --epochs 40" in advice.message
    last, before = (sum(0.95**e for e in some) for some in ((17, 18, 19), (12, 13, 14)))
    assert f"fell by {1 - last / before:.0%} in the last 5 epochs" in advice.message
    assert diagnose(signs(history=improving, finished=False)) == ()


def test_an_early_plateau_asks_for_a_lower_rate() -> None:
    flat = tuple(epoch(0.004 if e == 6 else 0.0041) for e in range(30))
    sick = signs(history=flat, epochs=30, config=config(epochs=30))
    advice = only(diagnose(sick), "plateau")
    assert (advice.option, advice.value) == ("learning_rate", 3.3e-4)
    assert "in epoch 7, and 23 more" in advice.message
    assert diagnose(replace(sick, finished=False)) == ()
    # Half of the run is no early plateau: that is how early stopping ends a good one.
    later = tuple(epoch(0.004 if e == 25 else 0.0041) for e in range(50))
    assert diagnose(signs(history=later, epochs=50, config=config(epochs=50))) == ()


SICK = {
    "collapse": collapsed(kld_weight=2.5),
    "collapse under sum": collapsed(kld_reduction="sum", kld_weight=0.001),
    "low": low(),
    "broken": signs(config=config(learning_rate=0.5), history=BROKEN),
    "thrown": signs(kld_per_dimension=(12.0,) * LATENT),
    "overfitted": signs(config=config(augmentation="none"), history=overfitted()),
    "augmented": signs(config=config(augmentation="full"), history=augmented(3)),
    "improving": signs(history=tuple(epoch(0.02 * 0.95**e) for e in range(20))),
}


@pytest.mark.parametrize("name", SICK)
def test_a_young_run_hears_nothing(name: str) -> None:
    """Four epochs, or ten of a few steps: whatever it looks like, it is the beginning."""
    sick = SICK[name]
    assert diagnose(sick) != ()
    young = replace(sick, history=sick.history[:4], epochs=4)
    assert diagnose(young) == ()
    assert diagnose(replace(sick, steps=60)) == ()


@pytest.mark.parametrize("name", ["collapse", "low"])
def test_a_handful_of_images_tells_nothing_of_the_code(name: str) -> None:
    assert diagnose(replace(SICK[name], images=3)) == ()


def test_what_a_bad_rate_does_is_not_blamed_on_other_options() -> None:
    both = signs(config=config(learning_rate=0.5, kld_weight=1e-9), history=BROKEN)
    assert only(diagnose(both), "learning_rate_high")


def test_troubles_of_the_code_and_of_the_data_are_both_said() -> None:
    both = replace(collapsed(kld_weight=2.5, augmentation="none"), history=overfitted())
    assert [advice.code for advice in diagnose(both)] == ["kld_weight_high", "overfitting"]
