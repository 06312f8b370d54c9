"""A plain training loop for the peers, whose clock stops while the model is measured.

The peers get everything that is not earteach's own idea: the same loader (`--augmentation light`),
AdamW, a warm-up and a cosine over the time, clipped gradients, reduced precision, averaged weights.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.quality.kl_autoencoder import KLAutoencoder
from benchmarks.quality.scoring import CHANNELS
from benchmarks.quality.settings import Settings, due_times
from benchmarks.quality.standard_vae import StandardVAE
from earteach.config import TrainConfig
from earteach.data.arrays import EarArray
from earteach.data.loaders import training_loader
from earteach.errors import EarTeachError
from earteach.hardware import precision_on_cpu
from earteach.images import to_float
from earteach.model.loss import dissimilarity, kl_divergence, squared_error

Peer = StandardVAE | KLAutoencoder
_KLD_WEIGHT = 0.00025
_WARMUP_STEPS, _WARMUP_SHARE = 100, 0.1
_EMA_DECAY = 0.995
_WEIGHT_DECAY = 1e-5
_GRADIENT_CLIP = 1.0


@dataclass(frozen=True)
class Recipe:
    """A peer before training. Its loss: MSE per pixel, plus KLD in nats and 1 − SSIM, weighted."""

    model: Peer
    learning_rate: float
    kld_weight: float
    ssim_weight: float


@dataclass(frozen=True)
class Trained:
    """A trained peer with averaged weights; `seconds` excludes measuring."""

    model: Peer
    seconds: float
    steps: int
    images: int


def recipe(name: str, settings: Settings) -> Recipe:
    """The peer of this name with random weights.

    The standard VAE sums the KLD, as its recipe does. AutoencoderKL divides it by the latent dimension,
    as earteach does, and has half the base channels, so that it has no more parameters than the others.
    """
    torch.manual_seed(settings.seed)
    latent_dim, size = settings.latent_dim, settings.image_size
    if name == "vae":
        vae = StandardVAE(latent_dim, settings.base_channels, size)
        return Recipe(vae, settings.vae_learning_rate, _KLD_WEIGHT, settings.peer_ssim_weight)
    autoencoder = KLAutoencoder(latent_dim, max(1, settings.base_channels // 2), size)
    return Recipe(
        autoencoder,
        settings.kl_learning_rate,
        _KLD_WEIGHT / latent_dim,
        settings.peer_ssim_weight,
    )


def train(
    start: Recipe, settings: Settings, device: str, on_due: Callable[[float, Peer], None]
) -> Trained:
    """Train for the settings' time, and call `on_due` at each due time with the clock stopped.

    Raises `EarTeachError` if the loss is not finite.
    """
    model = start.model.to(device).train()
    precision = precision_on_cpu(settings.precision) if device == "cpu" else settings.precision
    average = WeightAverage(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=start.learning_rate, weight_decay=_WEIGHT_DECAY
    )
    due = due_times(settings)
    spent, steps, images = 0.0, 0, 0
    batches = training_batches(settings)
    while spent < settings.seconds:
        began = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = start.learning_rate * schedule(steps, spent / settings.seconds)
        batch = next(batches)
        step(start, optimizer, batch.to(device), precision)
        average.update(steps)
        steps, images = steps + 1, images + len(batch)
        spent += time.monotonic() - began
        if spent >= due[0]:
            on_due(spent, average.model)
            due = [moment for moment in due if moment > spent]
    return Trained(average.model, spent, steps, images)


def step(peer: Recipe, optimizer: torch.optim.Optimizer, x: torch.Tensor, precision: str) -> None:
    """One step on images `(B, 3, S, S)` in [0, 1]."""
    model = peer.model
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
        mu, logvar = model.encode(x)
        decoded = model.decode(mu + torch.exp(0.5 * logvar) * torch.randn_like(mu))
    kld = kl_divergence(mu, logvar).sum(dim=1)
    loss = squared_error(decoded, x).mean() + peer.kld_weight * kld.mean()
    if peer.ssim_weight:
        loss = loss + peer.ssim_weight * dissimilarity(decoded, x).mean()
    # `item` waits for the GPU, so the clock includes the whole step.
    if not math.isfinite(loss.item()):
        raise EarTeachError(
            f"the loss of {type(model).__name__} is not finite; try a lower learning rate"
        )
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), _GRADIENT_CLIP)
    optimizer.step()


def schedule(steps: int, share: float) -> float:
    """Learning rate factor: a cosine over the share of the time spent, after a linear warm-up.

    The warm-up takes 100 steps, or a tenth of the time if that is less.
    """
    warmed = min(1.0, max((steps + 1) / _WARMUP_STEPS, share / _WARMUP_SHARE))
    return warmed * (1 + math.cos(math.pi * min(1.0, share))) / 2


class WeightAverage:
    """An exponential average of weights and BatchNorm statistics, in `model`."""

    def __init__(self, source: Peer) -> None:
        self.model: Peer = copy.deepcopy(source)
        self.model.eval().requires_grad_(False)
        self._pairs = [
            (ours, theirs)
            for ours, theirs in zip(
                self.model.state_dict().values(), source.state_dict().values(), strict=True
            )
            if ours.is_floating_point()
        ]

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Move towards the source after step number `steps`; early steps move further."""
        decay = min(_EMA_DECAY, (1 + steps) / (10 + steps))
        for ours, theirs in self._pairs:
            ours.lerp_(theirs, 1 - decay)


def training_batches(settings: Settings) -> Iterator[torch.Tensor]:
    """Endless batches `(B, 3, S, S)` in [0, 1], as earteach's own loader yields them."""
    options: dict[str, object] = {
        "train_data": settings.train,
        "augmentation": "light",
        "image_size": settings.image_size,
        "in_channels": CHANNELS,
        "batch_size": settings.batch_size,
        "seed": settings.seed,
    }
    if settings.workers is not None:
        options["num_workers"] = settings.workers
    loader = training_loader(TrainConfig().with_options(options), EarArray.open(settings.train))
    for epoch in itertools.count():
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for batch in loader:
            yield to_float(batch["input"])
