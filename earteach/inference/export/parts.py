"""What is exported: modules with tensors in and out, and the names and shapes of these."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import nn

from earteach.checkpoint import Checkpoint
from earteach.config import ExportPart
from earteach.errors import EarTeachError
from earteach.model.blocks import STRIDES
from earteach.model.vae import EarVAE

BATCH = "batch"


@dataclass(frozen=True)
class Port:
    """An input or output; its first axis is the batch."""

    name: str
    shape: tuple[int | str, ...]
    dtype: Literal["float32", "uint8"] = "float32"


class Reconstructor(nn.Module):
    """Images to their reconstructions."""

    def __init__(self, model: EarVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.model.reconstruct(images),)


class ImageEncoder(nn.Module):
    """Images to mu and logvar."""

    def __init__(self, model: EarVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.model.encode(images)


class ImageDecoder(nn.Module):
    """Codes to images."""

    def __init__(self, model: EarVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, codes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.model.decode(codes),)


class FeatureMaps(nn.Module):
    """Images to the encoder's maps, finest first.

    Without a linear path the maps are convolutions all the way, of images of any size.
    """

    def __init__(self, model: EarVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.model.linear is None:
            return tuple(self.model.encoder.maps(images))
        return tuple(self.model.features(images))


class FromBytes(nn.Module):
    """uint8 images `(B, H, W, C)`, as files and cameras give them, to what a part makes of them."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs: tuple[torch.Tensor, ...] = self.part(
            images.permute(0, 3, 1, 2).to(torch.float32) / 255
        )
        return outputs


_MODULES: dict[ExportPart, type[nn.Module]] = {
    "full": Reconstructor,
    "encoder": ImageEncoder,
    "decoder": ImageDecoder,
    "features": FeatureMaps,
}


@dataclass(frozen=True)
class Job:
    """What is to be exported, of which checkpoint; `size` is the side of the images."""

    found: Checkpoint
    model: EarVAE
    part: ExportPart
    size: int
    preprocessing: bool
    opset: int

    @cached_property
    def module(self) -> nn.Module:
        """Takes one tensor and gives a tuple of them."""
        return part_of(self.model, self.part, self.preprocessing)

    @property
    def input(self) -> Port:
        if self.part == "decoder":
            return Port("codes", (BATCH, self.model.latent_dim))
        if self.preprocessing:
            return Port("images", (BATCH, self.size, self.size, self.model.in_channels), "uint8")
        return Port("images", (BATCH, self.model.in_channels, self.size, self.size))

    @property
    def outputs(self) -> tuple[Port, ...]:
        image = (BATCH, self.model.in_channels, self.size, self.size)
        code = (BATCH, self.model.latent_dim)
        if self.part == "features":
            # One block for each stride: the channels double as the side halves.
            return tuple(
                Port(
                    f"stride_{stride}", (BATCH, channels, self.size // stride, self.size // stride)
                )
                for stride, channels in zip(STRIDES, self.model.feature_channels, strict=True)
            )
        outputs: dict[ExportPart, tuple[Port, ...]] = {
            "full": (Port("reconstructions", image),),
            "encoder": (Port("mu", code), Port("logvar", code)),
            "decoder": (Port("images", image),),
        }
        return outputs[self.part]


def part_of(model: EarVAE, part: ExportPart, preprocessing: bool = False) -> nn.Module:
    module = _MODULES[part](model)
    return (FromBytes(module) if preprocessing else module).eval()


def check_size(model: EarVAE, part: ExportPart, size: int | None) -> int:
    """The side of the images that the part shall take.

    Raises `EarTeachError` where the network is tied to another.
    """
    own = model.image_size
    if size is None or size == own:
        return own
    if part != "features":
        raise EarTeachError(
            f"--input-size {size}: the code of this network is that of {own}×{own} images; resize "
            f"images to {own}, or train with --image-size {size}"
        )
    if model.linear is not None:
        raise EarTeachError(
            f"--input-size {size}: this network begins with eigenears of {own}×{own} images; resize "
            f"images to {own}, or train with --no-pca-init, whose features take any size"
        )
    if size < STRIDES[-1] or size % STRIDES[-1]:
        raise EarTeachError(f"--input-size {size}: must be a multiple of {STRIDES[-1]}")
    return size
