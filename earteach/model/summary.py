"""Layers, parameters and multiply-adds of a network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from earteach.model.vae import EarVAE


@dataclass(frozen=True)
class Layer:
    """One block of the network and the shape that leaves it, without the batch axis."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class ModelSummary:
    """What a network consists of; multiply-adds are for encoding and decoding one image."""

    parameters: int
    parts: dict[str, int]
    multiply_adds: int
    latent_dim: int
    image_size: int
    in_channels: int
    base_channels: int
    layers: tuple[Layer, ...]


def summarise(model: EarVAE) -> ModelSummary:
    """Count by running one image through a copy of the network that holds no values."""
    counts = _multiply_adds(model)
    shapes = counts.shapes
    layers = tuple(
        Layer(
            name=name,
            kind=type(module).__name__,
            shape=shapes[name],
            parameters=_parameters(module),
            multiply_adds=sum(n for leaf, n in counts.leaves.items() if _within(leaf, name)),
        )
        for name, module in model.named_modules()
        if name in shapes and name.count(".") == (2 if ".blocks." in name else 1)
    )
    return ModelSummary(
        parameters=_parameters(model),
        parts={name: _parameters(module) for name, module in model.named_children()},
        multiply_adds=sum(counts.leaves.values()),
        latent_dim=model.latent_dim,
        image_size=model.image_size,
        in_channels=model.in_channels,
        base_channels=model.base_channels,
        layers=layers,
    )


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _within(leaf: str, name: str) -> bool:
    return leaf == name or leaf.startswith(name + ".")


@dataclass(frozen=True)
class _Counts:
    leaves: dict[str, int]
    shapes: dict[str, tuple[int, ...]]


def _multiply_adds(model: EarVAE) -> _Counts:
    counts = _Counts({}, {})

    def watch(name: str, module: nn.Module) -> None:
        def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: object) -> None:
            first = output[0] if isinstance(output, tuple) else output
            assert isinstance(first, torch.Tensor)
            counts.shapes[name] = tuple(first.shape[1:])
            if (work := _work(module, inputs[0], first)) is not None:
                counts.leaves[name] = counts.leaves.get(name, 0) + work

        module.register_forward_hook(note)

    with torch.device("meta"):
        shadow = EarVAE(
            in_channels=model.in_channels,
            latent_dim=model.latent_dim,
            base_channels=model.base_channels,
            image_size=model.image_size,
        )
        for name, module in shadow.named_modules():
            watch(name, module)
        shadow.reconstruct(torch.zeros(1, model.in_channels, model.image_size, model.image_size))
    return counts


def _work(module: nn.Module, before: torch.Tensor, after: torch.Tensor) -> int | None:
    """Multiply-adds of one call, for the layers that do nearly all of them."""
    if isinstance(module, nn.Linear):
        return after.numel() * module.in_features
    if isinstance(module, nn.ConvTranspose2d):
        return before.numel() * module.weight[0].numel()
    if isinstance(module, nn.Conv2d):
        return after.numel() * module.weight[0].numel()
    return None
