"""What is exported: a part of a network as one module, with the names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import nn

from earteach.checkpoint import Checkpoint
from earteach.config import ExportPart
from earteach.errors import EarTeachError
from earteach.model.blocks import STRIDES
from earteach.model.vae import ConvVAE

BATCH = "batch"


@dataclass(frozen=True)
class Port:
    """An input or output; its first axis is the batch."""

    name: str
    shape: tuple[int | str, ...]
    dtype: Literal["float32", "uint8"] = "float32"


class PartModule(nn.Module):
    """One tensor in, a tuple of tensors out.

    "full": images to reconstructions. "encoder": images to mu and logvar. "decoder": codes to images.
    "features": images to the encoder's maps, finest first, then those of a trained pyramid.
    "landmarks": images to points, as fractions of the sides, and their confidence. With
    `from_uint8` images are uint8 `(B, H, W, C)`, else float32 `(B, C, H, W)` in [0, 1].
    """

    def __init__(self, model: ConvVAE, part: ExportPart, *, from_uint8: bool = False) -> None:
        super().__init__()
        self.model = model
        self.part = part
        self.from_uint8 = from_uint8

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.from_uint8:
            batch = batch.permute(0, 3, 1, 2).to(torch.float32) / 255
        if self.part == "encoder":
            return self.model.encode(batch)
        if self.part == "features":
            maps = self.model.features(batch)
            return (*maps, *(self.model.pyramid(maps) if self.model.pyramid is not None else ()))
        if self.part == "landmarks":
            return self.model.landmarks(batch)
        decoder = self.part == "decoder"
        return (self.model.decode(batch) if decoder else self.model.reconstruct(batch),)


@dataclass(frozen=True)
class Job:
    """What to export from which checkpoint; `size` is the height and width of the images."""

    checkpoint: Checkpoint
    model: ConvVAE
    part: ExportPart
    size: int
    preprocessing: bool
    opset: int

    @cached_property
    def module(self) -> PartModule:
        return PartModule(self.model, self.part, from_uint8=self.preprocessing).eval()

    @property
    def input(self) -> Port:
        if self.part == "decoder":
            return Port("codes", (BATCH, self.model.latent_dim))
        if self.preprocessing:
            return Port("images", (BATCH, self.size, self.size, self.model.in_channels), "uint8")
        return Port("images", (BATCH, self.model.in_channels, self.size, self.size))

    @property
    def outputs(self) -> tuple[Port, ...]:
        if self.part == "encoder":
            code = (BATCH, self.model.latent_dim)
            return Port("mu", code), Port("logvar", code)
        if self.part == "features":
            ports = self._maps("stride", self.model.feature_channels)
            if (pyramid := self.model.pyramid) is not None:
                ports += self._maps("pyramid", [pyramid.channels] * len(STRIDES))
            return ports
        if self.part == "landmarks":
            count = self.model.config.landmarks
            return Port("points", (BATCH, count, 2)), Port("confidence", (BATCH, count))
        name = "images" if self.part == "decoder" else "reconstructions"
        return (Port(name, (BATCH, self.model.in_channels, self.size, self.size)),)

    def _maps(self, name: str, widths: Sequence[int]) -> tuple[Port, ...]:
        return tuple(
            Port(f"{name}_{stride}", (BATCH, width, self.size // stride, self.size // stride))
            for stride, width in zip(STRIDES, widths, strict=True)
        )


# The parts that can be exported of what a checkpoint or a folder holds.
_HELD: dict[ExportPart, tuple[ExportPart, ...]] = {
    "full": get_args(ExportPart),
    "encoder": ("encoder", "features"),
    "decoder": ("decoder",),
    "features": ("features",),
    "landmarks": ("landmarks", "features"),
}


def check_part(source: Checkpoint, part: ExportPart) -> None:
    """Raise `EarTeachError` where the checkpoint does not hold the part."""
    if part not in _HELD[source.part]:
        raise EarTeachError(
            f"--part {part}: {source.path} holds only the {source.part} of a network; use "
            f"--part {' or '.join(_HELD[source.part])}"
        )
    if part == "landmarks" and not source.config.model.landmarks:
        raise EarTeachError(
            "--part landmarks: this network finds none; train one that does with `earteach landmarks "
            "--train`"
        )


def check_size(model: ConvVAE, part: ExportPart, size: int | None) -> int:
    """The height and width of the images that the part takes, by default the network's own.

    Raises `EarTeachError` where the part cannot take another size.
    """
    own = model.image_size
    if size is None or size == own:
        return own
    if part != "features":
        raise EarTeachError(
            f"--input-size {size}: the codes of this network are for {own}×{own} images; resize "
            f"images to {own}, or train with --image-size {size}"
        )
    if model.side_dimension is not None:
        raise EarTeachError(
            f"--input-size {size}: this network starts from eigenears of {own}×{own} images; resize "
            f"images to {own}, or train with --no-pca-init, whose features take any size"
        )
    if size < STRIDES[-1] or size % STRIDES[-1]:
        raise EarTeachError(f"--input-size {size}: must be a multiple of {STRIDES[-1]}")
    return size
