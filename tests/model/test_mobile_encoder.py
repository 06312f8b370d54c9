"""The mobile encoder: convolutions beside a linear map, and small."""

import torch

from earteach.config import ModelConfig
from earteach.model.build import build_model
from tests.model.networks import images_for, lively


def test_the_code_is_the_convolutions_plus_a_linear_map_of_the_coarse_image():
    model = lively(pca_init=False, encoder="mobile")
    encoder, x = model.encoder, images_for(model)
    by_convolutions, logvar = encoder.to_code(encoder.squeeze(encoder(x)[-1]))
    linear = encoder.coarse_head.linear
    coarse = x.reshape(6, 3, 16, 2, 16, 2).mean(dim=(3, 5)).flatten(1)
    from_coarse = coarse @ linear.weight.T + linear.bias
    mu, actual_logvar = model.encode(x)
    assert min(by_convolutions.abs().max(), from_coarse.abs().max()) > 0.1
    torch.testing.assert_close(mu, by_convolutions + from_coarse)
    torch.testing.assert_close(actual_logvar, logvar)


def test_the_default_encoder_has_less_than_a_million_parameters_and_nothing_fixed():
    with torch.device("meta"):
        encoder = build_model(ModelConfig(encoder="mobile")).encoder
        teacher = build_model(ModelConfig()).encoder
    mobile, attention = (sum(p.numel() for p in e.parameters()) for e in (encoder, teacher))
    assert mobile < min(1e6, attention / 4)
    assert not list(encoder.buffers())
