"""Counts of parameters and multiply-adds against torch's own counter, and by hand."""

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


@pytest.mark.parametrize("pca_init", [True, False])
@pytest.mark.parametrize("options", NETWORKS)
def test_counts_are_those_of_torch(options, pca_init):
    model = EarVAE(**options, pca_init=pca_init)
    summary = summarise(model)
    trained = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith("linear.")
    }
    assert summary.parameters == sum(tensor.numel() for tensor in trained.values())
    assert summary.parameters == sum(summary.parts.values())
    assert set(summary.parts) - {"linear"} == {"encoder", "decoder"}
    assert summary.parts.get("linear", 0) == 0
    size, channels = options["image_size"], options["in_channels"]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.reconstruct(torch.zeros(1, channels, size, size))
    assert summary.multiply_adds == counter.get_total_flops() / 2
    assert {name: getattr(summary, name) for name in options} == options


def products_by_hand(model: EarVAE) -> int:
    """Multiply-adds of one image: of convolutions and dense layers from the shapes that pass."""
    total = 0

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        nonlocal total
        assert not isinstance(module, torch.nn.Linear | torch.nn.Conv2d) or len(out) == 1
        if isinstance(module, torch.nn.Linear):
            total += module.in_features * module.out_features * out.numel() // out.shape[-1]
        elif isinstance(module, torch.nn.ConvTranspose2d):
            # Each number that enters is laid down once for each place of the kernel.
            total += inputs[0][0].numel() * module.weight[0].numel()
        elif isinstance(module, torch.nn.Conv2d):
            total += out[0].numel() * module.weight[0].numel()

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    size = model.image_size
    with torch.no_grad():
        model(torch.rand(1, model.in_channels, size, size), torch.zeros(1, model.latent_dim))
    for hook in hooks:
        hook.remove()
    if model.linear is not None:
        # Image and mirror image are each brought to the code, which is rotated; it is made a picture
        # twice, for the encoder and for the decoder, each time rotated back first.
        pixels, count_ = model.linear.mean.numel(), model.latent_dim - 1
        total += 2 * pixels * count_ + count_**2 + 2 * (pixels * count_ + count_**2)
    return total


@pytest.mark.parametrize("pca_init", [True, False])
@pytest.mark.parametrize("options", NETWORKS)
def test_counts_are_those_by_hand(options, pca_init):
    model = EarVAE(**options, pca_init=pca_init)
    assert summarise(model).multiply_adds == products_by_hand(model)


@pytest.mark.parametrize("pca_init", [True, False])
@pytest.mark.parametrize("options", NETWORKS)
def test_layers_add_up_to_the_whole(options, pca_init):
    summary = summarise(EarVAE(**options, pca_init=pca_init))
    assert sum(layer.parameters for layer in summary.layers) == summary.parameters
    assert sum(layer.multiply_adds for layer in summary.layers) == summary.multiply_adds


def test_layers_have_the_shapes_that_leave_them():
    shapes = {layer.name: layer.shape for layer in summarise(EarVAE(**NETWORKS[0])).layers}
    for stage, (channels, side) in enumerate([(8, 16), (16, 8), (32, 4), (64, 2)]):
        assert shapes[f"encoder.blocks.{stage}"] == (channels, side, side)
    assert shapes["encoder.to_code"] == (16,)
    assert shapes["decoder.to_image"] == (3, 32, 32)


def test_the_decoders_last_convolutions_by_hand():
    layers = {layer.name: layer for layer in summarise(EarVAE(**NETWORKS[0])).layers}
    # At 16 × 16, 3·3 weights each: the picture's 4 · 3 channels to 8.
    assert layers["decoder.from_picture"].multiply_adds == 16 * 16 * 9 * 12 * 8
    assert layers["decoder.from_picture"].parameters == 9 * 12 * 8 + 8
    # The attention block's convolutions from 8 channels to 4 and back, 7·7 weights over its mean and
    # maximum, its two dense layers (for mean and maximum each), and 8 channels to 4 · 3.
    work = 16 * 16 * (9 * 8 * 4 * 2 + 49 * 2 + 9 * 8 * 12)
    hidden = layers["decoder.to_image"].multiply_adds - work
    assert hidden == 2 * 2 * 8 * (hidden // 32)
    assert 1 <= hidden // 32 <= 8


def test_the_linear_path_by_hand():
    (first, *_) = summarise(EarVAE(**NETWORKS[0])).layers
    assert (first.name, first.shape, first.parameters) == ("linear", (3, 32, 32), 0)
    assert first.multiply_adds == 4 * 3 * 32 * 32 * 15 + 3 * 15 * 15
    # At 144 pixels it works at 48.
    large = EarVAE(image_size=144, latent_dim=8, base_channels=2, in_channels=1)
    (first, *_) = summarise(large).layers
    assert first.shape == (1, 48, 48)
    assert first.multiply_adds == 4 * 48 * 48 * 7 + 3 * 7 * 7


def test_summarising_leaves_the_network_alone():
    model = EarVAE(**NETWORKS[0])
    summarise(model)
    assert all(not module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_network_without_values_can_be_counted():
    with torch.device("meta"):
        model = EarVAE.from_config(ModelConfig())
        inside = summarise(model)
    summary = summarise(model)
    assert summary == inside
    assert summary.parameters == sum(p.numel() for p in model.parameters())
    assert summary.image_size == 256
