"""The network: shapes, modes, gradients, and what must not matter to it."""

import copy
import inspect
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import Conv2d

from earteach.config import ModelConfig
from earteach.model.blocks import code_grid
from earteach.model.pooled_features import pooled
from earteach.model.vae import EarVAE, reparameterise
from tests.model.networks import SHAPES, lively, network, random_weights


@pytest.fixture(scope="module", params=[True, False], ids=["pca_init", "no_pca_init"])
def model(request: pytest.FixtureRequest) -> EarVAE:
    return lively(pca_init=request.param)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_the_defaults_are_those_of_the_options():
    parameters = inspect.signature(EarVAE).parameters
    assert {name: each.default for name, each in parameters.items()} == asdict(ModelConfig())


@pytest.mark.parametrize("pca_init", [True, False])
@pytest.mark.parametrize(("size", "latent", "base", "channels"), SHAPES)
def test_shapes(size, latent, base, channels, pca_init):
    model = lively(size, latent, base, channels, pca_init=pca_init)
    x = torch.rand(2, channels, size, size)
    reconstruction, mu, logvar = model(x, torch.randn(2, latent))
    assert mu.shape == logvar.shape == (2, latent)
    assert reconstruction.shape == model.reconstruct(x).shape == x.shape
    assert model.sample(3).shape == (3, channels, size, size)
    assert [tuple(f.shape) for f in model.features(x)] == [
        (2, base * width, size // stride, size // stride)
        for width, stride in [(1, 2), (2, 4), (4, 8), (8, 16)]
    ]
    for tensor in (reconstruction, mu, logvar):
        assert tensor.dtype == torch.float32
        assert tensor.isfinite().all()
    assert reconstruction.min() > 0
    assert reconstruction.max() < 1


@pytest.mark.parametrize("pca_init", [True, False])
def test_the_default_network_is_small_and_not_its_bottleneck(pca_init):
    with torch.device("meta"):
        model = EarVAE.from_config(ModelConfig(pca_init=pca_init))

    def count(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(model) < 25e6
    bottleneck = count(model.encoder.to_code) + count(model.decoder.from_code)
    assert bottleneck < 0.1 * count(model)


def kinds(module: torch.nn.Module) -> list[str]:
    return [type(part).__name__ for part in module.modules()]


def test_attention_in_each_of_four_blocks_and_squeeze_excitation_in_both_halves():
    model = network()
    assert [type(block).__name__ for block in model.encoder.blocks] == ["DownBlock"] * 4
    assert [type(block).__name__ for block in model.decoder.blocks] == ["UpBlock"] * 3
    # The fourth block up makes the image.
    for block in [*model.encoder.blocks, *model.decoder.blocks, model.decoder.to_image]:
        assert kinds(block).count("ChannelAttention") == 1
        assert kinds(block).count("SpatialAttention") == 1
    for half in (model.encoder, model.decoder):
        assert kinds(half).count("SqueezeExcitation") == 1


def gradients(model: EarVAE) -> dict[str, torch.Tensor | None]:
    model.zero_grad()
    generator = torch.Generator().manual_seed(2)
    size, latent = model.image_size, model.latent_dim
    reconstruction, mu, logvar = model(
        torch.rand(4, model.in_channels, size, size, generator=generator),
        torch.randn(4, latent, generator=generator),
    )
    loss = reconstruction.square().mean() + 1e-3 * (mu.square() - logvar + logvar.exp()).mean()
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("pca_init", [True, False])
@pytest.mark.parametrize("base", [8, 16, 5])
def test_gradients_reach_every_parameter(base, pca_init):
    model = lively(32, 16, base, 3, pca_init=pca_init)
    for name, gradient in gradients(model).items():
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        assert gradient.abs().sum() > 0, name


@pytest.mark.parametrize("pca_init", [True, False])
def test_what_begins_at_zero_learns_from_the_first_step_and_all_else_soon(pca_init):
    model = network(pca_init=pca_init)
    if pca_init:
        model.init_from_pca(random_weights(model), 1e-4)
    silent = {name for name, p in model.named_parameters() if p.abs().max() == 0}
    heads = {"encoder.to_code.logvar.weight", "encoder.to_code.mu.weight"}
    heads |= {"decoder.to_image.1.conv.weight"}
    assert heads & silent == (heads if pca_init else {"encoder.to_code.logvar.weight"})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):  # from the last layers to the first
        seen = gradients(model)
        optimizer.step()
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in seen.values())


CALLS = {
    "encode": lambda model, x: model.encode(x)[0],
    "decode": lambda model, x: model.decode(torch.zeros(2, 16)),
    "reconstruct": lambda model, x: model.reconstruct(x),
    "sample": lambda model, x: model.sample(2),
    "features": lambda model, x: model.features(x)[-1],
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_method_changes_the_mode(model, images, call):
    model.train()
    model.decoder.eval()
    before = {name: module.training for name, module in model.named_modules()}
    call(model, images)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert set(before.values()) == {True, False}


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
    pairs = zip([*model.encode(images), *model.features(images)],
                [*model.encode(other), *model.features(other)], strict=True)  # fmt: skip
    for wanted, seen in [*pairs, (model.reconstruct(images), model.reconstruct(other))]:
        torch.testing.assert_close(seen, wanted, rtol=1e-4, atol=1e-5)
    codes = torch.randn(16, 3).T
    assert not codes.is_contiguous()
    torch.testing.assert_close(model.decode(codes), model.decode(codes.contiguous()))


@pytest.mark.parametrize("training", [True, False])
def test_reconstruct_decodes_mu_without_chance(model, images, training):
    model.train(training)
    state = torch.get_rng_state()
    first = model.reconstruct(images)
    assert torch.equal(first, model.reconstruct(images))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, model.decode(model.encode(images)[0]))


def test_an_image_does_not_depend_on_its_batch(model, images):
    together = model.reconstruct(images)
    for index, image in enumerate(images):
        alone = model.reconstruct(image[None])[0]
        torch.testing.assert_close(together[index], alone, rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-5  # they are not all one picture


@pytest.mark.parametrize(
    "shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 48, 48), (1, 3, 32, 48), (1, 32, 32, 3)]
)
@pytest.mark.parametrize("method", ["encode", "reconstruct"])
def test_images_of_another_shape_are_a_value_error(model, method, shape):
    with pytest.raises(ValueError, match=r"this network takes \(B, 3, 32, 32\)"):
        getattr(model, method)(torch.rand(shape))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 32, 32, 3)])
def test_features_of_other_channels_are_a_value_error(model, shape):
    with pytest.raises(ValueError, match=r"this network takes \(B, 3, H, W\)"):
        model.features(torch.rand(shape))


@pytest.mark.parametrize("shape", [(16,), (2, 8), (1, 32), (1, 1, 16), (1, 4, 2, 2)])
def test_codes_of_another_shape_are_a_value_error(model, shape):
    with pytest.raises(ValueError, match=r"this network takes \(B, 16\)"):
        model.decode(torch.rand(shape))


def test_reparameterise_by_hand():
    mu, noise = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, -1.0]])
    logvar = torch.tensor([[0.0, 2 * 1.0986123]])  # standard deviations 1 and 3
    torch.testing.assert_close(reparameterise(mu, logvar, noise), torch.tensor([[1.5, -5.0]]))


def test_forward_decodes_the_noisy_code(model, images):
    noise = torch.randn(3, 16)
    reconstruction, mu, logvar = model(images, noise)
    sigma = logvar.double().exp().sqrt()
    torch.testing.assert_close(reconstruction, model.decode((mu + sigma * noise).float()))


def test_logvar_stays_where_its_exponential_is_finite(model, images):
    wild = copy.deepcopy(model)
    for value in (1e9, -1e9):
        torch.nn.init.constant_(wild.encoder.to_code.first_logvar, value)
        _, logvar = wild.encode(images)
        assert logvar.exp().isfinite().all()
        assert (logvar.exp() > 0).all()


@pytest.mark.parametrize("pca_init", [True, False])
@pytest.mark.parametrize("latent", [16, 10, 1])
def test_samples_follow_from_the_seed_alone(latent, pca_init):
    model = lively(32, latent, pca_init=pca_init)
    state = torch.get_rng_state()

    def sampled(*numbers: int, seed: int = 3) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.cat([model.sample(number, generator) for number in numbers])

    together = sampled(6)
    # Drawn in one piece, torch's normal numbers would depend on how many are asked for at once.
    for numbers in [(1, 5), (2, 2, 2), (4, 2)]:
        torch.testing.assert_close(sampled(*numbers), together, rtol=1e-4, atol=1e-5)
    assert (sampled(6, seed=4) - together).abs().max() > 1e-4
    assert torch.equal(torch.get_rng_state(), state)


def test_sampled_codes_are_standard_normal(model, monkeypatch):
    codes: list[torch.Tensor] = []
    monkeypatch.setattr(model, "decode", codes.append)
    model.sample(4000, torch.Generator().manual_seed(0))
    (drawn,) = codes
    assert drawn.shape == (4000, 16)
    assert drawn.mean(dim=0).abs().max() < 0.08
    assert (drawn.std(dim=0) - 1).abs().max() < 0.06
    correlations = torch.corrcoef(drawn.T) - torch.eye(16)
    assert correlations.abs().max() < 0.08


def resized(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """By Pillow, whose bilinear filter is as wide as pixels shrink."""
    planes = [
        [np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))
         for plane in image]
        for image in images.numpy()
    ]  # fmt: skip
    return torch.from_numpy(np.array(planes))


@pytest.mark.parametrize("shape", [(32, 32), (40, 24), (80, 96)])
def test_the_encoder_sees_the_ear_on_its_side_and_what_eigenears_miss_of_it(shape):
    model = lively(32, 16, 8, 3)
    x = torch.rand(6, 3, *shape, generator=torch.Generator().manual_seed(2))
    seen = []
    model.encoder.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        model.features(x)
        code, faces = model.linear.encode(resized(x, 32, 32))
        picture = resized(model.linear.decode(code), *shape)
    assert 0 < faces.sum() < 6
    turned = torch.where(faces[:, None, None, None], x, x.flip(3))
    wanted = torch.cat([2 * turned - 1, 2 * (turned - picture)], dim=1)
    torch.testing.assert_close(seen[0], wanted, atol=1e-4, rtol=0)


def test_embed_gives_the_code_and_pooled_features():
    model = lively(32, 16, 8, 3)
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        mu, logvar, features = model.embed(x)
        torch.testing.assert_close((mu, logvar), model.encode(x))
        torch.testing.assert_close(features, pooled(model.features(x)))


def test_blocks_are_residual_and_convolutions_as_large_as_promised():
    model = lively(32, 16, 8, 3)
    x = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(2))
    halve, attend = model.encoder.blocks[0]
    with torch.no_grad():
        branch = attend.branch(x)
        assert branch.abs().max() > 0.01
        torch.testing.assert_close(attend(x), x + branch)
    assert (halve.kernel_size, halve.stride) == ((3, 3), (2, 2))
    sizes = {conv.kernel_size for conv in model.encoder.modules() if isinstance(conv, Conv2d)}
    # The spatial attention's (CBAM) are the large ones, the neck's and the code's the small ones.
    assert sizes == {(1, 1), (3, 3), (7, 7)}


def test_the_decoder_adds_what_the_first_picture_says():
    model = lively(32, 16, 8, 3)
    generator = torch.Generator().manual_seed(2)
    z, picture = (
        torch.randn(2, 16, generator=generator),
        torch.rand(2, 3, 32, 32, generator=generator),
    )
    decoder, seen = model.decoder, []
    decoder.to_image.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    decoder.blocks[-1].register_forward_hook(lambda _, given, drawn: seen.append(drawn))
    with torch.no_grad():
        decoder(z, picture)
        # Four pixels of each channel side by side, from -1 to 1.
        squares = (2 * picture - 1).reshape(2, 3, 16, 2, 16, 2).permute(0, 1, 3, 5, 2, 4)
        guide = decoder.from_picture(squares.reshape(2, 12, 16, 16))
    drawn, whole = seen
    assert guide.abs().max() > 0.01
    torch.testing.assert_close(whole, drawn + guide)


def test_the_grid_of_the_code_is_the_finest_of_four_that_divides():
    assert [code_grid(*shape) for shape in ((16, 64), (25, 80), (12, 64), (7, 64), (8, 32))] == [
        4, 1, 2, 1, 2,
    ]  # fmt: skip
    to_code = network().encoder.to_code
    assert to_code.mix is None
    assert kinds(to_code.neck)[1:] == ["GroupNorm", "SiLU", "Conv2d"]
    for half in (network().encoder, network().decoder):
        assert "SiLU" in kinds(half.squeeze)


def test_only_a_mobile_encoder_has_a_word_of_its_own_for_the_side():
    model = network()
    assert model.side_logits(torch.rand(2, 3, 32, 32)) is None
