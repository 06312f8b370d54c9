"""Run diagnostics: what is wrong with a training run, and which option to change.

The rules for the KLD weight compare it with probabilistic PCA (Tipping and Bishop 1999; Lucas et al.
2019, https://arxiv.org/abs/1911.02469). With D = pixels · channels, w the weight of the summed KLD
and β = w · D / 2 (`model.loss.elbo_beta`), a linear network minimizes mse + w · KLD where

    it keeps a dimension only if the variance λ that it explains, summed over pixels, exceeds β;
    a dimension that it keeps has a KLD of ½ ln(λ / β) nats, and its mu has variance 1 − β / λ;
    the noise of a dimension adds β / D to the mean squared error.

A deep network is not linear, but it keeps and drops dimensions by the same trade-off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np
import torch

from earteach.config import TrainConfig
from earteach.data.arrays import EarArray, sampled_rows
from earteach.data.image_batches import to_batch
from earteach.metrics.latent import ACTIVE_VARIANCE
from earteach.model.annealing import final_kld_weight, kld_weight
from earteach.model.loss import elbo_beta, squared_error
from earteach.model.vae import ConvVAE, reparameterise
from earteach.randomness import validation_noise
from earteach.run_files import RECORDER_STATE

# Younger runs are not judged, and neither are codes of fewer images.
MIN_EPOCHS, MIN_STEPS, MIN_IMAGES = 5, 100, 5
# Trends need more epochs, and compare means over the last few, because single epochs are noisy.
TREND_EPOCHS, WINDOW = 10, 3
# A tenth of the dimensions may be idle in a good run: 240 of 256 active ones are usual.
USED_SHARE = 0.9
# The share of the final KLD weight from which on codes can be too wide for it.
FULLY_ANNEALED = 0.9
# What the last quarter of a run has to gain to be worth continuing.
STILL_FALLING = 0.05


@dataclass(frozen=True)
class Advice:
    """What is wrong, and what to do: set `option`, a key of the configuration, to `value`."""

    code: str
    message: str
    option: str
    value: float | int | str


@dataclass(frozen=True)
class EpochLosses:
    """The losses of one epoch; reconstruction losses are mean squared errors.

    `clean_recon` is that of a few training images without augmentation, at the end of the epoch.
    """

    train_recon: float
    clean_recon: float
    val_recon: float
    val_loss: float
    learning_rate: float


def recorded_history(state: Mapping[str, Any]) -> tuple[EpochLosses, ...]:
    """The epochs that training's `Recorder` stored in a checkpoint's state."""
    recorder = state.get("callbacks", {}).get(RECORDER_STATE, {})
    return tuple(EpochLosses(**epoch) for epoch in recorder.get("history", ()))


def recorded_advice(state: Mapping[str, Any]) -> tuple[Advice, ...] | None:
    """The advice on the last epoch that training's `Recorder` stored; None in older checkpoints."""
    recorder = state.get("callbacks", {}).get(RECORDER_STATE, {})
    if (stored := recorder.get("advice")) is None:
        return None
    return tuple(Advice(**entry) for entry in stored)


class TrainingSubset:
    """Up to 64 training images without augmentation, evenly spread, in memory.

    `mean_image_error` is the mean squared error of the mean image; None for a single image.
    `eigenvalues` are the first ones of PCA in [0, 1], summed over pixels; as many as are accurate.
    """

    def __init__(self, array: EarArray, *, size: int, channels: int) -> None:
        self._rows = sampled_rows(len(array), 64).tolist()
        images = [array.image(row, size=size, channels=channels) for row in self._rows]
        self._images = np.stack(images)
        count = len(images)
        flat = self._images.reshape(count, -1).astype(np.float32) / 255
        flat -= flat.mean(axis=0)
        spectrum = np.linalg.eigvalsh(flat @ flat.T)[::-1] / max(1, count - 1)
        self.mean_image_error = float(spectrum.sum() / images[0].size) if count > 1 else None
        # Only the first quarter is accurate.
        self.eigenvalues = tuple(spectrum[: count // 4].tolist())

    def reconstruction_loss(self, network: ConvVAE, *, seed: int, batch_size: int) -> float:
        """Mean squared error of reconstructions from noisy codes, as in validation."""
        device, total = next(network.parameters()).device, 0.0
        for start in range(0, len(self._rows), batch_size):
            batch = slice(start, start + batch_size)
            images = to_batch(self._images[batch]).to(device)
            noise = validation_noise(seed, self._rows[batch], network.latent_dim).to(device)
            with torch.no_grad():
                decoded = network.decode(reparameterise(*network.encode(images), noise))
                total += float(squared_error(decoded, images).sum())
        return total / len(self._rows)


@dataclass(frozen=True)
class RunStatistics:
    """What the rules judge a run by; None or empty where unknown.

    `kld_per_dimension` (nats), `variance` (of mu) and `recon_loss` are measured on `images` validation
    images. `mean_image_error` and `eigenvalues` are those of a `TrainingSubset`. The code of
    `side_dimension` is fixed, so the rules leave it out.
    """

    config: TrainConfig
    epochs: int = 0
    steps: int = 0
    finished: bool = False
    history: tuple[EpochLosses, ...] = ()
    images: int = 0
    kld_per_dimension: tuple[float, ...] = ()
    variance: tuple[float, ...] = ()
    recon_loss: float | None = None
    mean_image_error: float | None = None
    eigenvalues: tuple[float, ...] = ()
    side_dimension: int | None = None

    @property
    def latent_dim(self) -> int:
        """The number of latent dimensions without the side."""
        return self.config.model.latent_dim - (self.side_dimension is not None)

    def without_side(self, values: Sequence[float]) -> list[float]:
        """The values of a code without that of the side."""
        return [value for index, value in enumerate(values) if index != self.side_dimension]

    @property
    def annealed(self) -> float:
        """The current KLD weight as a share of the final one."""
        kld, final = self.config.kld, final_kld_weight(self.config.kld)
        current = kld_weight(max(0, self.epochs - 1), self.config.optim.epochs, kld)
        return current / final if final else 1.0

    @property
    def beta(self) -> float:
        """The final KLD weight in ELBO units."""
        return self.beta_of(final_kld_weight(self.config.kld))

    def beta_of(self, weight: float) -> float:
        latent_dim = self.config.model.latent_dim
        return elbo_beta(weight, self.config.kld.kld_reduction, latent_dim, self.pixels)

    @property
    def pixels(self) -> int:
        """Pixels times channels."""
        return self.config.model.in_channels * self.config.model.image_size**2

    @property
    def path(self) -> float:
        """The sum of the learning rates of all steps."""
        return fmean(epoch.learning_rate for epoch in self.history) * self.steps

    def eigenvalue(self, rank: int) -> float:
        """The variance that the dimension of this rank (from 1) explains in a linear network.

        Unknown ones fall as rank^−1.7, as those of ear photographs do: from the 16th of 64 photographs,
        this predicts the 256th of 11,800 to within 30 %.
        """
        known = min(rank, len(self.eigenvalues))
        return self.eigenvalues[known - 1] * (known / rank) ** 1.7

    @property
    def kept(self) -> int:
        """The number of dimensions that a linear network keeps at the final weight."""
        return sum(self.eigenvalue(rank) > self.beta for rank in range(1, self.latent_dim + 1))

    def recent(self, name: str) -> float:
        """The mean of a loss over the last epochs."""
        return fmean(getattr(epoch, name) for epoch in self.history[-WINDOW:])


def diagnose(run: RunStatistics) -> tuple[Advice, ...]:
    """What is wrong with a run, the most serious first; empty for a healthy or a young run.

    The length of the run is judged only once it has `finished`.
    """
    if run.epochs < MIN_EPOCHS or run.steps < MIN_STEPS:
        return ()
    if rate := _learning_rate_low(run) or _learning_rate_high(run):
        return (rate,)  # everything else may follow from it
    trend = len(run.history) >= TREND_EPOCHS
    measured = run.variance and run.kld_per_dimension and run.recon_loss and run.eigenvalues
    code = measured and run.images >= MIN_IMAGES and (_weight_high(run) or _weight_low(run))
    advice = [entry for entry in (code, trend and _overfitting(run)) if entry]
    if not advice and trend and run.finished:
        advice = [entry for entry in (_still_improving(run) or _plateau(run),) if entry]
    return tuple(advice)


def predict_collapse(run: RunStatistics) -> Advice | None:
    """The advice of `diagnose` on a KLD weight that is too high, before the first step."""
    kept, latent_dim = run.kept, run.latent_dim
    if kept >= USED_SHARE * latent_dim or run.eigenvalue(latent_dim) <= 0:
        return None
    return _lower_weight(run, f"about {kept} of {latent_dim} latent units will stay alive:")


def _advise(
    run: RunStatistics, code: str, problem: str, option: str, value: Any, more: str = ""
) -> Advice:
    values = (value, run.config.resolved_options()[option])
    new, now = (f"{each:g}" if isinstance(each, float) else each for each in values)
    flag = f"--{option.replace('_', '-')}"
    return Advice(code, f"{problem}; try {flag} {new} instead of {now}{more}", option, value)


def _weight_high(run: RunStatistics) -> Advice | None:
    """β exceeds what dimensions explain, so the network drops them or drowns them in noise."""
    if run.annealed < 0.5 or run.kept == run.latent_dim:
        return None
    depth = median(run.without_side(run.kld_per_dimension))
    active = sum(value > ACTIVE_VARIANCE for value in run.without_side(run.variance))
    if active < USED_SHARE * run.latent_dim:
        symptom = f"only {active} of {run.latent_dim} latent dimensions are active"
    # A code that starts as PCA drops no dimension: all of them become noisy. At 1 nat the noise has
    # over a third of the code's standard deviation.
    elif depth < 1 and run.kept < run.latent_dim / 2:
        symptom = f"the median latent dimension, with {depth:.2g} nats, is mostly noise"
    else:
        return None
    return _lower_weight(run, f"collapse: {symptom}, and")


def _lower_weight(run: RunStatistics, symptom: str) -> Advice:
    """Bring β below what every dimension explains."""
    mean_beta = run.beta / run.config.model.latent_dim
    problem = (
        f"{symptom} β, {run.beta:.2g} in ELBO units, exceeds what "
        f"{run.latent_dim - run.kept} of {run.latent_dim} dimensions each explain"
    )
    # A margin of 3, not 10, will do: this saves the user from choosing a number.
    if run.config.kld.kld_reduction == "sum" and mean_beta * 3 <= run.eigenvalue(run.latent_dim):
        more = f", which makes β {mean_beta:.2g}"
        return _advise(run, "kld_weight_high", problem, "kld_reduction", "mean", more)
    return _other_weight(run, "kld_weight_high", problem)


def _other_weight(run: RunStatistics, code: str, problem: str) -> Advice:
    """The weight whose final β is a tenth of the smallest eigenvalue, to two digits.

    That dimension's mu then has variance 0.9, and 1.2 nats.
    """
    beta = run.eigenvalue(run.latent_dim) / 10
    weight = _rounded(beta / run.beta_of(run.config.kld.kld_anneal_end or 1.0))
    more = f", which makes β {beta:.2g} in ELBO units"
    return _advise(run, code, problem, "kld_weight", weight, more)


def _weight_low(run: RunStatistics) -> Advice | None:
    """β is so small that nothing keeps the codes near the prior."""
    # At the default weight, the smallest eigenvalue is 3 to 250 times β.
    if run.annealed < FULLY_ANNEALED or run.eigenvalue(run.latent_dim) < 1000 * run.beta:
        return None
    klds = run.without_side(run.kld_per_dimension)
    weighted = run.beta * 2 / run.pixels * sum(klds)
    share = weighted / (weighted + (run.recon_loss or 0.0))
    if (depth := median(klds)) > math.log(100):  # the noise has a hundredth of the code's deviation
        symptom = f"the median latent dimension, with {depth:.1f} nats, has almost no noise"
    elif (variance := median(run.without_side(run.variance))) > 2:
        symptom = f"codes have a variance of {variance:.3g}, and the prior has 1"
    elif share < 1e-4:
        symptom = f"the KLD is only {share:.1g} of the loss"
    else:
        return None
    problem = f"the KLD weight is too low: {symptom}, so samples will not look like ears"
    if run.config.kld.kld_anneal_end == 0:
        more = ", which turns the KLD off"
        return _advise(run, "kld_weight_low", problem, "kld_anneal_end", 1.0, more)
    return _other_weight(run, "kld_weight_low", problem)


def _learning_rate_low(run: RunStatistics) -> Advice | None:
    """Steps so small that all of them together change nothing.

    AdamW moves a weight by up to the learning rate per step, and weights are about 0.1.
    """
    optim, history = run.config.optim, run.history
    done = 1.0 if run.finished else run.epochs / optim.epochs
    if len(history) < TREND_EPOCHS or run.path / done > 0.003:
        return None
    problem = (
        f"the learning rate is too low: in {run.steps} steps the error on training images went from "
        f"{history[0].clean_recon:.4g} to {history[-1].clean_recon:.4g}"
    )
    higher = max(_rounded(10 * optim.peak_learning_rate), optim.default_learning_rate)
    return _advise(run, "learning_rate_low", problem, "learning_rate", higher)


def _learning_rate_high(run: RunStatistics) -> Advice | None:
    """Steps so large that they destroy what was learned."""
    # A β near the largest eigenvalue looks the same, to a deep network already at a tenth of it.
    collapsing = run.eigenvalues and run.beta * 10 > run.eigenvalue(1)
    if len(run.history) < MIN_EPOCHS or collapsing:
        return None
    first, last = run.history[0].clean_recon, run.recent("clean_recon")
    noise = run.latent_dim * run.beta / run.pixels  # the error that the noise of the codes adds
    if _nothing_learned(run, last):
        symptom = (
            f"after {len(run.history)} epochs the error on training images is {last:.3g}; that of the "
            f"mean image is {run.mean_image_error:.3g}"
        )
    elif last > 1.2 * first + noise:
        symptom = f"the error on training images rose from {first:.3g} to {last:.3g}"
    elif not (symptom := _scattered_codes(run)):
        return None
    optim, problem = run.config.optim, f"the learning rate is too high: {symptom}"
    lower = _rounded(min(optim.peak_learning_rate / 10, optim.default_learning_rate))
    return _advise(run, "learning_rate_high", problem, "learning_rate", lower)


def _nothing_learned(run: RunStatistics, last: float) -> bool:
    mean = run.mean_image_error
    if mean is None or len(run.history) < TREND_EPOCHS or run.path < 0.1:
        return False
    first = fmean(epoch.clean_recon for epoch in run.history[:WINDOW])
    # An error that still falls is a slow start.
    return last >= max(0.9 * mean, (1 - STILL_FALLING) * first)


def _scattered_codes(run: RunStatistics) -> str:
    """How codes lie 5 nats farther from the prior than the KLD weight allows; empty if they do not."""
    measured = run.kld_per_dimension and run.eigenvalues and run.beta and run.images >= MIN_IMAGES
    if not measured or run.annealed < FULLY_ANNEALED:
        return ""
    middle = run.eigenvalue((run.latent_dim + 1) // 2)
    expected = max(0.0, 0.5 * math.log(middle / run.beta))
    if (depth := median(run.without_side(run.kld_per_dimension))) < expected + 5:
        return ""
    return f"the median latent dimension has {depth:.1f} nats; the KLD weight allows {expected:.1f}"


def _overfitting(run: RunStatistics) -> Advice | None:
    """Training images get better, and validation images get worse or stay much worse."""
    if not (symptom := _rising_validation_error(run) or _stagnant_validation_error(run)):
        return None
    problem = f"overfitting: {symptom}; more images help most"
    strength, channels = run.config.data.augmentation, run.config.model.base_channels
    if strength != "full":
        stronger = "light" if strength == "none" else "full"
        return _advise(run, "overfitting", problem, "augmentation", stronger)
    fewer = max(1, channels // 2)
    return _advise(run, "overfitting", problem, "base_channels", fewer, ", or fewer epochs")


def _rising_validation_error(run: RunStatistics) -> str:
    history = run.history
    best = min(range(len(history)), key=lambda epoch: history[epoch].val_recon)
    lowest, train, val = history[best], run.recent("clean_recon"), run.recent("val_recon")
    if len(history) - best <= WINDOW or val < max(1.5 * train, 1.05 * lowest.val_recon):
        return ""
    if train >= lowest.clean_recon:
        return ""  # the KLD weight rose, which costs training images too
    return (
        f"since epoch {best + 1} the error on training images fell from {lowest.clean_recon:.3g} to "
        f"{train:.3g}, and on validation images it rose from {lowest.val_recon:.3g} to {val:.3g}"
    )


def _stagnant_validation_error(run: RunStatistics) -> str:
    """A network that starts as PCA may memorize few images in its first epoch."""
    half, train, val = len(run.history) // 2, run.recent("clean_recon"), run.recent("val_recon")
    before = min(epoch.val_recon for epoch in run.history[:half])
    since = min(epoch.val_recon for epoch in run.history[half:])
    if val < 5 * train or since < 0.98 * before:
        return ""
    return (
        f"the error on validation images, {val:.3g}, is {val / train:.0f} times that on training "
        "images and does not fall"
    )


def _still_improving(run: RunStatistics) -> Advice | None:
    quarter, epochs = len(run.history) // 4, 2 * len(run.history)
    before = fmean(epoch.val_loss for epoch in run.history[-quarter - WINDOW : -quarter])
    last = run.recent("val_loss")
    if last > (1 - STILL_FALLING) * before:
        return None
    message = (
        f"still improving: the validation loss fell by {1 - last / before:.0%} in the last {quarter} "
        f"epochs; try `earteach resume --epochs {epochs}`"
    )
    return Advice("still_improving", message, "epochs", epochs)


def _plateau(run: RunStatistics) -> Advice | None:
    history = run.history
    best = min(range(len(history)), key=lambda epoch: history[epoch].val_loss)
    since, lower = len(history) - 1 - best, _rounded(run.config.optim.peak_learning_rate / 3)
    if since < 20 or best > len(history) / 3:
        return None
    problem = (
        f"early plateau: the validation loss was lowest, {history[best].val_loss:.4g}, in epoch "
        f"{best + 1}, and the {since} epochs since brought no improvement"
    )
    return _advise(run, "plateau", problem, "learning_rate", lower, ", or fewer epochs")


def _rounded(value: float) -> float:
    """To two digits, as users type options."""
    return float(f"{value:.2g}")
