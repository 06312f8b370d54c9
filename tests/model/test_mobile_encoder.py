"""The mobile encoder: its blocks by their formulas, its size by hand."""

import torch
from torch.nn import functional

from earteach.config import ModelConfig
from earteach.model.build import build_model
from earteach.model.mobile_encoder import InvertedResidual
from tests.model.networks import images_for, lively


def test_an_inverted_residual_is_its_formula():
    torch.manual_seed(0)
    block = InvertedResidual(8, 8)
    x = torch.randn(2, 8, 6, 6)
    norm, widen, _, depthwise, _, narrow = block.branch
    normed = functional.group_norm(x, 8, norm.weight, norm.bias)
    wide = torch.einsum("oi,bihw->bohw", widen.weight[:, :, 0, 0], normed)
    wide = (wide + widen.bias[:, None, None]).clamp(0, 6)
    assert wide.shape[1] == 4 * 8
    each = [
        functional.conv2d(wide[:, [c]], depthwise.weight[[c]], depthwise.bias[[c]], padding=1)
        for c in range(32)
    ]
    wide = torch.cat(each, dim=1).clamp(0, 6)
    branch = torch.einsum("oi,bihw->bohw", narrow.weight[:, :, 0, 0], wide)
    with torch.no_grad():
        torch.testing.assert_close(block(x), x + branch + narrow.bias[:, None, None])
        assert InvertedResidual(8, 12, stride=2)(x).shape == (2, 12, 3, 3)


def test_the_code_is_the_convolutions_plus_a_linear_map_of_the_coarse_image():
    model = lively(pca_init=False, encoder="mobile")
    encoder, x = model.encoder, images_for(model)
    by_convolutions, logvar = encoder.to_code(encoder.squeeze(encoder.blocks_of(x)[-1]))
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
