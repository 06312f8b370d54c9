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


@pytest.mark.parametrize("sizes", [(12,), (5, 7)])
def test_kld_is_the_divergence_of_each_dimension(sizes):
    torch.manual_seed(1)
    mu, logvar = torch.randn(12, 5) * 2, torch.randn(12, 5)
    statistics = LatentStatistics(5)
    for codes, spread in zip(mu.split(list(sizes)), logvar.split(list(sizes)), strict=True):
        statistics.update(codes, spread)
    posterior = torch.distributions.Normal(mu.double(), (logvar.double() / 2).exp())
    wanted = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    np.testing.assert_allclose(
        statistics.kld_per_dimension(), wanted.mean(dim=0), rtol=1e-5, atol=1e-6
    )


def test_two_devices_together_are_one():
    torch.manual_seed(2)
    mu, logvar = torch.randn(9, 4) + 3, torch.randn(9, 4)
    whole, one, two = (LatentStatistics(4) for _ in range(3))
    whole.update(mu, logvar)
    one.update(mu[:4], logvar[:4])
    two.update(mu[4:], logvar[4:])
    shared: list[torch.Tensor] = []
    two.reduced(lambda sums: shared.append(sums) or sums)
    together = one.reduced(lambda sums: sums + shared[0])
    torch.testing.assert_close(together.variance(), whole.variance())
    torch.testing.assert_close(together.kld_per_dimension(), whole.kld_per_dimension())
    assert one.variance().shape == (4,)
    assert not torch.equal(one.variance(), whole.variance())  # the parts are left as they were
