"""The linear path: an ear and its mirror image are one ear, and PCA is what it computes."""

import math

import numpy as np
import pytest
import torch
from skimage.transform import resize

from earteach.model.loss import squared_error
from earteach.model.pca_path import PCAPath, logits, mirrored, shrink_factor
from earteach.model.vae import EarVAE
from tests.model.networks import SHAPES, lively, network, random_weights


def images_for(model: EarVAE, number: int = 6, seed: int = 1) -> torch.Tensor:
    shape = (number, model.in_channels, model.image_size, model.image_size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("size", "latent", "base", "channels"), SHAPES)
def test_the_mirror_image_is_reconstructed_as_the_mirror_image(size, latent, base, channels):
    model = lively(size, latent, base, channels)
    images = images_for(model)
    with torch.no_grad():
        seen, turned = model.reconstruct(images), model.reconstruct(images.flip(3))
    assert torch.equal(turned, seen.flip(3))
    assert (turned - seen).abs().max() > 1e-3  # no image here is its own mirror image


def test_both_sides_occur_among_images_of_chance():
    model = lively()
    faces = model.encode(images_for(model, 40))[0][:, -1]
    assert 0 < (faces > 0).sum() < 40


@pytest.mark.parametrize(("size", "latent", "base", "channels"), SHAPES)
def test_only_the_last_number_of_a_code_tells_the_sides_apart(size, latent, base, channels):
    model = lively(size, latent, base, channels)
    assert model.side_dimension == latent - 1
    images = images_for(model)
    with torch.no_grad():
        mu, logvar = model.encode(images)
        mu_turned, logvar_turned = model.encode(images.flip(3))
    assert torch.equal(mu[:, :-1], mu_turned[:, :-1])
    assert torch.equal(mu[:, -1], -mu_turned[:, -1])
    assert (mu[:, -1].abs() == 1).all()
    assert torch.equal(logvar, logvar_turned)
    # Seven standard deviations from a code that would turn the ear round.
    assert (1 / (logvar[:, -1] / 2).exp() > 7).all()


def test_a_code_with_the_other_sign_last_is_the_mirrored_picture():
    model = lively()
    codes = torch.randn(5, 16, generator=torch.Generator().manual_seed(3))
    other = codes.clone()
    other[:, -1] *= -1
    further = codes.clone()
    further[:, -1] *= 7  # the sign alone counts
    with torch.no_grad():
        pictures = model.decode(codes)
        assert torch.equal(model.decode(other), pictures.flip(3))
        assert torch.equal(model.decode(further), pictures)


def test_a_code_that_names_no_side_looks_to_the_networks():
    model, codes = lively(), torch.randn(2, 16, generator=torch.Generator().manual_seed(3))
    codes[:, -1] = 0
    sided = codes.clone()
    sided[:, -1] = 1
    with torch.no_grad():
        assert torch.equal(model.decode(codes), model.decode(sided))


@pytest.mark.parametrize(("size", "channels"), [(48, 3), (128, 1), (192, 3)])
def test_before_it_is_loaded_every_code_is_gray(size, channels):
    path = PCAPath(channels, 5, size)
    pictures = path.decode(torch.randn(2, 4, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(pictures, torch.full((2, channels, size, size), 0.5))


def test_features_lie_as_the_image_does():
    model = lively()
    images = images_for(model)
    with torch.no_grad():
        levels, turned = model.features(images), model.features(images.flip(3))
    for level, level_turned in zip(levels, turned, strict=True):
        assert torch.equal(level_turned, level.flip(3))
    # A stripe at the left edge changes the left of the maps, whichever side the encoder looked at.
    striped = images.clone()
    striped[..., :2] = 1 - striped[..., :2]
    with torch.no_grad():
        same = model.encode(striped)[0][:, -1] == model.encode(images)[0][:, -1]
        change = (model.features(striped)[0] - levels[0]).abs().mean(dim=(1, 2))[same]
    assert (change[:, :2].mean(dim=1) > 5 * change[:, 8:].mean(dim=1)).all()


def test_without_pca_init_mirrors_are_other_images():
    model = lively(pca_init=False)
    assert model.linear is None
    assert model.side_dimension is None
    images = images_for(model)
    with torch.no_grad():
        assert not torch.allclose(
            model.reconstruct(images.flip(3)), model.reconstruct(images).flip(3), atol=1e-4
        )
        mu, mu_turned = model.encode(images)[0], model.encode(images.flip(3))[0]
    assert ((mu[:, :-1] - mu_turned[:, :-1]).abs().amax(dim=1) > 1e-4).all()


def by_hand(path: PCAPath, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whitened codes, sides and pictures at the path's size, in double precision."""
    mean, components, variances, rotation = (
        getattr(path, name).double().numpy()
        for name in ("mean", "components", "variances", "rotation")
    )
    k, (channels, side, _) = path.shrink, path.shape

    def rows(x: np.ndarray) -> np.ndarray:
        cells = x.reshape(len(x), channels, side, k, side, k)
        return cells.mean(axis=(3, 5)).reshape(len(x), -1) - mean

    x = images.double().numpy()
    both = [rows(x), rows(x[..., ::-1])]
    residuals = [r - r @ components.T @ components for r in both]
    faces = (residuals[0] ** 2).sum(axis=1) <= (residuals[1] ** 2).sum(axis=1)
    scores = np.where(faces[:, None], *both) @ components.T
    pictures = (scores @ components + mean).reshape(-1, channels, side, side)
    return scores / np.sqrt(variances) @ rotation, faces, pictures


@pytest.mark.parametrize(("size", "latent", "base", "channels"), SHAPES)
def test_codes_and_pictures_are_those_of_pca_by_hand(size, latent, base, channels):
    model = network(size, latent, base, channels)
    model.init_from_pca(random_weights(model), 1e-4)
    images = images_for(model)
    codes, faces, pictures = by_hand(model.linear, images)
    with torch.no_grad():
        mu, _ = model.encode(images)
        seen = model.reconstruct(images).numpy()
    np.testing.assert_allclose(mu[:, :-1], codes, rtol=1e-3, atol=2e-3)
    assert np.array_equal(mu[:, -1] > 0, faces)
    large = np.stack([
        np.stack([resize(plane, (size, size), order=1, mode="edge") for plane in picture])
        for picture in pictures
    ])  # fmt: skip
    oriented = np.where(faces[:, None, None, None], large, large[..., ::-1])
    np.testing.assert_allclose(seen, oriented.clip(0.01, 0.99), atol=1e-3)


@pytest.mark.parametrize(
    ("size", "factor"),
    [(32, 1), (48, 1), (64, 1), (80, 2), (96, 2), (128, 2), (144, 3), (176, 4), (256, 4), (272, 8)],
)
def test_the_path_works_at_the_largest_whole_fraction_of_at_most_64_pixels(size, factor):
    assert shrink_factor(size) == factor
    assert size % factor == 0
    assert size // factor <= 64
    assert all(size % k or size // k > 64 for k in range(1, factor))


@pytest.mark.parametrize("size", [32, 48])
def test_the_cost_of_noise_is_that_of_a_trial(size):
    model = network(size, 12, 2, 3)
    model.init_from_pca(random_weights(model), 1e-4)
    generator = torch.Generator().manual_seed(0)
    gain = model.linear.noise_gain()
    still = model.linear.decode(torch.zeros(1, 11))
    for dimension in range(11):
        codes = torch.zeros(2000, 11)
        codes[:, dimension] = torch.randn(2000, generator=generator)
        cost = squared_error(model.linear.decode(codes), still).mean() * 3 * size**2
        assert cost.item() == pytest.approx(gain[dimension].item(), rel=0.12)
    codes = torch.randn(2000, 11, generator=generator)
    cost = squared_error(model.linear.decode(codes), still).mean() * 3 * size**2
    assert cost.item() == pytest.approx(gain.sum().item(), rel=0.05)


def test_the_cost_of_noise_in_large_smooth_pictures():
    """Ears are smooth; what is enlarged costs then as much as its pixels do together."""
    model = network(144, 4, 2, 1)
    weights = random_weights(model)
    axis = torch.linspace(0, math.pi, 48)
    waves = [torch.outer((k * axis).cos(), axis.cos()).flatten() for k in range(3)]
    weights = type(weights)(
        weights.mean, torch.stack([w / w.norm() for w in waves]), weights.variances, torch.eye(3)
    )
    model.init_from_pca(weights, 1e-4)
    pictures = model.linear.decode(torch.eye(3)) - model.linear.decode(torch.zeros(1, 3))
    wanted = pictures.square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(model.linear.noise_gain(), wanted, rtol=0.02, atol=0)


def test_the_first_logvar_by_hand():
    model = network(32, 16, 8, 3)
    weights = random_weights(model)
    model.init_from_pca(weights, 1e-4)
    # The picture of a code z is mean + Σ_k (Σ_j z_j R_kj) √v_k c_k; the c_k are orthonormal, so a
    # unit of z_j costs Σ_k R_kj² v_k.
    rotation, variances = weights.rotation.double().numpy(), weights.variances.double().numpy()
    gain = np.array([sum(rotation[k, j] ** 2 * variances[k] for k in range(15)) for j in range(15)])
    weight = 1e-4 * 3 * 32 * 32
    wanted = np.log(weight / (2 * gain + weight))
    assert np.ptp(wanted) > 0.1
    images = images_for(model)
    with torch.no_grad():
        _, logvar = model.encode(images)
    np.testing.assert_allclose(logvar[:, :-1], np.tile(wanted, (len(images), 1)), atol=1e-4)
    assert (logvar[:, -1] == -4).all()


def test_a_posterior_is_never_begun_wider_than_the_prior():
    model = network()
    weights = random_weights(model)
    unused = type(weights)(
        weights.mean, 0 * weights.components, weights.variances, weights.rotation
    )
    model.init_from_pca(unused, 0.002)
    _, logvar = model.encode(images_for(model))
    assert (logvar[:, :-1] == 0).all()
    model.init_from_pca(weights, 0.0)
    _, logvar = model.encode(images_for(model))
    np.testing.assert_allclose(logvar.detach()[:, :-1], math.log(1e-4), rtol=1e-5)


def test_the_path_is_stored_but_not_trained():
    model = lively()
    assert not any(name.startswith("linear") for name, _ in model.named_parameters())
    stored = {name for name in model.state_dict() if name.startswith("linear")}
    assert stored == {f"linear.{n}" for n in ("mean", "components", "variances", "rotation")}
    again = network()
    again.load_state_dict(model.state_dict())
    images = images_for(model)
    assert torch.equal(again.reconstruct(images), model.reconstruct(images))


def test_in_autocast_the_path_is_that_of_float32():
    """A tenth of a percent of a picture is what eigenears are measured to."""
    model = network()
    model.init_from_pca(random_weights(model), 1e-4)
    images = images_for(model)
    with torch.no_grad():
        wanted = model.reconstruct(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            seen = model.reconstruct(images)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen, wanted, rtol=0, atol=1e-5)


def test_logits_by_hand():
    values = torch.tensor([-3.0, 0.0, 0.005, 0.01, 0.3, 0.5, 0.99, 1.0, 2.0])
    clipped = [0.01, 0.01, 0.01, 0.01, 0.3, 0.5, 0.99, 0.99, 0.99]
    wanted = torch.tensor([math.log(p / (1 - p)) for p in clipped])
    torch.testing.assert_close(logits(values), wanted, rtol=1e-4, atol=1e-5)


def test_mirrored_exchanges_left_and_right_of_the_ones_picked():
    x = torch.arange(24.0).reshape(2, 1, 3, 4)
    assert mirrored(x)[0, 0, 0].tolist() == [3, 2, 1, 0]
    seen = mirrored(x, torch.tensor([False, True]))
    assert torch.equal(seen[0], x[0])
    assert seen[1, 0, 2].tolist() == [23, 22, 21, 20]


def test_the_error_of_a_picture_is_that_of_the_picture_where_images_were_few():
    """Components that too few images left out change no picture, whatever their code."""
    model = network()
    weights = random_weights(model)
    weights.components[5:] = 0
    weights.variances[5:] = 1
    model.linear.load_weights(weights)
    torch.manual_seed(3)
    error = torch.randn(400, len(weights.variances))
    pictures = model.linear.decode(error) - model.linear.decode(torch.zeros(1, len(error[0])))
    squared = pictures.square().flatten(1).sum(dim=1)
    expected = squared / weights.variances[:5].sum()
    torch.testing.assert_close(model.linear.picture_error(error), expected, rtol=1e-4, atol=1e-6)
    assert model.linear.picture_error(error).mean() == pytest.approx(1, rel=0.1)


def test_an_image_that_is_its_own_mirror_looks_to_the_networks_side():
    model = lively(32, 16, 8, 3)
    images = images_for(model)
    assert (model.encode((images + images.flip(3)) / 2)[0][:, -1] == 1).all()


def test_the_decoder_adds_to_the_logits_of_the_linear_picture():
    model = lively(32, 16, 8, 3)
    codes = torch.randn(4, 16, generator=torch.Generator().manual_seed(2))
    codes[:, -1] = 1
    picture = model.linear.decode(codes[:, :-1])
    sideless = torch.cat([codes[:, :-1], torch.zeros(4, 1)], dim=1)
    added = model.decoder(sideless, picture)
    clipped = picture.clamp(0.01, 0.99)
    expected = 1 / (1 + (1 - clipped) / clipped * torch.exp(-added))
    torch.testing.assert_close(model.decode(codes), expected)
    assert added.abs().max() > 0.01


@pytest.mark.parametrize(("height", "width"), [(48, 32), (32, 48), (50, 70)])
def test_features_of_images_of_which_one_side_may_be_the_networks(height, width):
    model = lively(32, 16, 8, 3)
    maps = model.features(torch.rand(2, 3, height, width))
    assert [tuple(level.shape[2:]) for level in maps] == [
        (-(-height // stride), -(-width // stride)) for stride in (2, 4, 8, 16)
    ]
