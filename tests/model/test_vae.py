"""All four networks: shapes, modes, gradients, and what must not matter to them."""

import copy

import pytest
import torch

from earteach.model.pooled_features import pooled
from earteach.model.vae import ConvVAE
from tests.model.networks import KINDS, SHAPES, images_for, lively


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> ConvVAE:
    return lively(**KINDS[request.param])


@pytest.fixture
def images(model: ConvVAE) -> torch.Tensor:
    return images_for(model, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape, kind):
    size, latent, base, channels = shape
    model = lively(*shape, **KINDS[kind])
    x = images_for(model, 2)
    with torch.no_grad():
        reconstruction, mu, logvar = model(x, torch.randn(2, latent))
        assert mu.shape == logvar.shape == (2, latent)
        assert reconstruction.shape == model.reconstruct(x).shape == x.shape
        assert model.sample(3).shape == (3, channels, size, size)
        maps = model.features(x)
    assert model.feature_channels == (base, 2 * base, 4 * base, 8 * base)
    assert [tuple(level.shape) for level in maps] == [
        (2, base * width, size // stride, size // stride)
        for width, stride in [(1, 2), (2, 4), (4, 8), (8, 16)]
    ]
    for tensor in (reconstruction, mu, logvar):
        assert tensor.dtype == torch.float32
        assert tensor.isfinite().all()
    assert 0 < reconstruction.min() < reconstruction.max() < 1


def test_every_view_comes_from_one_pass(model, images):
    with torch.no_grad():
        output = model.encode_all(images)
        mu, logvar = model.encode(images)
        maps = model.features(images)
        embedded = model.embed(images)
        torch.testing.assert_close((output.mu, output.logvar), (mu, logvar))
        torch.testing.assert_close(output.maps, maps)
        described = maps if model.pyramid is None else model.pyramid(maps)
        torch.testing.assert_close(embedded, (mu, logvar, pooled(described)))
        assert model.encode_all(images, maps=False).maps == []
        assert torch.equal(model.reconstruct(images), model.decode(mu))
        noise = torch.randn(3, 16)
        noisy = model.decode((mu.double() + logvar.double().exp().sqrt() * noise).float())
        torch.testing.assert_close(model(images, noise), (noisy, mu, logvar))


@pytest.mark.parametrize("kind", KINDS)
def test_features_beside_other_images_are_those_of_two_passes(kind):
    model = lively(**KINDS[kind])
    images = images_for(model, 6)
    shown, others = images[:2], torch.cat([images[2:4], images[4:].flip(3)])
    with torch.no_grad():
        together = model.features_beside(shown, others)
        as_they_lie = model.encoder.maps(model.encoder(shown))
        for both, first, second in zip(together, as_they_lie, model.features(others), strict=True):
            torch.testing.assert_close(both, torch.cat([first, second]))


def gradients(model: ConvVAE) -> dict[str, torch.Tensor | None]:
    model.zero_grad()
    noise = torch.randn(4, model.latent_dim, generator=torch.Generator().manual_seed(2))
    reconstruction, mu, logvar = model(images_for(model, 4), noise)
    loss = reconstruction.square().mean() + 1e-3 * (mu.square() - logvar + logvar.exp()).mean()
    maps = model.features(images_for(model))
    levels = [*maps, *model.pyramid(maps), model.landmark_heat(images_for(model))]
    (loss + 1e-3 * sum(level.square().mean() for level in levels)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", [8, 5])
def test_gradients_reach_every_parameter(base, kind):
    for name, gradient in gradients(lively(32, 16, base, 3, **KINDS[kind])).items():
        if name.startswith("side."):  # distillation trains it with a loss of its own
            continue
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        assert gradient.abs().sum() > 0, name


def test_no_method_changes_the_mode_or_draws_hidden_random_numbers(model, images):
    model.train()
    model.decoder.eval()
    before = {name: module.training for name, module in model.named_modules()}
    state = torch.get_rng_state()
    first = model.reconstruct(images)
    model.embed(images)
    model.sample(2, torch.Generator())
    assert {name: module.training for name, module in model.named_modules()} == before
    assert torch.equal(torch.get_rng_state(), state)
    model.eval()
    assert torch.equal(model.reconstruct(images), first)


LAYOUTS = {
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "every second": lambda x: torch.stack([x, x], dim=1).flatten(0, 1)[::2],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_layout_in_memory_does_not_matter(model, images, layout):
    other = layout(images)
    assert torch.equal(other, images)
    assert other.stride() != images.stride()
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(model.features(other), model.features(images), **close)
    torch.testing.assert_close(model.encode(other), model.encode(images), **close)
    codes = torch.randn(16, 3).T
    torch.testing.assert_close(model.decode(codes), model.decode(codes.contiguous()), **close)


def test_an_image_does_not_depend_on_its_batch(model, images):
    together = model.reconstruct(images)
    alone = torch.cat([model.reconstruct(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-5


def test_input_of_another_shape_is_a_value_error(model):
    for shape in [(3, 32, 32), (1, 1, 32, 32), (1, 3, 48, 48), (1, 3, 32, 48), (1, 32, 32, 3)]:
        for method in (model.encode, model.reconstruct):
            with pytest.raises(ValueError, match=r"this network takes \(B, 3, 32, 32\)"):
                method(torch.rand(shape))
    for shape in [(3, 32, 32), (1, 1, 32, 32), (1, 32, 32, 3)]:
        with pytest.raises(ValueError, match=r"this network takes \(B, 3, H, W\)"):
            model.features(torch.rand(shape))
    for shape in [(16,), (2, 8), (1, 32), (1, 1, 16), (1, 4, 2, 2)]:
        with pytest.raises(ValueError, match=r"this network takes \(B, 16\)"):
            model.decode(torch.rand(shape))


def test_logvar_stays_where_its_exponential_is_finite(model, images):
    wild = copy.deepcopy(model)
    for value in (1e9, -1e9):
        torch.nn.init.constant_(wild.encoder.to_code.first_logvar, value)
        _, logvar = wild.encode(images)
        assert logvar.exp().isfinite().all()
        assert (logvar.exp() > 0).all()


@pytest.mark.parametrize("latent", [16, 10, 2])
def test_samples_follow_from_the_seed_alone(latent):
    model = lively(32, latent, pca_init=False)

    def sampled(*numbers: int, seed: int = 3) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.cat([model.sample(number, generator) for number in numbers])

    together = sampled(6)
    # Drawn in one call, torch's normal numbers would depend on how many there are.
    for numbers in [(1, 5), (2, 2, 2), (4, 2)]:
        torch.testing.assert_close(sampled(*numbers), together, rtol=1e-4, atol=1e-5)
    assert (sampled(6, seed=4) - together).abs().max() > 1e-4


def test_sampled_codes_are_standard_normal(model, monkeypatch):
    codes: list[torch.Tensor] = []
    monkeypatch.setattr(model, "decode", codes.append)
    model.sample(4000, torch.Generator().manual_seed(0))
    assert codes[0].shape == (4000, 16)
    assert codes[0].mean(dim=0).abs().max() < 0.08
    assert (torch.cov(codes[0].T) - torch.eye(16)).abs().max() < 0.1
