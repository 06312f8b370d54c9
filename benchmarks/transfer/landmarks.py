"""A heat-map landmarker on a backbone, trained as `earteach landmarks --train` trains its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from earteach.data.manifest import beside
from earteach.inference.landmark_training import (
    RATE,
    STEPS,
    Find,
    LabelledEars,
    errors,
    learn,
    varied_batches,
)  # fmt: skip
from earteach.model.landmark_head import LabelledHeat, LandmarkHead, heat_map_loss


def read(array: Path) -> LabelledEars:
    """The array and the `*_landmarks.npy` beside it, as `earteach prepare` writes them."""
    images = torch.from_numpy(np.load(array)).permute(0, 3, 1, 2)
    return LabelledEars(images, torch.from_numpy(np.load(beside(array, "landmarks.npy"))).float())


class Landmarker(nn.Module):
    """The heat maps `(B, K, H, W)` of the landmarks in images, from the maps of a backbone."""

    def __init__(self, backbone: nn.Module, landmarks: int) -> None:
        super().__init__()
        self.backbone = backbone
        assert isinstance(backbone.out_channels, int)
        self.head = LandmarkHead(backbone.out_channels, landmarks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        heat: torch.Tensor = self.head(list(self.backbone(images).values()))
        return heat


def train(
    backbone: nn.Module,
    ears: LabelledEars,
    *,
    backbone_rate: float,
    seed: int,
    steps: int = STEPS,
) -> Landmarker:
    """A landmarker trained on strong views of the ears."""
    torch.manual_seed(seed)
    model = Landmarker(backbone, ears.landmarks.shape[1]).train()
    body = [p for p in backbone.parameters() if p.requires_grad]
    groups = [{"params": list(model.head.parameters()), "lr": RATE}]
    groups += [{"params": body, "lr": backbone_rate}] if body else []

    def loss_of(batch: LabelledEars) -> torch.Tensor:
        return heat_map_loss(LabelledHeat(model(batch.images), batch.landmarks))

    list(learn(loss_of, groups, varied_batches(ears, None, seed), steps))
    return model.eval()


def error(find: Find, ears: LabelledEars) -> float:
    """Of the heat maps that `find` gives: the mean distance from the true points.

    In % of the diagonal of the box of each ear's points.
    """
    return float(100 * errors(find, ears).mean())


def choice(total: int, labels: int, seed: int) -> torch.Tensor:
    """The rows of the labelled ears."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:labels]
