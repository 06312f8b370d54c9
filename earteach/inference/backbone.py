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
from typing import Literal

import torch
from torch import nn

from earteach import checkpoint
from earteach.errors import EarTeachError
from earteach.model.blocks import STRIDES
from earteach.model.build import build_model
from earteach.model.network_parts import keep_part
from earteach.model.torchvision_layers import FeaturePyramidNetwork
from earteach.model.vae import ConvVAE

FPN = int | Literal["trained"] | None


@dataclass(frozen=True)
class FeatureLevel:
    """One of a backbone's maps: its name in the output, its channels and its stride."""

    name: str
    channels: int
    stride: int


class EarBackbone(nn.Module):
    """Images `(B, C, H, W)` in [0, 1], of any size, to a dict of maps, finest first.

    `strides` selects from 2, 4, 8 and 16; `feature_info` lists the maps. `fpn` chooses where they come
    from: None, the encoder; "trained", the feature pyramid (Lin et al. 2017,
    https://arxiv.org/abs/1612.03144) that was trained with it; a number, a new pyramid with that many
    channels, which is still to be trained. `out_channels`, which torchvision's detectors need, exists
    if all maps have the same number of channels: with `fpn`, or with a single stride.

    `frozen` keeps the weights of the encoder and of its trained pyramid, and computes no gradients for
    them or for images.
    """

    def __init__(
        self,
        network: ConvVAE,
        *,
        frozen: bool = True,
        strides: Sequence[int] = STRIDES,
        fpn: FPN = None,
    ) -> None:
        super().__init__()
        chosen = sorted(set(strides))
        if not chosen or not set(chosen) <= set(STRIDES):
            raise EarTeachError(f"strides {tuple(strides)}: must be a subset of {STRIDES}")
        if fpn == "trained" and network.pyramid is None:
            raise EarTeachError(
                'fpn="trained": this network has no trained pyramid; train it with a --teach-weight '
                "above 0, or name the channels of a new one"
            )
        self.frozen = frozen
        # A copy, without weights that would get no gradients.
        self.network = keep_part(copy.deepcopy(network), "features", "EarBackbone")
        if fpn != "trained":
            self.network.pyramid = None
        self.network.requires_grad_(not frozen)
        widths = dict(zip(STRIDES, network.feature_channels, strict=True))
        self.pyramid = None
        if isinstance(fpn, int):
            self.pyramid = FeaturePyramidNetwork([widths[stride] for stride in chosen], fpn)
            widths = dict.fromkeys(STRIDES, fpn)
        elif network.pyramid is not None and fpn == "trained":
            widths = dict.fromkeys(STRIDES, network.pyramid.channels)
        self.feature_info = tuple(
            FeatureLevel(f"stride{stride}", widths[stride], stride) for stride in chosen
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
        fpn: FPN = None,
        weights: bool = True,
    ) -> EarBackbone:
        """The encoder in what `earteach.load` takes; `from_pretrained` is another name.

        `weights=False` gives the same architecture with random weights, to compare with. Raises
        `EarTeachError` where there is no checkpoint or it cannot be read.
        """
        network = checkpoint.load(path)
        if not weights:
            network = build_model(network.config)
        return cls(network, frozen=frozen, strides=strides, fpn=fpn)

    from_pretrained = from_checkpoint

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad() if self.frozen else nullcontext():
            levels = self.network.features(images)
            if self.network.pyramid is not None:
                levels = self.network.pyramid(levels)
            maps = dict(zip(STRIDES, levels, strict=True))
        selected = {level.name: maps[level.stride] for level in self.feature_info}
        return selected if self.pyramid is None else self.pyramid(selected)

    def train(self, mode: bool = True) -> EarBackbone:
        """As torch's, but a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self
