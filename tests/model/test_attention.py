"""Attention against NumPy, written from the paper."""

import numpy as np
import pytest
import torch

from earteach.model.attention import ChannelSpatialAttention


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def parameters(module: torch.nn.Module) -> list[np.ndarray]:
    return [parameter.detach().double().numpy() for parameter in module.parameters()]


def channel_attention(module: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    first, first_bias, second, second_bias = parameters(module)

    def shared(pooled: np.ndarray) -> np.ndarray:
        hidden = pooled @ first.T + first_bias
        return (hidden * sigmoid(hidden)) @ second.T + second_bias

    weight = sigmoid(shared(x.mean(axis=(2, 3))) + shared(x.max(axis=(2, 3))))
    return x * weight[:, :, None, None]


def spatial_attention(module: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    kernel, bias = parameters(module)
    summary = np.stack([x.mean(axis=1), x.max(axis=1)], axis=1)
    padded = np.pad(summary, ((0, 0), (0, 0), (3, 3), (3, 3)))
    height, width = x.shape[2:]
    logits = np.empty((len(x), 1, height, width))
    for row, column in np.ndindex(height, width):
        window = padded[:, :, row : row + 7, column : column + 7]
        logits[:, 0, row, column] = (window * kernel[0]).sum(axis=(1, 2, 3)) + bias[0]
    return x * sigmoid(logits)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 40, 9, 2), (3, 1, 1, 1)])
def test_attention_is_its_formula(shape):
    torch.manual_seed(0)
    module = ChannelSpatialAttention(shape[1])
    x = torch.randn(shape) * 2
    by_channel = channel_attention(module[0], x.double().numpy())
    expected = spatial_attention(module[1], by_channel)
    for part, output in ((module[0], by_channel), (module, expected)):
        np.testing.assert_allclose(part(x).detach(), output, rtol=1e-4, atol=1e-5)
