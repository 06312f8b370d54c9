"""A heat-map landmarker on a backbone, trained on few labelled ears and measured on others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from earteach.data.manifest import beside

STEPS, BATCH, HEAD_RATE, WARMUP = 450, 16, 1e-3, 20
# Degrees, log scale, shift in half sides; relative changes of brightness and contrast.
ROTATION, SCALE, SHIFT, TONE = 20.0, 0.15, 0.08, 0.2


@dataclass(frozen=True)
class LabelledEars:
    """Images `(N, C, S, S)` in [0, 1], and landmarks `(N, K, 2)` as fractions of the sides."""

    images: torch.Tensor
    landmarks: torch.Tensor

    @classmethod
    def read(cls, array: Path) -> LabelledEars:
        """The array and the `*_landmarks.npy` beside it, as `earteach prepare` writes them."""
        images = torch.from_numpy(np.load(array)).permute(0, 3, 1, 2).float() / 255
        return cls(images, torch.from_numpy(np.load(beside(array, "landmarks.npy"))).float())

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, rows: torch.Tensor) -> LabelledEars:
        return LabelledEars(self.images[rows], self.landmarks[rows])


class Landmarker(nn.Module):
    """A heat map for each landmark, from the sum of a pyramid's maps; its mean place `(B, K, 2)`."""

    def __init__(self, backbone: nn.Module, landmarks: int) -> None:
        super().__init__()
        self.backbone = backbone
        channels = backbone.out_channels
        assert isinstance(channels, int)
        self.head = nn.Sequential(
            nn.Conv2d(channels, 64, 3, padding=1),
            nn.GroupNorm(8, 64),
            nn.SiLU(),
            nn.Conv2d(64, landmarks, 1),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        finest, *coarser = self.backbone(images).values()
        size = finest.shape[2:]
        summed = finest + sum(
            functional.interpolate(level, size, mode="bilinear", align_corners=False)
            for level in coarser
        )
        heat = self.head(summed).flatten(2).softmax(dim=2).unflatten(2, size)
        rows, columns = ((torch.arange(side) + 0.5) / side for side in size)
        across, down = (heat.sum(dim=2) * columns).sum(dim=2), (heat.sum(dim=3) * rows).sum(dim=2)
        return torch.stack([across, down], dim=2)


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


def learn(
    backbone: nn.Module,
    ears: LabelledEars,
    *,
    backbone_rate: float,
    seed: int,
    steps: int = STEPS,
) -> Landmarker:
    """Train a landmarker on the ears with AdamW, a short warm-up and a cosine."""
    torch.manual_seed(seed)
    model = Landmarker(backbone, ears.landmarks.shape[1]).train()
    generator = torch.Generator().manual_seed(seed)
    body = [p for p in backbone.parameters() if p.requires_grad]
    groups = [{"params": list(model.head.parameters()), "lr": HEAD_RATE}]
    groups += [{"params": body, "lr": backbone_rate}] if body else []
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, steps))
    for _ in range(steps):
        rows = torch.randint(len(ears), (BATCH,), generator=generator)
        batch = varied(ears.rows(rows), generator)
        loss = (model(batch.images) - batch.landmarks).norm(dim=2).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


def _share(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / WARMUP) * (
        0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2
    )


@torch.inference_mode()
def error(model: Landmarker, ears: LabelledEars) -> float:
    """Mean distance of the points, in % of the diagonal of the true points' box, mean over ears."""
    model.eval()
    found = torch.cat([model(images) for images in torch.split(ears.images, 64)])
    box = ears.landmarks.amax(dim=1) - ears.landmarks.amin(dim=1)
    distances = (found - ears.landmarks).norm(dim=2).mean(dim=1)
    return float((100 * distances / box.norm(dim=1)).mean())


def choice(total: int, labels: int, seed: int) -> torch.Tensor:
    """The rows of the labelled ears."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:labels]
