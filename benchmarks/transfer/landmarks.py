"""A heat-map landmarker on a backbone, trained on few labelled ears and measured on others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from earteach.data.manifest import beside
from earteach.inference.landmark_training import BATCH, RATE, STEPS, LabelledEars, learn
from earteach.metrics.linear_probes import point_errors
from earteach.model.landmark_head import LandmarkHead, places_in

# Degrees, log scale, shift in half sides; relative changes of brightness and contrast.
ROTATION, SCALE, SHIFT, TONE = 20.0, 0.15, 0.08, 0.2


def read(array: Path) -> LabelledEars:
    """The array, as float32, and the `*_landmarks.npy` beside it, as `earteach prepare` writes them."""
    images = torch.from_numpy(np.load(array)).permute(0, 3, 1, 2).float() / 255
    return LabelledEars(images, torch.from_numpy(np.load(beside(array, "landmarks.npy"))).float())


class Landmarker(nn.Module):
    """The landmarks `(B, K, 2)` of images, from the maps of a backbone."""

    def __init__(self, backbone: nn.Module, landmarks: int) -> None:
        super().__init__()
        self.backbone = backbone
        assert isinstance(backbone.out_channels, int)
        self.head = LandmarkHead(backbone.out_channels, landmarks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return places_in(self.head(list(self.backbone(images).values()))).points


def varied(ears: LabelledEars, generator: torch.Generator) -> LabelledEars:
    """The ears turned, scaled, shifted and, one in two, mirrored, in other light.

    Mirrored, a left ear is a right one: a few labels rarely show both sides well.
    """
    count = len(ears)

    def uniform(*shape: int) -> torch.Tensor:
        return 2 * torch.rand(count, *shape, generator=generator) - 1

    angle, scale = math.radians(ROTATION) * uniform(), torch.exp(SCALE * uniform())
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    mirror = torch.where(uniform() < 0, -1.0, 1.0)
    linear = torch.stack([cos * mirror, -sin, sin * mirror, cos], dim=1).reshape(-1, 2, 2)
    shift = SHIFT * uniform(2)
    grid = functional.affine_grid(
        torch.cat([linear, shift[:, :, None]], dim=2), list(ears.images.shape), align_corners=False
    )
    images = functional.grid_sample(
        ears.images, grid, padding_mode="reflection", align_corners=False
    )
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * (1 + TONE * uniform(1, 1, 1)) + 0.5 * TONE * uniform(1, 1, 1)
    points = torch.linalg.solve(linear, (2 * ears.landmarks - 1 - shift[:, None]).transpose(1, 2))
    return LabelledEars(images.clamp(0, 1), (points.transpose(1, 2) + 1) / 2)


def train(
    backbone: nn.Module,
    ears: LabelledEars,
    *,
    backbone_rate: float,
    seed: int,
    steps: int = STEPS,
) -> Landmarker:
    """A landmarker trained on the ears; its loss is the mean distance of the points."""
    torch.manual_seed(seed)
    model = Landmarker(backbone, ears.landmarks.shape[1]).train()
    body = [p for p in backbone.parameters() if p.requires_grad]
    groups = [{"params": list(model.head.parameters()), "lr": RATE}]
    groups += [{"params": body, "lr": backbone_rate}] if body else []

    def loss_of(batch: LabelledEars) -> torch.Tensor:
        return (model(batch.images) - batch.landmarks).norm(dim=2).mean()

    list(learn(loss_of, groups, _batches(ears, seed), steps))
    return model.eval()


def _batches(ears: LabelledEars, seed: int) -> Iterator[LabelledEars]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        rows = torch.randint(len(ears), (BATCH,), generator=generator)
        yield varied(ears.rows(rows), generator)


@torch.inference_mode()
def error(find: Callable[[torch.Tensor], torch.Tensor], ears: LabelledEars) -> float:
    """Mean distance of the points that `find` gives, in % of the diagonal of the true points' box."""
    points = torch.cat([find(images) for images in torch.split(ears.images, 64)])
    return float(100 * point_errors(points.numpy(), ears.landmarks.numpy()).mean())


def choice(total: int, labels: int, seed: int) -> torch.Tensor:
    """The rows of the labelled ears."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:labels]
