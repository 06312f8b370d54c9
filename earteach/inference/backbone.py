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
from earteach.model.encoder_decoder import MobileEncoder
from earteach.model.vae import EarVAE


@dataclass(frozen=True)
class FeatureLevel:
    """One of a backbone's maps: its name in the output, its channels and its stride."""

    name: str
    channels: int
    stride: int


class EarBackbone(nn.Module):
    """Images `(B, C, H, W)` in [0, 1], of any size, to a dict of maps, finest first.

    `feature_info` lists the maps. `strides` chooses some of 2, 4, 8 and 16. With `fpn` the maps go
    through a feature pyramid (Lin et al. 2017, https://arxiv.org/abs/1612.03144) of so many channels,
    which is new and always learns. `out_channels`, which torchvision's detectors ask for, is there where
    all maps have as many channels: with `fpn`, or with one stride.

    A `frozen` encoder keeps its weights and computes no gradients; the images get none either.
    """

    def __init__(
        self,
        network: EarVAE,
        *,
        frozen: bool = True,
        strides: Sequence[int] = STRIDES,
        fpn: int | None = None,
    ) -> None:
        super().__init__()
        chosen = sorted(set(strides))
        if not chosen or not set(chosen) <= set(STRIDES):
            raise EarTeachError(f"strides {tuple(strides)}: must be some of {STRIDES}")
        self.frozen = frozen
        self.network = _without_code(network).requires_grad_(not frozen)
        every = dict(zip(STRIDES, network.feature_channels, strict=True))
        widths = {stride: every[stride] for stride in chosen}
        self.pyramid = None if fpn is None else FeaturePyramidNetwork(list(widths.values()), fpn)
        self.feature_info = tuple(
            FeatureLevel(f"stride{stride}", fpn or width, stride)
            for stride, width in widths.items()
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
        found = {level.name: maps[level.stride] for level in self.feature_info}
        return found if self.pyramid is None else self.pyramid(found)

    def train(self, mode: bool = True) -> EarBackbone:
        """As torch's; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self


def _without_code(network: EarVAE) -> EarVAE:
    """A copy without the parts that maps do not pass through, whose weights would get no gradients."""
    made = copy.deepcopy(network)
    del made.decoder, made.encoder.squeeze, made.encoder.to_code
    if isinstance(made.encoder, MobileEncoder):
        del made.encoder.glance
    return made
