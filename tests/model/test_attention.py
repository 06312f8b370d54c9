"""Attention against a computation in numpy, written from the paper."""

import numpy as np
import pytest
import torch

from earteach.model.attention import ChannelAttention, ChannelSpatialAttention, SpatialAttention


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def parameters(module: torch.nn.Module) -> list[np.ndarray]:
    return [parameter.detach().double().numpy() for parameter in module.parameters()]


def channel_attention(module: ChannelAttention, x: np.ndarray) -> np.ndarray:
    first, first_bias, second, second_bias = parameters(module)

    def shared(pooled: np.ndarray) -> np.ndarray:
        hidden = pooled @ first.T + first_bias
        return (hidden * sigmoid(hidden)) @ second.T + second_bias

    weight = sigmoid(shared(x.mean(axis=(2, 3))) + shared(x.max(axis=(2, 3))))
    return x * weight[:, :, None, None]


def spatial_attention(module: SpatialAttention, x: np.ndarray) -> np.ndarray:
    kernel, bias = parameters(module)
    assert kernel.shape == (1, 2, 7, 7)
    summary = np.stack([x.mean(axis=1), x.max(axis=1)], axis=1)
    padded = np.pad(summary, ((0, 0), (0, 0), (3, 3), (3, 3)))
    height, width = x.shape[2:]
    places = np.empty((len(x), 1, height, width))
    for row in range(height):
        for column in range(width):
            window = padded[:, :, row : row + 7, column : column + 7]
            places[:, 0, row, column] = (window * kernel[0]).sum(axis=(1, 2, 3)) + bias[0]
    return x * sigmoid(places)


def both(module: ChannelSpatialAttention, x: np.ndarray) -> np.ndarray:
    return spatial_attention(module[1], channel_attention(module[0], x))


@pytest.mark.parametrize(
    ("make", "by_hand"),
    [
        (ChannelAttention, channel_attention),
        (lambda channels: SpatialAttention(), spatial_attention),
        (ChannelSpatialAttention, both),
    ],
    ids=["channel", "spatial", "both"],
)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 40, 9, 2), (3, 1, 1, 1)])
def test_attention_equals_numpy(make, by_hand, shape):
    torch.manual_seed(0)
    module = make(shape[1])
    x = torch.randn(shape) * 2
    seen = module(x).detach().numpy()
    np.testing.assert_allclose(seen, by_hand(module, x.double().numpy()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("channels", "hidden"), [(3, 4), (39, 4), (40, 5), (256, 32)])
def test_channels_are_judged_through_an_eighth_as_many(channels, hidden):
    weights = [tuple(p.shape) for p in ChannelAttention(channels).parameters()]
    assert weights == [(hidden, channels), (hidden,), (channels, hidden), (channels,)]


def test_attention_only_weakens():
    torch.manual_seed(0)
    x = torch.rand(2, 16, 8, 8) + 0.1
    share = ChannelSpatialAttention(16)(x) / x
    assert ((share > 0) & (share < 1)).all()
