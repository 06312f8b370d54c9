"""The two-sample test cannot tell one distribution from itself, and tells two apart."""

import pytest
import torch

from benchmarks.quality.two_sample import accuracy


def images(mean: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (mean + 0.1 * torch.randn(120, 3, 16, 16, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize(("mean", "low", "high"), [(0.5, 0.35, 0.65), (0.6, 0.97, 1)])
def test_accuracy(mean, low, high):
    assert low <= accuracy(images(mean, 1), images(0.5, 2)) <= high
