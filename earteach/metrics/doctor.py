"""What is wrong with a run, told from its signs, and which option to change by how much."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from earteach.config import Strength
from earteach.metrics.signs import FEWEST_EPOCHS, FEWEST_STEPS, Epoch, Signs, rounded

# Trends need more; they compare means of the last three epochs, as single ones are noisy.
TREND_EPOCHS, LAST = 10, 3

# A tenth of the dimensions may be idle in a good run: 240 of 256 active ones are usual.
IDLE_SHARE = 0.1
# β is put at a tenth of the least eigenvalue, whose mu then has variance 0.9 and 1.2 nats.
KEPT_MARGIN = 10.0
# Under `mean` a third of the least eigenvalue will do: no number has to be chosen.
MEAN_MARGIN = 3.0
# At one nat the noise has over a third of the code's spread.
SHALLOW_KLD = 1.0
# A deep network drops dimensions before a linear one has to; within a factor of ten it may.
SPECTRUM_DOUBT = 10.0
# A mean squared error that nobody sees: 40 dB.
INVISIBLE = 1e-4
# A dimension of ln 100 nats has noise below a hundredth of the prior's spread, which says nothing.
DEEPEST_KLD = math.log(100)
# The prior has variance 1, and mu has less, as the noise adds its own.
WIDEST_VARIANCE = 2.0
# With less than a ten-thousandth of the loss the KLD has no say in where codes lie.
LEAST_SHARE = 1e-4
# Where even the least eigenvalue is a thousand times β, every dimension is meant to have 3.5 nats and
# more; the default weight has it at 3 to 250 times, whatever the size of images and code.
LEAST_OVER_BETA = 1000.0
# Shares of the final weight from which on the annealed one shows what the final one will do.
HALF_ANNEALED, FULLY_ANNEALED = 0.5, 0.9

# Who does hardly better than the mean image has learned nothing of single ears.
NOTHING_LEARNED = 0.9
# The error of an epoch is a mean over many steps: twice the least before means many bad steps, and
# two such epochs are no accident.
JUMP, JUMPS = 2.0, 2
# So many nats over what the weight asks for are not of its making.
NATS_TOO_MANY = 5.0
# Worse than after the first epoch by a fifth, beyond what the noise of the codes explains.
WORSE = 1.2
# AdamW moves a weight by about the learning rate in a step at most, and weights are about 0.1: on a
# way of 0.003 in all they stay what they were, on one of 0.1 they may become anything.
SHORTEST_WAY, LONG_WAY = 0.003, 0.1

# Unseen ears half as bad again as seen ones, and worse than they were.
GAP, RISE = 1.5, 1.05
# Or five times as bad, and no better by a fiftieth in half of the run.
WIDE_GAP, STANDING = 5.0, 0.02
# Noise and occlusion cost something in any run; twice the error says that they cost too much.
AUGMENTED_COST = 2.0
# Means over a few dozen images of seen and unseen ears differ by that much by chance.
ALIKE = 0.15

# What the last quarter of the run gained; for less, as many epochs again are not worth their time.
STILL_FALLING = 0.05
# Best in the first third of the run, and so many epochs without a better one.
EARLY_SHARE, IDLE_EPOCHS = 1 / 3, 20


@dataclass(frozen=True)
class Advice:
    """What was seen and what to do about it: set `option`, a key of the configuration, to `value`."""

    code: str
    message: str
    option: str
    value: float | int | str


def diagnose(signs: Signs) -> tuple[Advice, ...]:
    """What is wrong, the gravest first; empty for a run that is well or too young to be judged.

    Once a run has `finished` its length is judged too.
    """
    if rate := _first(signs, _rate_low, _rate_high):
        return rate  # all else follows from it
    code = _first(signs, _spare_dimensions, _weight_high, _weight_low)
    found = code + _first(signs, _overfitting, _augmentation)
    return found or _first(signs, _still_improving, _plateau)


def _first(signs: Signs, *examinations: Callable[[Signs], Advice | None]) -> tuple[Advice, ...]:
    """The first finding of examinations that exclude each other, if any."""
    findings = (examine(signs) for examine in examinations)
    return tuple(found for found in findings if found is not None)[:1]


# The code


def _weight_high(signs: Signs) -> Advice | None:
    """A β above what dimensions explain, which it drops, or drowns in noise on its way to that."""
    if not (signs.codes_are_known and signs.eigenvalues) or signs.annealed < HALF_ANNEALED:
        return None
    seen = _little_in_use(signs)
    if not seen or signs.kept == signs.latent_dim:
        return None  # if dimensions are idle, it is not the weight that makes them so
    return _lower_weight(signs, f"collapse: {seen}, and")


def foretell(signs: Signs) -> Advice | None:
    """What the weight will do to a code before the first step: the finding of `diagnose`, early."""
    kept, latent_dim = signs.kept, signs.latent_dim
    if kept >= (1 - IDLE_SHARE) * latent_dim or signs.eigenvalue(latent_dim) <= 0:
        return None
    return _lower_weight(signs, f"about {kept} of {latent_dim} latent units will stay alive:")


def _lower_weight(signs: Signs, seen: str) -> Advice:
    """The option that brings β below what every dimension explains; `seen` begins the sentence."""
    kept, beta, least = signs.kept, signs.beta, signs.eigenvalue(signs.latent_dim)
    seen = (
        f"{seen} β, {beta:.2g} in ELBO units, is more than what "
        f"{signs.latent_dim - kept} of {signs.latent_dim} dimensions explain"
    )
    per_dimension = beta / signs.config.model.latent_dim
    if signs.config.kld.kld_reduction == "sum" and per_dimension * MEAN_MARGIN <= least:
        message = f"{seen}; try --kld-reduction mean, which makes β {per_dimension:.2g}"
        return Advice("kld_weight_high", message, "kld_reduction", "mean")
    target = least / KEPT_MARGIN
    weight = signs.weight_of(target)
    message = (
        f"{seen}; try --kld-weight {weight:g} in place of {signs.config.kld.kld_weight:g}, which makes "
        f"β {target:.2g}"
    )
    # Under `mean` β would rise with fewer dimensions.
    if signs.config.kld.kld_reduction == "sum" and kept > 1:
        message += f", or --latent-dim {signs.with_side(kept)} if so many are enough"
    return Advice("kld_weight_high", message, "kld_weight", weight)


def _little_in_use(signs: Signs) -> str:
    """How an unused code shows; empty where the code is used."""
    latent_dim, active = signs.latent_dim, signs.active_units
    if active < (1 - IDLE_SHARE) * latent_dim:
        return f"{active} latent dimensions of {latent_dim} are in use"
    # A code that began as PCA, rotated, does not drop a dimension: all of them get noisy.
    depth = median(signs.klds)
    if depth < SHALLOW_KLD and signs.kept < latent_dim / 2:
        return f"at {depth:.2g} nats a latent dimension is mostly noise"
    return ""


def _spare_dimensions(signs: Signs) -> Advice | None:
    """Idle dimensions that nobody misses."""
    if not signs.codes_are_known or signs.active_units > (1 - IDLE_SHARE) * signs.latent_dim:
        return None
    if (signs.recon_loss or 0.0) > INVISIBLE:
        return None
    active, enough = signs.active_units, signs.with_side(max(1, signs.active_units))
    if enough == signs.config.model.latent_dim:
        return None
    message = (
        f"latent dimensions to spare: {active} of {signs.latent_dim} are in use, and what they miss "
        f"is too little to be seen (a mean squared error of {signs.recon_loss:.2g}); "
        f"--latent-dim {enough} would do"
    )
    return Advice("latent_dim", message, "latent_dim", enough)


def _weight_low(signs: Signs) -> Advice | None:
    """A β so small that nothing holds the codes near the prior."""
    # A weight on its way up is meant to be small.
    if not (signs.codes_are_known and signs.eigenvalues) or signs.annealed < FULLY_ANNEALED:
        return None
    seen, beta, least = _far_from_prior(signs), signs.beta, signs.eigenvalue(signs.latent_dim)
    if not seen or least < LEAST_OVER_BETA * beta:
        return None
    message = (
        f"the KLD weighs too little: {seen}, so samples from the prior will not look like ears"
    )
    if signs.config.kld.kld_anneal_end == 0:
        message += "; try --kld-anneal-end 1 in place of 0, with which no weight has a say"
        return Advice("kld_weight_low", message, "kld_anneal_end", 1.0)
    target = least / KEPT_MARGIN
    weight = signs.weight_of(target)
    message += f"; try --kld-weight {weight:g}, which raises β in ELBO units "
    message += f"from {beta:.2g} to {target:.2g}"
    return Advice("kld_weight_low", message, "kld_weight", weight)


def _far_from_prior(signs: Signs) -> str:
    """What shows that codes are not held near the prior; empty where nothing does."""
    found = []
    if (depth := median(signs.klds)) > DEEPEST_KLD:
        found.append(f"at {depth:.1f} nats a dimension has no noise to speak of")
    if (width := median(signs.variances)) > WIDEST_VARIANCE:
        found.append(f"codes have a variance of {width:.3g} where the prior has 1")
    weighted = signs.beta * 2 / signs.dimensions * sum(signs.klds)
    share = weighted / (weighted + (signs.recon_loss or 0.0))
    if share < LEAST_SHARE:
        found.append(f"it makes {share:.1g} of the loss")
    return " and ".join(found)


# The learning rate


def _rate_low(signs: Signs) -> Advice | None:
    """Steps so short that all of them together lead nowhere."""
    if len(signs.history) < TREND_EPOCHS or signs.steps < FEWEST_STEPS:
        return None
    share = 1.0 if signs.finished else signs.epochs / signs.config.optim.epochs
    if signs.way / share > SHORTEST_WAY:
        return None
    rate = signs.config.optim.peak_learning_rate
    first, last = signs.history[0].clean_recon, signs.history[-1].clean_recon
    higher = max(rounded(10 * rate), signs.config.optim.default_learning_rate)
    message = (
        f"the learning rate is too low: in {signs.steps} steps the error on training images went from "
        f"{first:.4g} to {last:.4g}; try --learning-rate {higher:g} in place of {rate:g}"
    )
    return Advice("learning_rate_low", message, "learning_rate", higher)


def _rate_high(signs: Signs) -> Advice | None:
    """Steps so long that they destroy what was learned."""
    if len(signs.history) < FEWEST_EPOCHS or signs.steps < FEWEST_STEPS:
        return None
    if _weight_may_drop_all(signs):
        return None  # what this looks like is the same
    seen = _nothing_learned(signs) or _jumped(signs) or _worsened(signs) or _codes_thrown(signs)
    if not seen:
        return None
    rate = signs.config.optim.peak_learning_rate
    lower = rounded(min(rate / 10, signs.config.optim.default_learning_rate))
    message = (
        f"the learning rate is too high: {seen}; try --learning-rate {lower:g} in place of {rate:g}"
    )
    return Advice("learning_rate_high", message, "learning_rate", lower)


def _weight_may_drop_all(signs: Signs) -> bool:
    """Whether β comes near the largest eigenvalue, so that it can be why nothing is learned."""
    return bool(signs.eigenvalues) and signs.beta * SPECTRUM_DOUBT > signs.eigenvalue(1)


def _nothing_learned(signs: Signs) -> str:
    history, mean = signs.history, signs.mean_image_error
    if mean is None or len(history) < TREND_EPOCHS or signs.way < LONG_WAY:
        return ""
    first = fmean(epoch.clean_recon for epoch in history[:LAST])
    last = _lately(history, "clean_recon")
    # An error that falls is that of a slow beginning.
    if last < max(NOTHING_LEARNED * mean, (1 - STILL_FALLING) * first):
        return ""
    return (
        f"after {len(history)} epochs the error on training images is {last:.3g}, and the mean image "
        f"would have {mean:.3g}"
    )


def _jumped(signs: Signs) -> str:
    """Epochs thrown back far behind the best one before them, not by noise alone."""
    errors = [epoch.train_recon for epoch in signs.history]
    noise = INVISIBLE + signs.noise
    jumps = [
        place
        for place in range(1, len(errors))
        if errors[place] > max(errors[place - 1], JUMP * min(errors[:place]) + noise)
    ]
    if len(jumps) < JUMPS:
        return ""
    last = jumps[-1]
    return (
        f"the training error jumped {len(jumps)} times, last to {errors[last]:.3g} in epoch {last + 1} "
        f"after {min(errors[:last]):.3g}"
    )


def _worsened(signs: Signs) -> str:
    first, last = signs.history[0].clean_recon, _lately(signs.history, "clean_recon")
    if last < WORSE * first + signs.noise:
        return ""
    return f"the error on training images rose from {first:.3g} to {last:.3g}"


def _codes_thrown(signs: Signs) -> str:
    """Codes much farther from the prior than the weight allows in the long run."""
    if not (signs.codes_are_known and signs.eigenvalues and signs.beta):
        return ""
    if signs.annealed < FULLY_ANNEALED:
        return ""
    middle = signs.eigenvalue((signs.latent_dim + 1) // 2)
    expected = max(0.0, 0.5 * math.log(middle / signs.beta))
    if (seen := median(signs.klds)) < expected + NATS_TOO_MANY:
        return ""
    return (
        f"a dimension of the code has {seen:.1f} nats, where the KLD's weight would leave "
        f"{expected:.1f}"
    )


# Seen and unseen ears


def _overfitting(signs: Signs) -> Advice | None:
    """Seen ears get better, and unseen ones get worse or stay much harder."""
    if len(signs.history) < TREND_EPOCHS or signs.steps < FEWEST_STEPS:
        return None
    if not (seen := _rises(signs.history) or _stands(signs.history)):
        return None
    message = f"overfitting: {seen}; more images would help most, else "
    model, strength = signs.config.model, signs.config.data.augmentation
    stronger: dict[Strength, Strength] = {"none": "light", "light": "full"}
    if (more := stronger.get(strength)) is not None:
        message += f"try --augmentation {more} in place of {strength}"
        return Advice("overfitting", message, "augmentation", more)
    if model.base_channels == 1:
        best = 1 + min(range(len(signs.history)), key=lambda place: signs.history[place].val_recon)
        return Advice("overfitting", f"{message}try --epochs {best}", "epochs", best)
    fewer = model.base_channels // 2
    message += f"try --base-channels {fewer} in place of {model.base_channels}, or fewer epochs"
    return Advice("overfitting", message, "base_channels", fewer)


def _rises(history: Sequence[Epoch]) -> str:
    """How the error on unseen ears rose while that on seen ones fell."""
    best = min(range(len(history)), key=lambda place: history[place].val_recon)
    lowest = history[best]
    seen, unseen = _lately(history, "clean_recon"), _lately(history, "val_recon")
    if len(history) - best <= LAST or unseen < GAP * seen:
        return ""
    # Where seen ears got worse too, it is the weight of the KLD that rose.
    if unseen < RISE * lowest.val_recon or seen >= lowest.clean_recon:
        return ""
    return (
        f"since epoch {best + 1} the error on training images fell from {lowest.clean_recon:.3g} to "
        f"{seen:.3g} and on validation images it rose from {lowest.val_recon:.3g} to {unseen:.3g}"
    )


def _stands(history: Sequence[Epoch]) -> str:
    """How the error on unseen ears stands, far above that on seen ones."""
    half = len(history) // 2
    before = min(epoch.val_recon for epoch in history[:half])
    since = min(epoch.val_recon for epoch in history[half:])
    seen, unseen = _lately(history, "clean_recon"), _lately(history, "val_recon")
    if unseen < WIDE_GAP * seen or since < (1 - STANDING) * before:
        return ""
    return (
        f"the error on validation images, {unseen:.3g}, is {unseen / seen:.0f} times that on training "
        "images and does not fall"
    )


def _augmentation(signs: Signs) -> Advice | None:
    """Augmented ears are hard, and ears as they are equally easy whether seen or not."""
    history, strength = signs.history, signs.config.data.augmentation
    if len(history) < TREND_EPOCHS or signs.steps < FEWEST_STEPS or strength == "none":
        return None
    seen, unseen = _lately(history, "clean_recon"), _lately(history, "val_recon")
    # An epoch's training error is a mean over its steps: compare with the ends of the epoch.
    during = fmean((a.clean_recon + b.clean_recon) / 2 for a, b in pairwise(history[-LAST - 1 :]))
    augmented = _lately(history, "train_recon")
    if augmented < AUGMENTED_COST * during or unseen > (1 + ALIKE) * seen:
        return None
    weaker = "light" if strength == "full" else "none"
    message = (
        f"augmentation holds learning back: the error is {augmented:.3g} on augmented images, "
        f"{augmented / during:.1f} times that on the same ones as they are ({during:.3g}), and unseen "
        f"ears are no harder ({unseen:.3g}); try --augmentation {weaker} in place of {strength}"
    )
    return Advice("augmentation", message, "augmentation", weaker)


# The length of the run


def _still_improving(signs: Signs) -> Advice | None:
    history = signs.history
    if not signs.finished or len(history) < TREND_EPOCHS or signs.steps < FEWEST_STEPS:
        return None
    quarter = len(history) // 4
    before = fmean(epoch.val_loss for epoch in history[-quarter - LAST : -quarter])
    last = _lately(history, "val_loss")
    if last > (1 - STILL_FALLING) * before:
        return None
    epochs = 2 * len(history)
    message = (
        f"still improving: the validation loss fell by {1 - last / before:.0%} in the last {quarter} "
        f"epochs; try `earteach resume --epochs {epochs}`"
    )
    return Advice("still_improving", message, "epochs", epochs)


def _plateau(signs: Signs) -> Advice | None:
    history = signs.history
    if not signs.finished or signs.steps < FEWEST_STEPS:
        return None
    best = min(range(len(history)), key=lambda place: history[place].val_loss, default=0)
    since = len(history) - 1 - best
    if since < IDLE_EPOCHS or best > EARLY_SHARE * len(history):
        return None
    rate = signs.config.optim.peak_learning_rate
    lower = rounded(rate / 3)
    message = (
        f"an early plateau: the validation loss was least, {history[best].val_loss:.4g}, in epoch "
        f"{best + 1}, and {since} more epochs found nothing better; try --learning-rate {lower:g} in "
        f"place of {rate:g}, or fewer epochs"
    )
    return Advice("plateau", message, "learning_rate", lower)


def _lately(history: Sequence[Epoch], name: str) -> float:
    """The mean of a value over the last epochs."""
    return fmean(getattr(epoch, name) for epoch in history[-LAST:])
