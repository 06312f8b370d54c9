"""A training step at the defaults beside that of the standard recipe, each in a process of its own.

The step: 256 pixels, base 64, batches of 32, bf16, forward and backward with AdamW.
"""

from __future__ import annotations

import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.quality.standard_vae import StandardVAE
from benchmarks.speed.pairs import Row, peak_megabytes
from earteach.config import ModelConfig, OptimConfig, TrainConfig
from earteach.hardware import reuse_freed_memory
from earteach.model.build import build_model
from earteach.model.loss import objective, vae_terms
from earteach.model.vae import ConvVAE
from earteach.training.drawn_ears import DrawnEars
from earteach.training.lightning_module import one_pass

LATENT, BASE, SIZE, BATCH = 256, 64, 256, 32
TURNS, STEPS = 2, 3
KLD_WEIGHT = 0.00025


@dataclass(frozen=True)
class Footprint:
    """Seconds of a step; megabytes of the process's peak beyond its imports, and of a checkpoint."""

    seconds: float
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
    a, b, c = _in_turn(workspace, ("earteach", "reuse"), ("standard", ""), ("standard", "reuse"))
    beside = "standard recipe"
    yield Row("a step at the defaults", a.seconds, b.seconds, "s", "at most", 0.3, beside)
    yield Row("memory of a step", a.peak, b.peak, "MB", "at most", 0.3, beside)
    beside += ", which keeps freed memory, too"
    yield Row("a step at the defaults", a.seconds, c.seconds, "s", "at most", 0.3, beside)
    yield Row("memory of a step", a.peak, c.peak, "MB", "at most", 0.3, beside)
    sizes = (a.checkpoint, b.checkpoint)
    yield Row("size of a checkpoint", *sizes, "MB", "at most", 0.25, "standard recipe")


def _in_turn(workspace: Path, *recipes: tuple[str, str]) -> list[Footprint]:
    """Of each recipe its fastest turn, each in a fresh process: none returns its peak memory."""
    turns = [[_footprint_of(*recipe, workspace) for recipe in recipes] for _ in range(TURNS)]
    return [min(of_one, key=lambda turn: turn.seconds) for of_one in zip(*turns, strict=True)]


def _footprint_of(name: str, memory: str, workspace: Path) -> Footprint:
    command = [sys.executable, "-m", "benchmarks.speed.network", name, memory, str(workspace)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Footprint(**json.loads(printed))


def _footprint(name: str, memory: str, workspace: Path) -> Footprint:
    if memory == "reuse":  # as `earteach train` does
        reuse_freed_memory()
    bare = peak_megabytes()
    recipe = RECIPES[name]()
    seconds = []
    for _ in range(1 + STEPS):
        images = torch.rand(BATCH, 3, SIZE, SIZE)
        began = time.perf_counter()
        recipe.step(images)
        seconds.append(time.perf_counter() - began)
    peak = peak_megabytes() - bare
    path = workspace / f"{name}.ckpt"
    torch.save(recipe.state(), path)
    return Footprint(statistics.median(seconds[1:]), peak, path.stat().st_size / 2**20)


if __name__ == "__main__":
    print(json.dumps(asdict(_footprint(sys.argv[1], sys.argv[2], Path(sys.argv[3])))))
