"""Latent statistics against numpy and torch.distributions."""

import numpy as np
import pytest
import torch

from earteach.metrics.latent import LatentStatistics


def accumulated(mu: torch.Tensor, logvar: torch.Tensor | None, *sizes: int) -> LatentStatistics:
    statistics = LatentStatistics(mu.shape[1])
    for rows in torch.arange(len(mu)).split(list(sizes)):
        statistics.update(mu[rows], None if logvar is None else logvar[rows])
    return statistics


@pytest.mark.parametrize("sizes", [(12,), (5, 7), (1,) * 12])
def test_variance_and_kld_do_not_depend_on_the_batches(sizes):
    torch.manual_seed(0)
    # Means far from zero: variances must not drown in the squares of the means.
    mu = torch.randn(12, 6) * torch.tensor([0, 1e-3, 0.1, 1, 10, 1]) + torch.arange(6.0) * 100
    logvar = torch.randn(12, 6, requires_grad=True)
    statistics = accumulated(mu, logvar, *sizes)
    expected = np.var(mu.double().numpy(), axis=0)
    np.testing.assert_allclose(statistics.variance(), expected, rtol=1e-6, atol=1e-9)
    posterior = torch.distributions.Normal(mu.double(), (logvar.detach().double() / 2).exp())
    kld = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    np.testing.assert_allclose(statistics.kld_per_dimension(), kld.mean(dim=0), rtol=1e-5)


@pytest.mark.parametrize(
    ("swings", "active"),
    # A dimension that is +s half of the time and else −s has variance s².
    [([0.0, 0.09], 0), ([0.11, 0.09], 1), ([0.11, 5.0, -0.2], 3)],
)
def test_a_unit_is_active_from_a_variance_of_a_hundredth(swings, active):
    swing = torch.tensor(swings)
    assert accumulated(torch.stack([swing, -swing] * 4) + 7, None, 3, 5).active_units() == active


def test_two_devices_add_up_to_one():
    torch.manual_seed(2)
    mu, logvar = torch.randn(9, 4) + 3, torch.randn(9, 4)
    whole = accumulated(mu, logvar, 9)
    one, two = accumulated(mu[:4], logvar[:4], 4), accumulated(mu[4:], logvar[4:], 5)
    shared: list[torch.Tensor] = []
    two.reduced(lambda sums: shared.append(sums) or sums)
    together = one.reduced(lambda sums: sums + shared[0])
    torch.testing.assert_close(together.variance(), whole.variance())
    torch.testing.assert_close(together.kld_per_dimension(), whole.kld_per_dimension())
    assert not torch.equal(one.variance(), whole.variance())  # the parts stay as they were
