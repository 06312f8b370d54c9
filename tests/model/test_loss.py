"""The loss against torch.distributions and against numbers worked out on paper."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch.distributions import Normal
from torch.distributions import kl_divergence as reference_kl

from earteach.model import loss as module
from earteach.model.loss import (
    dissimilarity,
    elbo_beta,
    kl_divergence,
    squared_error,
    total_loss,
    vae_loss,
)


def reference(mu: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    mu, logvar = mu.double(), logvar.double()
    return reference_kl(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0))


CODES = {
    "ordinary": (torch.linspace(-3, 3, 40).reshape(4, 10), torch.linspace(-6, 2, 40).flip(0)),
    "narrow": (torch.full((2, 5), 0.1), torch.full((10,), -20.0)),
    "wide": (torch.full((2, 5), -0.1), torch.full((10,), 10.0)),
    "far": (torch.full((2, 5), 300.0), torch.zeros(10)),
    "the prior": (torch.zeros(2, 5), torch.zeros(10)),
}


def codes(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    mu, logvar = CODES[name]
    return mu, logvar.reshape(mu.shape)


@pytest.mark.parametrize("name", CODES)
def test_kld_is_that_of_torch_distributions(name):
    mu, logvar = codes(name)
    seen = kl_divergence(mu, logvar)
    assert seen.shape == mu.shape
    torch.testing.assert_close(seen.double(), reference(mu, logvar), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CODES)
def test_kld_is_float32_inside_autocast(name):
    mu, logvar = (tensor.bfloat16() for tensor in codes(name))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        seen = kl_divergence(mu, logvar)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen.double(), reference(mu, logvar), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("reduction", "total"), [("mean", 0.25 + 0.1 * 6 / 4), ("sum", 0.25 + 0.1 * 6)]
)
def test_the_loss_of_numbers_on_paper(reduction, total):
    # Half of the pixels' range off everywhere: 0.25. Two codes of four dimensions with mu 1 and 2
    # and unit variance: 4 · 1/2 and 4 · 4/2 nats, hence 5; one more from the third term below.
    reconstruction, target = torch.full((2, 3, 4, 4), 0.5), torch.zeros(2, 3, 4, 4)
    mu = torch.tensor([[1.0] * 4, [2.0] * 4])
    logvar = torch.zeros(2, 4)
    logvar[0, 0] = math.log(2)  # adds (2 − 1 − ln 2) / 2 to the first code
    extra = (2 - 1 - math.log(2)) / 2 / 2
    terms = vae_loss(reconstruction, target, mu, logvar, weight=0.1, reduction=reduction)
    kld = 5 + extra
    assert terms.recon.item() == pytest.approx(0.25)
    assert terms.kld.item() == pytest.approx(kld)
    wanted = 0.25 + 0.1 * (kld / 4 if reduction == "mean" else kld)
    assert terms.total.item() == pytest.approx(wanted)
    at_six = total_loss(torch.tensor(0.25), torch.tensor(6.0), 0.1, reduction, 4)
    assert at_six.item() == pytest.approx(total)


def test_squared_error_is_of_each_image():
    torch.manual_seed(0)
    x, y = torch.rand(3, 2, 5, 4), torch.rand(3, 2, 5, 4)
    wanted = ((x - y).numpy() ** 2).reshape(3, -1).mean(axis=1)
    np.testing.assert_allclose(squared_error(x, y).numpy(), wanted, rtol=1e-6)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_terms_are_means_over_pixels_and_over_the_batch(kind):
    torch.manual_seed(0)
    reconstruction, target = torch.rand(5, 3, 8, 8).to(kind), torch.rand(5, 3, 8, 8).to(kind)
    mu, logvar = torch.randn(5, 7).to(kind), torch.randn(5, 7).to(kind)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == torch.bfloat16):
        terms = vae_loss(reconstruction, target, mu, logvar, weight=0.01, reduction="mean")
    recon = torch.nn.functional.mse_loss(reconstruction.double(), target.double()).item()
    kld = reference(mu, logvar).sum(dim=1).mean().item()
    assert terms.recon.item() == pytest.approx(recon, rel=1e-6)
    assert terms.kld.item() == pytest.approx(kld, rel=1e-6)
    assert terms.total.item() == pytest.approx(recon + 0.01 * kld / 7, rel=1e-6)
    assert {terms.total.dtype, terms.recon.dtype, terms.kld.dtype} == {torch.float32}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_beta_makes_the_loss_a_negative_elbo(reduction):
    torch.manual_seed(0)
    reconstruction, target = torch.rand(3, 8, 8), torch.rand(3, 8, 8)
    mu, logvar = torch.randn(6), torch.randn(6)
    size, weight = target.numel(), 0.03
    terms = vae_loss(
        reconstruction[None], target[None], mu[None], logvar[None],
        weight=weight, reduction=reduction,
    )  # fmt: skip
    likelihood = Normal(reconstruction.double(), 1.0).log_prob(target.double()).sum()
    beta = elbo_beta(weight, reduction, 6, size)
    negative_elbo = -likelihood + beta * reference(mu, logvar).sum()
    constant = size / 2 * math.log(2 * math.pi)
    assert size / 2 * terms.total.item() + constant == pytest.approx(negative_elbo.item(), rel=1e-6)


def test_the_gradient_of_an_extreme_code_is_finite():
    mu = torch.tensor([[1e3, -1e3]], requires_grad=True)
    logvar = torch.tensor([[10.0, -20.0]], requires_grad=True)
    kl_divergence(mu, logvar).sum().backward()
    torch.testing.assert_close(mu.grad, torch.tensor([[1e3, -1e3]]))
    wanted = torch.tensor([[(math.exp(10) - 1) / 2, (math.exp(-20) - 1) / 2]])
    torch.testing.assert_close(logvar.grad, wanted)


def two_images(number: int, channels: int, height: int, width: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    target = torch.rand(number, channels, height, width, generator=generator)
    noise = torch.randn(target.shape, generator=generator)
    return [(target + 0.1 * noise).clamp(0, 1), target]


@pytest.mark.parametrize("shape", [(3, 3, 32, 32), (2, 1, 48, 32), (1, 3, 11, 12), (2, 3, 64, 64)])
def test_dissimilarity_is_that_of_scikit_image_on_whole_windows(shape):
    seen, target = two_images(*shape)
    wanted = []
    for x, y in zip(seen.double().numpy(), target.double().numpy(), strict=True):
        maps = [
            structural_similarity(
                a, b, data_range=1, gaussian_weights=True, sigma=1.5, truncate=3.4,
                use_sample_covariance=False, full=True,
            )[1][5:-5, 5:-5]
            for a, b in zip(x, y, strict=True)
        ]  # fmt: skip
        wanted.append(1 - np.mean(maps))
    found = dissimilarity(seen, target)
    assert found.shape == (shape[0],)
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_equal_images_are_not_dissimilar_and_inverted_ones_are():
    _, target = two_images(2, 3, 32, 32)
    torch.testing.assert_close(dissimilarity(target, target), torch.zeros(2), rtol=0, atol=1e-5)
    assert (dissimilarity(1 - target, target) > 1).all()


def test_dissimilarity_falls_along_its_gradient():
    seen, target = two_images(2, 3, 32, 32)
    seen.requires_grad_(True)
    before = dissimilarity(seen, target).mean()
    before.backward()
    assert (seen.grad.abs().amax(dim=(2, 3)) > 0).all()
    after = dissimilarity(seen.detach() - 50 * seen.grad, target).mean()
    assert after < 0.9 * before


def test_dissimilarity_in_autocast_is_that_of_float32():
    seen, target = two_images(2, 3, 32, 32)
    wanted = dissimilarity(seen, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = dissimilarity(seen, target)
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)


def test_training_can_follow_an_evaluation_in_one_process():
    """The windows' matrices are kept, and what is made in inference mode takes no gradient."""
    module._bands.cache_clear()
    seen, target = two_images(1, 1, 32, 32)
    with torch.inference_mode():
        dissimilarity(seen, target)
    seen.requires_grad_(True)
    dissimilarity(seen, target).sum().backward()
    assert seen.grad.abs().sum() > 0
