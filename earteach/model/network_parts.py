"""The parts of a network that can be used on their own: encoder, decoder, or the feature maps."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from earteach.config import ExportPart
from earteach.errors import EarTeachError
from earteach.model.vae import ConvVAE


def run_part(network: ConvVAE, part: ExportPart, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The outputs of one part.

    "full": images to reconstructions. "encoder": images to mu and logvar. "decoder": codes to images.
    "features": images to the encoder's maps, finest first.
    """
    if part == "encoder":
        return network.encode(batch)
    if part == "features":
        return tuple(network.features(batch))
    return (network.decode(batch) if part == "decoder" else network.reconstruct(batch),)


def keep_part(network: ConvVAE, part: ExportPart, source: str) -> ConvVAE:
    """Remove the modules that a part does not need, in place.

    Using a removed module is an `EarTeachError` that names `source`. "encoder" keeps what `features`
    needs, too.
    """
    _remove_unused(
        network, "", part_weights(network, part), f"{source}: holds {part} of the network"
    )
    return network


def part_weights(network: ConvVAE, part: ExportPart) -> set[str]:
    """Names of the parameters and buffers that a part needs, as in `state_dict`.

    They are found by running the part once, whatever the weights are.
    """
    size = network.image_size
    example = next(network.parameters())
    images = example.new_zeros(1, network.in_channels, size, size)
    codes = example.new_zeros(1, network.latent_dim)
    with torch.inference_mode(), _TensorsUsed() as used:
        if part != "decoder":
            network.features(images)
        if part in ("full", "encoder"):
            network.encode(images)
        if part in ("full", "decoder"):
            network.decode(codes)
    state = network.state_dict(keep_vars=True)
    return {name for name, weight in state.items() if id(weight) in used.ids}


class _TensorsUsed(TorchFunctionMode):
    """Collects the ids of the tensors that torch's functions are called with."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ids.update(map(id, tree_leaves((args, kwargs))))
        return func(*args, **(kwargs or {}))


class MissingPartError(EarTeachError, AttributeError):
    """An `AttributeError` as well, so that `hasattr` and `copy` work on a `_MissingPart`."""


class _MissingPart(nn.Module):
    """Stands for a removed module; every use of it raises `MissingPartError`."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason

    def forward(self, *_: object) -> NoReturn:
        raise MissingPartError(self.reason)

    def __getattr__(self, name: str) -> NoReturn:
        raise MissingPartError(self.__dict__.get("reason", name))


def _remove_unused(module: nn.Module, path: str, needed: set[str], source: str) -> None:
    for name, child in module.named_children():
        child_path = f"{path}{name}."
        weights = {child_path + weight for weight in child.state_dict()}
        if weights.isdisjoint(needed):
            if weights:
                side = "encoder" if child_path.startswith("encoder.") else "decoder"
                reason = f"{source} and no {side}; export it with --part full"
                setattr(module, name, _MissingPart(reason))
        elif not weights <= needed:
            _remove_unused(child, child_path, needed, source)
