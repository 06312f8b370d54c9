"""Layers, parameters and multiply-adds of a network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from earteach.model.build import build_model
from earteach.model.pca_vae import PCAVAE
from earteach.model.vae import ConvVAE

# Modules by name, with the shapes of their outputs.
Traced = dict[str, tuple[nn.Module, tuple[int, ...]]]


@dataclass(frozen=True)
class Layer:
    """One block of the network and its output shape, without the batch axis."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class ModelSummary:
    """The size of a network; multiply-adds are for encoding and decoding one image."""

    parameters: int
    parts: dict[str, int]
    multiply_adds: int
    latent_dim: int
    image_size: int
    in_channels: int
    base_channels: int
    layers: tuple[Layer, ...]


def summarise(model: ConvVAE) -> ModelSummary:
    """Count by passing one image through a copy of the network that holds no values."""
    traced: Traced = {}
    # Not on the caller's device: "meta", where networks without values are made, knows no autocast.
    cpu = torch.device("cpu")
    with FakeTensorMode(), cpu, torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow = build_model(model.config)
        for name, module in shadow.named_modules():
            module.register_forward_hook(partial(_note_shape, traced, name))
        image = torch.zeros(1, model.in_channels, model.image_size, model.image_size)
        shadow(image, torch.zeros(1, model.latent_dim))
    # Names start with the network's class: PCAVAE.encoder.blocks.0.
    work = {
        name.partition(".")[2]: sum(kinds.values()) // 2
        for name, kinds in counter.get_flop_counts().items()
    }
    total = counter.get_total_flops() // 2
    layers = [
        Layer(name, type(module).__name__, shape, _parameters(module), work.get(name, 0))
        for name, (module, shape) in traced.items()
        if name.count(".") == (2 if ".blocks." in name else 1)
    ]
    if isinstance(model, PCAVAE):
        rest = total - sum(layer.multiply_adds for layer in layers)
        layers.insert(0, Layer("pca", "PCAPath", model.pca.shape, 0, rest))
    return ModelSummary(
        parameters=_parameters(model),
        parts={name: _parameters(part) for name, part in model.named_children()},
        multiply_adds=total,
        latent_dim=model.latent_dim,
        image_size=model.image_size,
        in_channels=model.in_channels,
        base_channels=model.base_channels,
        layers=tuple(layers),
    )


def _note_shape(traced: Traced, name: str, module: nn.Module, _: object, output: Any) -> None:
    first = output[0] if isinstance(output, tuple | list) else output
    traced[name] = module, tuple(first.shape[1:])


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
