"""Counts of parameters and multiply-adds against torch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from earteach.config import ModelConfig
from earteach.model.summary import summarise
from earteach.model.vae import EarVAE

NETWORKS = [
    {"image_size": 32, "latent_dim": 16, "base_channels": 8, "in_channels": 3},
    {"image_size": 48, "latent_dim": 7, "base_channels": 5, "in_channels": 1},
    {"image_size": 64, "latent_dim": 256, "base_channels": 4, "in_channels": 3},
]


@pytest.mark.parametrize("options", NETWORKS)
def test_counts_are_those_of_torch(options):
    model = EarVAE(**options)
    summary = summarise(model)
    stored = sum(tensor.numel() for tensor in model.state_dict().values())
    assert summary.parameters == stored == sum(summary.parts.values())
    assert set(summary.parts) == {"encoder", "decoder"}
    size, channels = options["image_size"], options["in_channels"]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.reconstruct(torch.zeros(1, channels, size, size))
    assert summary.multiply_adds == counter.get_total_flops() / 2
    assert {name: getattr(summary, name) for name in options} == options


@pytest.mark.parametrize("options", NETWORKS)
def test_layers_add_up_to_the_whole(options):
    summary = summarise(EarVAE(**options))
    assert sum(layer.parameters for layer in summary.layers) == summary.parameters
    assert sum(layer.multiply_adds for layer in summary.layers) == summary.multiply_adds


def test_layers_have_the_shapes_that_leave_them():
    shapes = {layer.name: layer.shape for layer in summarise(EarVAE(**NETWORKS[0])).layers}
    for stage, (channels, side) in enumerate([(8, 16), (16, 8), (32, 4), (64, 2)]):
        assert shapes[f"encoder.blocks.{stage}"] == (channels, side, side)
    assert shapes["encoder.to_code"] == (16,)
    assert shapes["decoder.to_image"] == (3, 32, 32)


def test_one_strided_convolution_by_hand():
    layers = {layer.name: layer for layer in summarise(EarVAE(**NETWORKS[0])).layers}
    # 3·3 weights of 8 + 8 channels at 32 × 32 for the image's convolution, 64 → 32 at the deepest.
    assert layers["decoder.to_image"].multiply_adds == 32 * 32 * 9 * 8 * 3
    assert layers["decoder.to_image"].parameters == 9 * 8 * 3 + 3 + 2 * 8


def test_summarising_leaves_the_network_alone():
    model = EarVAE(**NETWORKS[0])
    summarise(model)
    assert all(not module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_network_without_values_can_be_counted():
    with torch.device("meta"):
        model = EarVAE.from_config(ModelConfig())
    summary = summarise(model)
    assert summary.parameters == sum(p.numel() for p in model.parameters())
    assert summary.image_size == 256
