"""A trained encoder as the backbone of a detector or landmarker.

>>> backbone = EarBackbone.from_checkpoint("checkpoints", frozen=True, fpn=128)
>>> detector = torchvision.models.detection.FCOS(
...     backbone, num_classes=2, image_mean=[0, 0, 0], image_std=[1, 1, 1])
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torchvision.ops import FeaturePyramidNetwork

from earteach import checkpoint
from earteach.errors import EarTeachError
from earteach.model.blocks import STRIDES
from earteach.model.network_parts import keep_part
from earteach.model.vae import ConvVAE


@dataclass(frozen=True)
class FeatureLevel:
    """One of a backbone's maps: its name in the output, its channels and its stride."""

    name: str
    channels: int
    stride: int


class EarBackbone(nn.Module):
    """Images `(B, C, H, W)` in [0, 1], of any size, to a dict of maps, finest first.

    `strides` selects from 2, 4, 8 and 16; `feature_info` lists the maps. `fpn` adds a new, trainable
    feature pyramid (Lin et al. 2017, https://arxiv.org/abs/1612.03144) with that many channels.
    `out_channels`, which torchvision's detectors need, exists where all maps have equally many
    channels: with `fpn`, or with a single stride.

    A `frozen` encoder keeps its weights and computes no gradients, neither for them nor for images.
    """

    def __init__(
        self,
        network: ConvVAE,
        *,
        frozen: bool = True,
        strides: Sequence[int] = STRIDES,
        fpn: int | None = None,
    ) -> None:
        super().__init__()
        chosen = sorted(set(strides))
        if not chosen or not set(chosen) <= set(STRIDES):
            raise EarTeachError(f"strides {tuple(strides)}: must be a subset of {STRIDES}")
        self.frozen = frozen
        # A copy, without weights that would get no gradients.
        self.network = keep_part(copy.deepcopy(network), "features", "EarBackbone")
        self.network.requires_grad_(not frozen)
        widths = dict(zip(STRIDES, network.feature_channels, strict=True))
        inputs = [widths[stride] for stride in chosen]
        self.pyramid = None if fpn is None else FeaturePyramidNetwork(inputs, fpn)
        self.feature_info = tuple(
            FeatureLevel(f"stride{stride}", fpn or widths[stride], stride) for stride in chosen
        )
        channels = {level.channels for level in self.feature_info}
        if len(channels) == 1:
            self.out_channels = channels.pop()

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        frozen: bool = True,
        strides: Sequence[int] = STRIDES,
        fpn: int | None = None,
    ) -> EarBackbone:
        """The encoder in a checkpoint, or in a folder's best checkpoint.

        Raises `EarTeachError` where there is none or it cannot be read.
        """
        return cls(checkpoint.load(path), frozen=frozen, strides=strides, fpn=fpn)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad() if self.frozen else nullcontext():
            maps = dict(zip(STRIDES, self.network.features(images), strict=True))
        selected = {level.name: maps[level.stride] for level in self.feature_info}
        return selected if self.pyramid is None else self.pyramid(selected)

    def train(self, mode: bool = True) -> EarBackbone:
        """As torch's, but a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self
