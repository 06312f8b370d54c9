"""The mobile encoder: its blocks by their formulas, its size by hand."""

import torch
from torch.nn import functional

from earteach.model.mobile_encoder import InvertedResidual
from tests.model.networks import images_for, lively, network


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


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_by_hand():
    with torch.device("meta"):
        model = network(64, 64, 32, 3, encoder="mobile")
        encoder = model.encoder

    def residual(before: int, after: int) -> int:
        wide = 4 * before
        return 2 * before + (before + 1) * wide + 10 * wide + (wide + 1) * after

    assert list(map(count, encoder.blocks)) == [
        28 * 8,
        residual(8, 12) + residual(12, 12),
        residual(12, 24) + 2 * residual(24, 24),
        residual(24, 48) + 3 * residual(48, 48),
    ]
    assert list(map(count, encoder.heads)) == [9 * 32, 13 * 64, 25 * 128, 49 * 256]
    # A neck of 64 channels, 4 dimensions for each of 4 × 4 places, and a dense layer over them all.
    assert count(encoder.to_code) == (2 * 48 + 49 * 64 + 65 * 4 + 64 * 16 * 64 + 64 * 4 + 64)
    assert count(encoder.coarse_head) == (3 * 16 * 16 + 1) * 64
    # Maps of 32 pixels are halved to 16, 8 and 4.
    assert count(model.side) == 12 * 16 + (9 * 16 + 3) * 32 + (9 * 32 + 3) * 64 + 64 * 4 * 4
