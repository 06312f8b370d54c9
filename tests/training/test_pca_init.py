"""The network's beginning: sides found, PCA of ears turned to one side, in the network at once."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from earteach.config import ModelConfig, TrainConfig
from earteach.data.arrays import EarArray
from earteach.model.pca_path import PCAWeights
from earteach.model.vae import ConvVAE
from earteach.training import pca_init as module
from earteach.training.lightning_module import EarVAELightning
from earteach.training.pca_init import first_weights, fit, sides
from tests.conftest import TINY_RUN, data_options, earteach, run_options


def one_sided(number: int, size: int = 32, channels: int = 3, seed: int = 0) -> torch.Tensor:
    """Ear-like pictures that all look to one side: a bright disc at the left, soft parts that vary."""
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
    faces = torch.from_numpy(np.random.default_rng(1).random(number) < 0.6)
    return torch.where(faces[:, None, None, None], images, images.flip(3)), faces


def array(folder: Path, images: torch.Tensor, name: str = "train.npy") -> EarArray:
    np.save(folder / name, images.permute(0, 2, 3, 1).numpy())
    return EarArray.open(folder / name)


@pytest.mark.parametrize("number", [40, 250])
def test_sides_are_found(number):
    images, faces = both_sides(number)
    agree = (sides(images) == faces).float().mean().item()
    assert max(agree, 1 - agree) > 0.97


def test_most_ears_look_to_the_networks_own_side():
    images, faces = both_sides(200)
    found = sides(images)
    assert found.float().mean() >= 0.5
    assert ((found == faces).float().mean() > 0.97) == (faces.float().mean() >= 0.5)


@pytest.mark.parametrize("number", [3, 40, 200])
def test_ears_of_one_side_stay_as_they_are(number):
    assert sides(one_sided(number)).float().mean() > 0.97


@pytest.mark.parametrize("number", [1, 2, 8])
def test_very_few_images_have_sides(number):
    images, _ = both_sides(number)
    found = sides(images)
    assert found.shape == (number,)
    assert found.dtype == torch.bool
    assert found.float().mean() >= 0.5


def test_many_ears_are_judged_by_few(monkeypatch):
    monkeypatch.setattr(module, "_SIDED_EARS", 64)
    images, faces = both_sides(200)
    agree = (sides(images) == faces).float().mean().item()
    assert max(agree, 1 - agree) > 0.95


def fitted_network(images: torch.Tensor, latent_dim: int, **options: int) -> ConvVAE:
    size, channels = images.shape[2], images.shape[1]
    torch.manual_seed(0)
    model = ConvVAE(
        in_channels=channels, latent_dim=latent_dim, base_channels=4, image_size=size, **options
    )
    weights = fit(images, latent_dim=latent_dim, grid=module.code_grid(latent_dim, size))
    model.init_from_pca(weights, 0.00025 / latent_dim)
    return model


def turned(images: torch.Tensor, faces: torch.Tensor) -> np.ndarray:
    oriented = torch.where(faces[:, None, None, None], images, images.flip(3))
    return oriented.flatten(1).double().numpy() / 255


@pytest.mark.parametrize(
    ("size", "channels", "latent"), [(32, 3, 16), (32, 1, 32), (48, 1, 9), (64, 1, 16)]
)
def test_the_network_begins_as_scikit_learns_pca(size, channels, latent):
    images, _ = both_sides(120, size=size, channels=channels)
    model = fitted_network(images, latent)
    pca = PCA(n_components=latent - 1, svd_solver="full").fit(turned(images, sides(images)))
    unseen, _ = both_sides(30, size=size, channels=channels, seed=7)
    with torch.no_grad():
        seen = model.reconstruct(unseen.float() / 255).numpy()
    ways = [unseen.float().numpy() / 255, unseen.flip(3).float().numpy() / 255]
    guesses = [pca.inverse_transform(pca.transform(way.reshape(30, -1))) for way in ways]
    missed = [
        ((guess - way.reshape(30, -1)) ** 2).sum(axis=1)
        for guess, way in zip(guesses, ways, strict=True)
    ]
    as_is = (missed[0] <= missed[1])[:, None, None, None]
    shaped = [guess.reshape(unseen.shape).clip(0.01, 0.99) for guess in guesses]
    np.testing.assert_allclose(seen, np.where(as_is, shaped[0], shaped[1][..., ::-1]), atol=2e-3)


def test_a_large_image_is_pca_at_a_whole_fraction_of_its_size():
    images, _ = both_sides(60, size=144, channels=1)
    array_small = torch.nn.functional.avg_pool2d(images.float(), 3).round().to(torch.uint8)
    torch.manual_seed(0)
    model = ConvVAE(in_channels=1, latent_dim=12, base_channels=2, image_size=144)
    model.init_from_pca(fit(array_small, latent_dim=12, grid=1), 1e-5)
    x = images.float() / 255
    with torch.no_grad():
        error = (model.reconstruct(x) - x).square().mean()
    pca = PCA(n_components=11).fit(turned(array_small, sides(array_small)))
    residual = turned(array_small, sides(array_small))
    residual -= pca.inverse_transform(pca.transform(residual))
    # Beside what PCA misses at 48 pixels it misses the images' grain, of a hundredth.
    assert error.item() == pytest.approx((residual**2).mean() + 1e-4, rel=0.3)


def test_codes_of_the_training_ears_are_white():
    images, _ = both_sides(200)
    model = fitted_network(images, 16)
    with torch.no_grad():
        codes = model.encode(images.float() / 255)[0][:, :-1].double().numpy()
    np.testing.assert_allclose(codes.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(np.cov(codes.T), np.eye(15), atol=0.02)


def test_the_rotation_is_orthogonal_and_gives_codes_their_places():
    images, _ = both_sides(200)
    weights = fit(images, latent_dim=16, grid=2)
    np.testing.assert_allclose(weights.rotation @ weights.rotation.T, np.eye(15), atol=1e-4)

    def share_in_own_quarter(rotation: torch.Tensor) -> float:
        loadings = rotation.T @ (weights.components * weights.variances.sqrt()[:, None])
        quarters = loadings.reshape(15, 3, 2, 16, 2, 16).square().sum(dim=(1, 3, 5)).flatten(1)
        own = quarters[torch.arange(15), torch.arange(15) % 4]
        return (own / quarters.sum(dim=1)).mean().item()

    found = share_in_own_quarter(weights.rotation)
    assert found > 0.33
    assert found > share_in_own_quarter(torch.eye(15)) + 0.05


@pytest.mark.parametrize("number", [1, 2, 6])
def test_components_that_too_few_images_do_not_have_are_zero(number):
    images, _ = both_sides(number)
    weights = fit(images, latent_dim=16, grid=2)
    norms = weights.components.norm(dim=1)
    torch.testing.assert_close(norms[: number - 1], torch.ones(number - 1))
    assert (norms[number - 1 :] == 0).all()
    assert (weights.variances[number - 1 :] == 1).all()
    assert all(value.isfinite().all() for value in vars(weights).values())
    np.testing.assert_allclose(weights.rotation @ weights.rotation.T, np.eye(15), atol=1e-4)


def test_images_without_any_difference_can_be_begun_with():
    flat = torch.full((6, 3, 32, 32), 51, dtype=torch.uint8)
    model = fitted_network(flat, 16)
    with torch.no_grad():
        torch.testing.assert_close(model.reconstruct(flat / 255), flat / 255, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("size", "channels", "latent"),
    [(32, 3, 2), (32, 1, 2), (48, 3, 100), (48, 1, 3), (144, 1, 9), (32, 3, 64)],
)
def test_a_network_of_any_shape_begins_and_takes_a_step(tmp_path, size, channels, latent):
    """Twelve images are fewer than most of these codes have numbers."""
    images, _ = both_sides(12, size=size, channels=channels)
    options = {"image_size": size, "in_channels": channels, "latent_dim": latent}
    config = TrainConfig().with_options({**options, "base_channels": 4})
    network = EarVAELightning(config.to_dict())
    network.init_from_pca(first_weights(array(tmp_path, images), config.model))
    batch = {"input": images, "target": images, "index": torch.arange(12)}
    optimizer = torch.optim.AdamW(network.model.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = network.training_step(batch, 0)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    assert losses[-1] < 1.02 * losses[0]
    for name, parameter in network.model.named_parameters():
        assert parameter.isfinite().all(), name


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of each fit that was made."""
    made: list[int] = []
    original = module.fit

    def counted(ears: torch.Tensor, **options: int) -> PCAWeights:
        made.append(len(ears))
        return original(ears, **options)

    monkeypatch.setattr(module, "fit", counted)
    return made


def same(a: PCAWeights, b: PCAWeights) -> bool:
    return all(torch.equal(value, getattr(b, name)) for name, value in vars(a).items())


def test_the_fit_is_kept_beside_the_array(tmp_path, fits, caplog):
    model = ModelConfig(image_size=32, latent_dim=8)
    images, _ = both_sides(20)
    with caplog.at_level(logging.INFO, "earteach"):
        first = first_weights(array(tmp_path, images), model)
        again = first_weights(EarArray.open(tmp_path / "train.npy"), model)
    assert fits == [20]
    assert same(first, again)
    assert len(caplog.messages) == 1
    assert "all ears turned to one side" in caplog.text
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "change", [{"latent_dim": 9}, {"image_size": 48}, {"in_channels": 1}], ids=str
)
def test_another_network_is_another_fit(tmp_path, fits, change):
    images, _ = both_sides(20)
    ears = array(tmp_path, images)
    options = {"image_size": 32, "latent_dim": 8}
    first = first_weights(ears, ModelConfig(**options))
    other = first_weights(ears, ModelConfig(**{**options, **change}))
    assert len(fits) == 2
    assert other.components.shape != first.components.shape
    assert same(first_weights(ears, ModelConfig(**options)), first)
    assert len(fits) == 2


def test_a_changed_array_is_fitted_anew(tmp_path, fits):
    model = ModelConfig(image_size=32, latent_dim=8)
    old = first_weights(array(tmp_path, both_sides(20)[0]), model)
    new = first_weights(array(tmp_path, both_sides(20, seed=5)[0]), model)
    assert len(fits) == 2
    assert not torch.allclose(old.mean, new.mean)


def test_of_very_many_images_an_even_share_is_fitted(tmp_path, fits, monkeypatch):
    monkeypatch.setattr(module, "_MOST_EARS", 10)
    images = one_sided(41)
    weights = first_weights(array(tmp_path, images), ModelConfig(image_size=32, latent_dim=4))
    assert fits == [10]
    rows = images[[0, 4, 9, 13, 18, 22, 27, 31, 36, 40]]
    np.testing.assert_allclose(weights.mean, turned(rows, sides(rows)).mean(axis=0), atol=1e-5)


def test_training_begins_with_the_fit_and_keeps_the_path_as_it_is(ears: Path, tmp_path: Path):
    import earteach as package

    result = earteach(
        "train", *data_options(ears), *run_options(tmp_path), *TINY_RUN, "--epochs", 1, "--json"
    )
    assert result.code == 0, result.err
    model = package.load(tmp_path / "checkpoints" / "last.ckpt")
    weights = first_weights(EarArray.open(ears / "train_teacher.npy"),
                            ModelConfig(image_size=32, base_channels=8, latent_dim=16))  # fmt: skip
    for name, value in vars(weights).items():
        assert torch.equal(getattr(model.linear, name), value), name
