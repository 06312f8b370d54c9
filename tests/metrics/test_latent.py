"""Active units against numpy's variance."""

import numpy as np
import pytest
import torch

from earteach.metrics.latent import LatentStatistics


def gathered(codes: torch.Tensor, *sizes: int) -> LatentStatistics:
    statistics = LatentStatistics(codes.shape[1])
    for batch in codes.split(list(sizes)):
        statistics.update(batch)
    return statistics


@pytest.mark.parametrize("sizes", [(12,), (5, 7), (1,) * 12])
def test_variance_is_numpys_whatever_the_batches(sizes):
    torch.manual_seed(0)
    # Means far from zero: variances must not drown in the squares of the means.
    codes = torch.randn(12, 6) * torch.tensor([0, 1e-3, 0.1, 1, 10, 1]) + torch.arange(6.0) * 100
    wanted = np.var(codes.double().numpy(), axis=0)
    np.testing.assert_allclose(gathered(codes, *sizes).variance(), wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("swings", "active"),
    # A dimension that is a half of the time at +s and else at −s has variance s².
    [([0.0, 0.09], 0), ([0.11, 0.09], 1), ([0.11, 5.0, -0.2], 3), ([0.0], 0)],
)
def test_a_unit_is_active_from_a_variance_of_a_hundredth(swings, active):
    swing = torch.tensor(swings)
    codes = torch.stack([swing, -swing] * 4) + 7
    assert gathered(codes, 3, 5).active_units() == active


def test_no_codes_and_one_code_have_no_active_units():
    assert LatentStatistics(4).active_units() == 0
    assert gathered(torch.ones(1, 4) * 3, 1).active_units() == 0


def test_codes_that_need_a_gradient_are_taken():
    codes = torch.randn(8, 3, requires_grad=True)
    assert gathered(codes, 8).active_units() == 3
