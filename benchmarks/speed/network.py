"""A training step at the defaults beside that of the standard recipe, each in a process of its own.

The step: 256 pixels, base 64, batches of 8, bf16, forward and backward with AdamW.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.quality.standard_vae import StandardVAE
from benchmarks.speed.pairs import Pair, Row, in_turn, peak_megabytes
from earteach.config import ModelConfig, OptimConfig, TrainConfig
from earteach.model.build import build_model
from earteach.model.loss import objective, vae_terms
from earteach.model.vae import ConvVAE
from earteach.training.drawn_ears import DrawnEars
from earteach.training.lightning_module import one_pass

LATENT, BASE, SIZE, BATCH = 256, 64, 256, 8
TURNS = 3
KLD_WEIGHT = 0.00025


@dataclass(frozen=True)
class Footprint:
    """Megabytes: the process's peak beyond its imports, and a checkpoint."""

    peak: float
    checkpoint: float


class Earteach:
    """One step as `earteach train` takes it, its moving average included."""

    def __init__(self) -> None:
        self.model = build_model(
            ModelConfig(latent_dim=LATENT, base_channels=BASE, image_size=SIZE)
        )
        self.averaged = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)

    def step(self, images: torch.Tensor) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = training_loss(self.model, images)
        descend(self.model, self.optimizer, loss)
        follow(self.averaged, self.model)

    def state(self) -> dict[str, Any]:
        networks = nn.ModuleDict({"model": self.model, "averaged": self.averaged})
        return {"weights": networks.state_dict(), "optimizer": self.optimizer.state_dict()}


class Standard:
    """One step of the standard recipe."""

    def __init__(self) -> None:
        self.model = StandardVAE(LATENT, BASE, SIZE)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)

    def step(self, images: torch.Tensor) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mu, logvar = self.model.encode(images)
            decoded = self.model.decode(mu + torch.randn_like(mu) * torch.exp(0.5 * logvar))
        kld = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(dim=1).mean()
        descend(self.model, self.optimizer, functional.mse_loss(decoded, images) + KLD_WEIGHT * kld)

    def state(self) -> dict[str, Any]:
        return {"weights": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}


@torch.no_grad()
def follow(averaged: nn.Module, model: nn.Module) -> None:
    """A moving average of the weights."""
    ours: list[torch.Tensor] = list(averaged.parameters())
    theirs: list[torch.Tensor] = list(model.parameters())
    torch._foreach_lerp_(ours, theirs, 0.005)


_EARS = DrawnEars(0)


def training_loss(
    model: ConvVAE, images: torch.Tensor, target: torch.Tensor | None = None
) -> torch.Tensor:
    """What `earteach train` lowers, for images `(B, C, S, S)` in [0, 1]."""
    target = images if target is None else target
    noise = torch.randn(len(images), model.latent_dim, device=images.device)
    batch = one_pass(model, images, target, noise, torch.Generator(), _EARS, step=0)
    optim = OptimConfig() if model.pyramid is not None else OptimConfig(teach_weight=0.0)
    terms = vae_terms(TrainConfig(model=model.config, optim=optim), KLD_WEIGHT)
    return objective(terms, {term.name: term.values_of(batch) for term in terms})


def descend(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: torch.Tensor,
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
    optimizer.zero_grad()
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()


RECIPES: dict[str, Callable[[], Earteach | Standard]] = {"earteach": Earteach, "standard": Standard}


def rows(workspace: Path) -> Iterator[Row]:
    images = torch.rand(BATCH, 3, SIZE, SIZE)
    ours, other = Earteach(), Standard()
    beside = "standard recipe"
    pair: Pair = in_turn(lambda: ours.step(images), lambda: other.step(images), TURNS)
    yield pair.row("a step at the defaults", "at most", 0.3, beside)
    of = {name: _footprint_of(name, workspace) for name in RECIPES}
    a, b = of["earteach"], of["standard"]
    yield Row("memory of a step", a.peak, b.peak, "MB", "at most", 0.3, beside)
    yield Row("size of a checkpoint", a.checkpoint, b.checkpoint, "MB", "at most", 0.25, beside)


def _footprint_of(name: str, workspace: Path) -> Footprint:
    """Measured in a fresh process, because a process never returns its peak memory."""
    command = [sys.executable, "-m", "benchmarks.speed.network", name, str(workspace)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Footprint(**json.loads(printed))


def _footprint(name: str, workspace: Path) -> Footprint:
    bare = peak_megabytes()
    recipe = RECIPES[name]()
    for _ in range(2):
        recipe.step(torch.rand(BATCH, 3, SIZE, SIZE))
    peak = peak_megabytes() - bare
    path = workspace / f"{name}.ckpt"
    torch.save(recipe.state(), path)
    return Footprint(peak, path.stat().st_size / 2**20)


if __name__ == "__main__":
    print(json.dumps(asdict(_footprint(sys.argv[1], Path(sys.argv[2])))))
