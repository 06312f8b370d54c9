"""Configurations and their networks."""

import pytest
import torch

from earteach.config import ModelConfig
from earteach.model.build import build_model
from earteach.model.pca_vae import PCAVAE, MobilePCAVAE
from earteach.model.vae import ConvVAE
from tests.model.networks import KINDS

CLASSES = {
    "pca": PCAVAE, "plain": ConvVAE, "pca-mobile": MobilePCAVAE, "plain-mobile": ConvVAE,
}  # fmt: skip


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_networks_are_small(kind):
    config = ModelConfig(**KINDS[kind])
    with torch.device("meta"):
        model = build_model(config)
    assert type(model) is CLASSES[kind]
    assert model.config == config
    assert count(model) < 25e6
    # The layers around the code are not where the parameters are.
    assert count(model.encoder.to_code) + count(model.decoder.from_code) < 0.2 * count(model)
    if config.encoder == "mobile":
        assert count(model.encoder) < 1e6
        assert not list(model.encoder.buffers())
