"""The first weights: sides that are found, PCA of ears on one side, and a network that starts there."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from earteach.config import ModelConfig
from earteach.data.arrays import EarArray
from earteach.model.pca_path import PCAWeights
from earteach.model.pca_vae import PCAVAE
from earteach.training import pca_init as module
from earteach.training.pca_init import find_sides, first_weights, fit, init_from_pca
from tests.conftest import slow
from tests.model.networks import images_for, network, pca_network, random_weights


def one_sided(number: int, size: int = 32, channels: int = 3, seed: int = 0) -> torch.Tensor:
    """Ear-like pictures that face one way: a bright disc on the left, soft parts that vary."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    disc = np.exp(-((x - 0.3) ** 2 + (y - 0.5) ** 2) / 0.02)
    lobe = np.exp(-((x - 0.45) ** 2 + (y - 0.8) ** 2) / 0.01)
    waves = np.stack([
        np.cos(np.pi * (kx * x + ky * y) + kx) for kx in range(4) for ky in range(4)
    ])  # fmt: skip
    codes = rng.normal(size=(number, channels, len(waves))) / (1 + np.arange(len(waves)))
    images = 0.3 + 0.4 * disc + 0.2 * lobe + 0.06 * np.einsum("nck,khw->nchw", codes, waves)
    images = images + rng.normal(size=images.shape) * 0.01
    return torch.from_numpy((255 * images).round().clip(0, 255).astype(np.uint8))


def both_sides(number: int, **options: int) -> tuple[torch.Tensor, torch.Tensor]:
    images = one_sided(number, **options)
    is_canonical = torch.from_numpy(np.random.default_rng(1).random(number) < 0.6)
    return torch.where(is_canonical[:, None, None, None], images, images.flip(3)), is_canonical


def array(folder: Path, images: torch.Tensor) -> EarArray:
    np.save(folder / "train.npy", images.permute(0, 2, 3, 1).numpy())
    return EarArray.open(folder / "train.npy")


@pytest.mark.parametrize(("number", "sample"), [(40, None), slow(250, None), (200, 64)])
def test_sides_are_found_and_most_ears_are_canonical(number, sample, monkeypatch):
    if sample:  # few of many ears decide
        monkeypatch.setattr(module, "_SIDE_EARS", sample)
    images, is_canonical = both_sides(number)
    assert (find_sides(images) == is_canonical).float().mean() > 0.95
    assert find_sides(one_sided(number)).float().mean() > 0.97


def fitted_network(images: torch.Tensor, latent_dim: int) -> PCAVAE:
    model = network(images.shape[2], latent_dim, 4, images.shape[1])
    assert isinstance(model, PCAVAE)
    grid = module.code_grid(latent_dim, images.shape[2])
    init_from_pca(model, fit(images, latent_dim=latent_dim, grid=grid), 0.00025 / latent_dim)
    return model


def oriented_rows(images: torch.Tensor) -> np.ndarray:
    oriented = torch.where(find_sides(images)[:, None, None, None], images, images.flip(3))
    return oriented.flatten(1).double().numpy() / 255


@pytest.mark.parametrize(
    ("size", "channels", "latent"), [slow(32, 3, 16), (32, 1, 32), slow(48, 1, 9), (64, 1, 16)]
)
def test_the_network_starts_as_scikit_learns_pca(size, channels, latent):
    images, _ = both_sides(120, size=size, channels=channels)
    model = fitted_network(images, latent)
    pca = PCA(n_components=latent - 1, svd_solver="full").fit(oriented_rows(images))
    unseen, _ = both_sides(30, size=size, channels=channels, seed=7)
    x = unseen.float().numpy() / 255
    guesses, errors = [], []
    for way in (x, x[..., ::-1]):
        rows = way.reshape(30, -1)
        guess = pca.inverse_transform(pca.transform(rows))
        errors.append(((guess - rows) ** 2).sum(axis=1))
        guesses.append(guess.reshape(x.shape).clip(0.01, 0.99))
    as_is = (errors[0] <= errors[1])[:, None, None, None]
    with torch.no_grad():
        reconstruction = model.reconstruct(unseen.float() / 255)
    expected = np.where(as_is, guesses[0], guesses[1][..., ::-1])
    np.testing.assert_allclose(reconstruction, expected, atol=2e-3)


def test_codes_of_the_training_ears_are_white():
    images, _ = both_sides(200)
    with torch.no_grad():
        codes = fitted_network(images, 16).encode(images.float() / 255)[0][:, :-1].double()
    np.testing.assert_allclose(codes.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(np.cov(codes.T), np.eye(15), atol=0.02)


def test_the_rotation_gives_each_code_a_place_in_the_image():
    weights = fit(both_sides(200)[0], latent_dim=16, grid=2)

    def share_in_own_quarter(rotation: torch.Tensor) -> float:
        loadings = rotation.T @ (weights.components * weights.variances.sqrt()[:, None])
        quarters = loadings.reshape(15, 3, 2, 16, 2, 16).square().sum(dim=(1, 3, 5)).flatten(1)
        own = quarters[torch.arange(15), torch.arange(15) % 4]
        return (own / quarters.sum(dim=1)).mean().item()

    share = share_in_own_quarter(weights.rotation)
    assert share > 0.33
    assert share > share_in_own_quarter(torch.eye(15)) + 0.05


@pytest.mark.parametrize("number", [1, 2, 6, slow(200)])
def test_components_that_too_few_images_leave_undetermined_are_zero(number):
    images, _ = both_sides(number)
    assert find_sides(images).float().mean() >= 0.5
    weights = fit(images, latent_dim=16, grid=2)
    known = min(15, number - 1)
    norms = weights.components.norm(dim=1)
    torch.testing.assert_close(norms[:known], torch.ones(known))
    assert (norms[known:] == 0).all()
    assert (weights.variances[known:] == 1).all()
    assert all(value.isfinite().all() for value in vars(weights).values())
    np.testing.assert_allclose(weights.rotation @ weights.rotation.T, np.eye(15), atol=1e-4)


def test_noise_in_enlarged_pictures_costs_what_all_their_pixels_do():
    model = network(144, 4, 2, 1)
    weights = random_weights(model)
    axis = torch.linspace(0, math.pi, 48)
    waves = [torch.outer((k * axis).cos(), axis.cos()).flatten() for k in range(3)]  # smooth
    components = torch.stack([wave / wave.norm() for wave in waves])
    model.pca.load_weights(PCAWeights(weights.mean, components, weights.variances, torch.eye(3)))
    pictures = model.pca.decode(torch.eye(3)) - model.pca.decode(torch.zeros(1, 3))
    expected = pictures.square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(module._noise_gain(model.pca), expected, rtol=0.02, atol=0)


def test_the_first_logvar_by_hand():
    model = pca_network(32, 16, 8, 3)
    # The picture of a code z is mean + Σ_k (Σ_j z_j R_kj) √v_k c_k with orthonormal c_k, so a unit of
    # z_j costs Σ_k R_kj² v_k.
    rotation, variances = (v.double().numpy() for v in (model.pca.rotation, model.pca.variances))
    gain = (rotation**2 * variances[:, None]).sum(axis=0)
    weight = 1e-4 * 3 * 32 * 32
    expected = np.log(weight / (2 * gain + weight))
    assert np.ptp(expected) > 0.1
    images = images_for(model)
    with torch.no_grad():
        _, logvar = model.encode(images)
    np.testing.assert_allclose(logvar[:, :-1], np.tile(expected, (len(images), 1)), atol=1e-4)
    assert (logvar[:, -1] == -4).all()


def test_the_posterior_starts_no_wider_than_the_prior_and_not_too_narrow():
    model = network()
    weights = random_weights(model)
    unused = PCAWeights(weights.mean, 0 * weights.components, weights.variances, weights.rotation)
    for start, kld_weight, logvar in ((unused, 0.002, 0.0), (weights, 0.0, math.log(1e-4))):
        init_from_pca(model, start, kld_weight)
        actual = model.encode(images_for(model))[1].detach()[:, :-1]
        np.testing.assert_allclose(actual, logvar, rtol=1e-5)


def test_the_fit_is_cached_beside_the_array(tmp_path, monkeypatch):
    options = {"image_size": 32, "latent_dim": 8}
    ears = array(tmp_path, both_sides(20)[0])
    first = first_weights(ears, ModelConfig(**options))
    for change in ({"latent_dim": 9}, {"image_size": 48}, {"in_channels": 1}):
        other = first_weights(ears, ModelConfig(**{**options, **change}))
        assert other.components.shape != first.components.shape
    changed = array(tmp_path, both_sides(20, seed=5)[0])
    assert not torch.allclose(first_weights(changed, ModelConfig(**options)).mean, first.mean)
    ears = array(tmp_path, both_sides(20)[0])
    fresh = first_weights(ears, ModelConfig(**options))
    monkeypatch.delattr(module, "fit")  # a cached one needs none
    cached = first_weights(ears, ModelConfig(**options))
    for weights in (fresh, cached):
        assert all(torch.equal(value, vars(first)[name]) for name, value in vars(weights).items())


def test_of_very_many_images_an_even_share_is_fitted(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MAX_EARS", 10)
    images = one_sided(41)
    weights = first_weights(array(tmp_path, images), ModelConfig(image_size=32, latent_dim=4))
    rows = images[[0, 4, 9, 13, 18, 22, 27, 31, 36, 40]]
    np.testing.assert_allclose(weights.mean, oriented_rows(rows).mean(axis=0), atol=1e-5)
