"""Parameters and multiply-adds by hand."""

import pytest
import torch

from earteach.model.pca_vae import PCAVAE
from earteach.model.summary import summarise
from earteach.model.vae import ConvVAE
from tests.model.networks import KINDS, network

SMALL = (32, 16, 8, 3)
NETWORKS = [*((SMALL, kind) for kind in KINDS), ((144, 7, 5, 1), "pca")]


def products_by_hand(model: ConvVAE) -> int:
    """Multiply-adds of one image: of convolutions and dense layers from the shapes that pass."""
    total = 0

    def add(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, torch.nn.Linear):
            total += module.in_features * out.numel()
        elif isinstance(module, torch.nn.ConvTranspose2d):
            # Each input value is multiplied with each weight of its channel.
            total += inputs[0][0].numel() * module.weight[0].numel()
        elif isinstance(module, torch.nn.Conv2d):
            total += out[0].numel() * module.weight[0].numel()

    hooks = [module.register_forward_hook(add) for module in model.modules()]
    size = model.image_size
    with torch.no_grad():
        model(torch.rand(1, model.in_channels, size, size), torch.zeros(1, model.latent_dim))
    for hook in hooks:
        hook.remove()
    return total


def pca_by_hand(model: PCAVAE) -> int:
    """Multiply-adds of each pass through PCA: with the components, and with the rotation.

    Image and mirror image become codes; the code becomes a picture for the decoder.
    """
    components = model.latent_dim - 1
    passes = 1 if model.config.encoder == "mobile" else 3
    return passes * (model.pca.mean.numel() * components + components**2)


@pytest.mark.parametrize(("shape", "kind"), NETWORKS)
def test_counts_are_those_by_hand(shape, kind):
    model = network(*shape, **KINDS[kind])
    with torch.device("meta"):  # values are not needed
        summary = summarise(network(*shape, **KINDS[kind]))
    assert summary.parameters == sum(p.numel() for p in model.parameters())
    assert summary.parameters == sum(summary.parts.values())
    sizes = (summary.image_size, summary.latent_dim, summary.base_channels, summary.in_channels)
    assert sizes == shape
    by_hand = products_by_hand(model)
    if isinstance(model, PCAVAE):
        by_hand += pca_by_hand(model)
        (first, *_) = summary.layers
        assert (first.name, first.shape, first.parameters) == ("pca", model.pca.shape, 0)
        assert first.multiply_adds == pca_by_hand(model)
    assert summary.multiply_adds == by_hand
    # These serve features and landmarks, not encoding and decoding.
    others = ("encoder.heads", "pyramid", "landmark_head")
    heads = sum(p.numel() for n, p in model.named_parameters() if n.startswith(others))
    assert sum(layer.parameters for layer in summary.layers) == summary.parameters - heads
    assert sum(layer.multiply_adds for layer in summary.layers) == summary.multiply_adds
