"""The loss against torch.distributions, scikit-image and numbers worked out on paper."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch.distributions import Normal
from torch.distributions import kl_divergence as reference_kl

from earteach.config import TrainConfig
from earteach.model import loss as module
from earteach.model.loss import (
    VAEBatch,
    dissimilarity,
    elbo_beta,
    kl_divergence,
    objective,
    reported_loss,
    vae_terms,
)


def reference(mu: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    mu, logvar = mu.double(), logvar.double()
    return reference_kl(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0))


CODES = {
    "ordinary": (torch.linspace(-3, 3, 40).reshape(4, 10), torch.linspace(2, -6, 40)),
    "narrow": (torch.full((2, 5), 0.1), torch.full((10,), -20.0)),
    "wide": (torch.full((2, 5), -0.1), torch.full((10,), 10.0)),
    "far": (torch.full((2, 5), 300.0), torch.zeros(10)),
    "the prior": (torch.zeros(2, 5), torch.zeros(10)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CODES)
def test_kld_is_that_of_torch_distributions(name, dtype):
    mu, logvar = CODES[name]
    mu, logvar = mu.to(dtype), logvar.reshape(mu.shape).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
        kld = kl_divergence(mu, logvar)
    assert kld.dtype == torch.float32
    torch.testing.assert_close(kld.double(), reference(mu, logvar), rtol=1e-5, atol=1e-6)


def options(reduction: str, ssim_weight: float = 0.0) -> TrainConfig:
    names = {"latent_dim": 7, "kld_reduction": reduction, "ssim_weight": ssim_weight}
    names["teach_weight"] = 0.0
    return TrainConfig().with_options(names)


def random_batch(dtype: torch.dtype = torch.float32) -> VAEBatch:
    torch.manual_seed(0)
    images = [torch.rand(5, 3, 16, 16).to(dtype) for _ in range(2)]
    return VAEBatch(*images, torch.randn(5, 7).to(dtype), torch.randn(5, 7).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("reduction", "divisor"), [("mean", 7), ("sum", 1)])
@pytest.mark.parametrize("ssim_weight", [0.0, 0.3])
def test_the_terms_are_means_over_the_batch(reduction, divisor, ssim_weight, dtype):
    batch = random_batch(dtype)
    terms = vae_terms(options(reduction, ssim_weight), 0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
        values = {term.name: term.values_of(batch) for term in terms}
        total = objective(terms, values)
    x, y = batch.reconstruction.double(), batch.target.double()
    recon = (x - y).square().mean().item()
    kld = reference(batch.mu, batch.logvar).sum(dim=1).mean().item()
    similarity = ssim_of_whole_windows(x, y).mean()
    expected = {"recon_loss": recon, "kld": kld, "ssim": similarity}
    logged = {t.logged_as: t.logged(values[t.name].mean().item()) for t in terms}
    for name, value in logged.items():
        assert value == pytest.approx(expected[name], rel=1e-5, abs=1e-5), name
    assert ("ssim" in logged) == (ssim_weight > 0)
    in_loss = recon + 0.01 * kld / divisor
    whole = in_loss + ssim_weight * (1 - similarity)
    assert total.item() == pytest.approx(whole, rel=1e-5)
    assert total.dtype == torch.float32
    # Validation takes the same loss, image by image.
    losses = reported_loss(terms, values)
    assert losses.shape == (5,)
    assert losses.mean().item() == pytest.approx(in_loss, rel=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_beta_makes_the_loss_a_negative_elbo(reduction):
    batch = random_batch()
    size, weight = batch.target[0].numel(), 0.03
    terms = vae_terms(options(reduction), weight)
    values = {term.name: term.values_of(batch) for term in terms}
    loss = reported_loss(terms, values)[0].item()
    likelihood = Normal(batch.reconstruction[0].double(), 1.0).log_prob(batch.target[0].double())
    beta = elbo_beta(weight, reduction, 7, size)
    negative_elbo = -likelihood.sum() + beta * reference(batch.mu[0], batch.logvar[0]).sum()
    constant = size / 2 * math.log(2 * math.pi)
    assert size / 2 * loss + constant == pytest.approx(negative_elbo.item(), rel=1e-6)


def ssim_of_whole_windows(x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """Scikit-image's SSIM of each image, without the windows that reach over the edge."""
    means = [
        [
            structural_similarity(
                a, b, data_range=1, gaussian_weights=True, sigma=1.5, truncate=3.4,
                use_sample_covariance=False, full=True,
            )[1][5:-5, 5:-5].mean()
            for a, b in zip(*planes, strict=True)
        ]
        for planes in zip(x.double().numpy(), y.double().numpy(), strict=True)
    ]  # fmt: skip
    return np.mean(means, axis=1)


def noisy_images(number: int, channels: int, height: int, width: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    target = torch.rand(number, channels, height, width, generator=generator)
    noise = torch.randn(target.shape, generator=generator)
    return [(target + 0.1 * noise).clamp(0, 1), target]


@pytest.mark.parametrize("shape", [(3, 3, 32, 32), (2, 1, 48, 32), (1, 3, 11, 12)])
def test_ssim_is_that_of_scikit_image(shape):
    noisy, target = noisy_images(*shape)
    expected = 1 - ssim_of_whole_windows(noisy, target)
    np.testing.assert_allclose(dissimilarity(noisy, target), expected, atol=2e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_allclose(dissimilarity(noisy, target), expected, atol=2e-5)


def test_training_can_follow_an_evaluation_in_one_process():
    """The window matrices are cached, and a tensor made in inference mode takes no gradient."""
    module._bands.cache_clear()
    noisy, target = noisy_images(1, 1, 32, 32)
    with torch.inference_mode():
        dissimilarity(noisy, target)
    noisy.requires_grad_(True)
    dissimilarity(noisy, target).sum().backward()
    assert noisy.grad.abs().sum() > 0
