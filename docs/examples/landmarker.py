"""Train a small heat-map landmarker on drawn ears: from a trained encoder, and from scratch.

    earteach prepare --synthetic 4000 --image-size 64 --out data
    earteach train --train-data data/train_teacher.npy --val-data data/val_teacher.npy \
        --image-size 64 --base-channels 32 --epochs 5 --precision bf16
    python docs/examples/landmarker.py checkpoints --ears 100 --epochs 20

It learns landmarks from ears that the encoder has not seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import earteach
from earteach.synthetic.drawn_ear import draw_ear


class Landmarker(nn.Module):
    """A heat map for each landmark from the backbone's pyramid; its expected place, `(B, K, 2)`."""

    def __init__(self, backbone: earteach.EarBackbone, landmarks: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(backbone.out_channels, landmarks, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        finest, *_ = self.backbone(images).values()
        heat = self.head(finest).flatten(2).softmax(dim=2).unflatten(2, finest.shape[2:])
        places = (torch.arange(finest.shape[3], device=heat.device) + 0.5) / finest.shape[3]
        return torch.stack([heat.sum(dim=2) @ places, heat.sum(dim=3) @ places], dim=2)


def drawn(seed: int, number: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images `(N, 3, S, S)` in [0, 1] and landmarks `(N, 55, 2)` as fractions of them."""
    ears = [draw_ear(seed, index, size) for index in range(number)]
    images = torch.from_numpy(np.stack([ear.image for ear in ears])).permute(0, 3, 1, 2) / 255
    return images, torch.from_numpy(np.stack([ear.landmarks for ear in ears]))


def error(found: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Mean distance of the points over the diagonal of the true ones' box."""
    box = true.amax(dim=1) - true.amin(dim=1)
    return ((found - true).norm(dim=2).mean(dim=1) / box.norm(dim=1)).mean()


def learn(
    model: Landmarker, train: tuple[torch.Tensor, torch.Tensor], test: tuple[torch.Tensor, torch.Tensor],
    epochs: int, batch: int = 10,
) -> Iterator[float]:  # fmt: skip
    """The error on the test ears after each epoch."""
    images, landmarks = train
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trainable, lr=1e-3)
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(images)).split(batch):
            optimiser.zero_grad()
            functional.smooth_l1_loss(model(images[rows]), landmarks[rows], beta=0.01).backward()
            optimiser.step()
        model.eval()
        with torch.inference_mode():
            yield float(error(model(test[0]), test[1]))


def main(checkpoint: Path, ears: int, epochs: int, tests: int) -> dict[str, list[float]]:
    size = earteach.load(checkpoint).image_size
    train, test = (drawn(seed, number, size) for seed, number in ((1001, ears), (1002, tests)))
    starts = {
        "trained, frozen": {"frozen": True},
        "trained, fine-tuned": {"frozen": False},
        "from scratch": {"frozen": False, "weights": False},
    }
    curves = {}
    for name, start in starts.items():
        torch.manual_seed(0)
        backbone = earteach.EarBackbone.from_checkpoint(checkpoint, fpn="trained", **start)
        curves[name] = list(learn(Landmarker(backbone, train[1].shape[1]), train, test, epochs))
        shown = "  ".join(f"{100 * value:.1f}" for value in curves[name])
        print(f"{name:20}{shown}", flush=True)
    return curves


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Landmarks from a trained encoder and from scratch."
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--ears", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--tests", type=int, default=200)
    main(**vars(parser.parse_args()))
