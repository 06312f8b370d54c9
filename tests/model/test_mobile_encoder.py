"""The mobile encoder: small, with its teacher's shapes, and alike on both sides."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from earteach.config import ModelConfig
from earteach.model.encoder_decoder import MobileEncoder
from earteach.model.mobile_encoder import InvertedResidual, Side, mobile_widths
from earteach.model.summary import summarise
from earteach.model.vae import EarVAE
from tests.model.networks import SHAPES, network, random_weights


def mobile(
    image_size: int = 32,
    latent_dim: int = 16,
    base: int = 8,
    channels: int = 3,
    *,
    sided: bool = True,
) -> EarVAE:
    """A student all of whose paths do something."""
    torch.manual_seed(0)
    model = EarVAE(
        in_channels=channels, latent_dim=latent_dim, base_channels=base, image_size=image_size,
        pca_init=sided, encoder="mobile",
    )  # fmt: skip
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    if model.linear is not None:
        model.linear.load_weights(random_weights(model))
    return model


def images(model: EarVAE, number: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    size = model.image_size
    return torch.rand(number, model.in_channels, size, size, generator=generator)


def test_it_has_less_than_a_million_parameters_at_the_defaults():
    with torch.device("meta"):
        student = EarVAE.from_config(ModelConfig(encoder="mobile"))
        teacher = EarVAE.from_config(ModelConfig())
    count = sum(p.numel() for p in student.encoder.parameters())
    assert 500_000 < count < 1_000_000
    assert count < sum(p.numel() for p in teacher.encoder.parameters()) / 4
    # Nothing fixed beside them either.
    assert not list(student.encoder.buffers())


@pytest.mark.parametrize("sided", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_codes_and_features_have_the_teachers_shapes(shape, sided):
    size, latent_dim, base, channels = shape
    student = mobile(size, latent_dim, base, channels, sided=sided)
    teacher = network(size, latent_dim, base, channels, pca_init=sided)
    x = images(student, 2)
    with torch.no_grad():
        for a, b in zip(student.encode(x), teacher.encode(x), strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
        seen, wanted = student.features(x), teacher.features(x)
        assert [level.shape for level in seen] == [level.shape for level in wanted]
        assert [level.shape[1] for level in seen] == list(student.feature_channels)
        assert student.reconstruct(x).shape == x.shape


def test_an_ear_and_its_mirror_image_differ_in_the_last_number_alone():
    model = mobile()
    x = images(model, 16)
    with torch.no_grad():
        (mu, logvar), (turned, turned_logvar) = model.encode(x), model.encode(x.flip(3))
        assert torch.equal(mu[:, :-1], turned[:, :-1])
        assert torch.equal(mu[:, -1], -turned[:, -1])
        assert torch.equal(logvar, turned_logvar)
        assert set(mu[:, -1].tolist()) == {-1, 1}
        for level, other in zip(model.features(x), model.features(x.flip(3)), strict=True):
            torch.testing.assert_close(level, other.flip(3))


def test_it_encodes_without_the_linear_path():
    model = mobile()
    x = images(model)
    with torch.no_grad():
        before = model.encode(x)[0]
        model.linear = None  # nothing of it is missed but that the code has a side
        seen = model.encoder(x)[0]
        faces = model.side_logits(x) >= 0
        turned = model.encoder(x.flip(3))[0]
    wanted = torch.where(faces[:, None], seen, turned)
    assert torch.equal(before[:, :-1], wanted[:, :-1])


def test_the_side_is_odd_under_the_mirror():
    side = Side(48)
    x = torch.rand(8, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(side(x), -side(x.flip(3)))
        assert side(x).abs().min() > 0
        symmetric = x + x.flip(3)
        assert side(symmetric).abs().max() == 0


@pytest.mark.parametrize("sided", [True, False])
def test_one_pass_gives_what_two_give(sided):
    for model in (mobile(sided=sided), network(pca_init=sided)):
        x = images(model)
        with torch.no_grad():
            seen = model.encode_all(x)
            assert all(map(torch.equal, seen.code, model.encode(x)))
            assert all(map(torch.equal, seen.maps, model.features(x)))
            assert (seen.faces is None) == (not sided)
            if seen.faces is not None:
                assert torch.equal(seen.faces, model.encode(x)[0][:, -1] > 0)


def test_it_can_be_told_the_side():
    model = mobile()
    x = images(model)
    with torch.no_grad():
        told = torch.tensor([True, False, True, False])
        seen = model.encode_all(x, told)
        turned = torch.where(told[:, None, None, None], x, x.flip(3))
        assert torch.equal(seen.code[0][:, :-1], model.encoder(turned)[0][:, :-1])
        assert torch.equal(seen.code[0][:, -1], torch.tensor([1.0, -1, 1, -1]))


def test_an_inverted_residual_is_its_formula():
    torch.manual_seed(0)
    block = InvertedResidual(8, 8)
    x = torch.randn(2, 8, 6, 6)
    norm, widen, _, deep, _, narrow = block.branch
    seen = functional.group_norm(x, 8, norm.weight, norm.bias)
    wide = torch.einsum("oi,bihw->bohw", widen.weight[:, :, 0, 0], seen)
    wide = (wide + widen.bias[:, None, None]).clamp(0, 6)
    assert wide.shape[1] == 4 * 8
    each = [
        functional.conv2d(wide[:, [c]], deep.weight[[c]], deep.bias[[c]], padding=1)
        for c in range(32)
    ]
    wide = torch.cat(each, dim=1).clamp(0, 6)
    wanted = torch.einsum("oi,bihw->bohw", narrow.weight[:, :, 0, 0], wide)
    with torch.no_grad():
        torch.testing.assert_close(block(x), x + wanted + narrow.bias[:, None, None])
        assert InvertedResidual(8, 12, stride=2)(x).shape == (2, 12, 3, 3)


@pytest.mark.parametrize("size", [32, 48, 144])
def test_the_first_glance_is_the_best_linear_guess(size):
    """Beside ridge regression on images that the model of the path's codes and noise makes."""
    teacher = network(size, 16, 2)
    teacher.init_from_pca(random_weights(teacher), 1e-4)
    path = teacher.linear
    student = mobile(size, 16, 2)
    assert path is not None
    assert isinstance(student.encoder, MobileEncoder)
    student.encoder.init_from_pca(path)
    generator = torch.Generator().manual_seed(3)
    codes = torch.randn(20_000, 15, generator=generator)
    scores = (codes @ path.rotation.T) * path.variances.sqrt()
    finest = path.shape[1]
    to_coarse = functional.adaptive_avg_pool2d(
        path.components.reshape(15, *path.shape), 16
    ).flatten(1)
    noise = (path.variances.min() ** 0.5) * 16 / finest
    coarse = scores @ to_coarse + noise * torch.randn(20_000, 768, generator=generator)
    seen, wanted = coarse.double().numpy(), codes.double().numpy()
    found = np.linalg.solve(seen.T @ seen, seen.T @ wanted)
    weight = student.encoder.glance.to_code.weight[:15].detach().numpy()
    np.testing.assert_allclose(
        weight @ to_coarse.numpy().T, found.T @ to_coarse.numpy().T, atol=0.02
    )
    mean = functional.interpolate(path.mean.reshape(1, *path.shape), size=(size, size))
    with torch.no_grad():  # the mean image has the mean code
        assert student.encoder.glance(mean)[:, :15].abs().max() < 1e-3


@pytest.mark.parametrize("sided", [True, False])
def test_it_is_counted(sided):
    model = mobile(sided=sided)
    summary = summarise(model)
    assert summary.parts["encoder"] == sum(p.numel() for p in model.encoder.parameters())
    assert any(layer.name == "encoder.side" for layer in summary.layers) == sided


def test_the_code_is_the_sum_of_what_the_convolutions_and_the_glance_say():
    encoder = mobile().encoder
    x = images(mobile())
    *_, deepest = encoder.levels(x)
    convolved, width = encoder.to_code(encoder.squeeze(deepest))
    glance = encoder.glance.to_code
    glanced = functional.avg_pool2d(x, 2).flatten(1) @ glance.weight.T + glance.bias
    mu, logvar = encoder(x)
    assert min(convolved.abs().max(), glanced.abs().max()) > 0.1
    torch.testing.assert_close(mu, convolved + glanced)
    torch.testing.assert_close(logvar, width)


def test_a_mixed_code_hears_from_all_places_too():
    to_code = mobile(64, 8).encoder.to_code
    deepest = torch.randn(3, 12, 4, 4, generator=torch.Generator().manual_seed(3))
    neck = to_code.neck(deepest)
    places = functional.avg_pool2d(neck, to_code.patch).flatten(1)
    alone, mixed = to_code.mu(neck).flatten(1), to_code.mix(places)
    assert min(alone.abs().max(), mixed.abs().max()) > 0.1
    torch.testing.assert_close(to_code(deepest)[0], alone + mixed)


def test_its_layers_are_as_large_as_counted_by_hand():
    with torch.device("meta"):
        encoder = EarVAE.from_config(
            ModelConfig(encoder="mobile", base_channels=32, latent_dim=64, image_size=64)
        ).encoder

    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    def residual(before, after):
        wide = 4 * before
        return 2 * before + (before + 1) * wide + 10 * wide + (wide + 1) * after

    assert list(map(count, encoder.blocks)) == [
        28 * 8,
        residual(8, 12) + residual(12, 12),
        residual(12, 24) + 2 * residual(24, 24),
        residual(24, 48) + 3 * residual(48, 48),
    ]
    assert list(map(count, encoder.heads)) == [9 * 32, 13 * 64, 25 * 128, 49 * 256]
    # A neck of 64 channels, 4 numbers for each of 4 by 4 places, and for each a look at all places.
    assert count(encoder.to_code) == (2 * 48 + 49 * 64 + 65 * 4 + 64 * 16 * 64 + 64 * 4 + 64)
    assert count(encoder.glance) == (3 * 16 * 16 + 1) * 64
    # 64 pixels a side are halved to 32, then to 16, 8 and 4.
    assert count(encoder.side) == 12 * 16 + (9 * 16 + 3) * 32 + (9 * 32 + 3) * 64 + 64 * 4 * 4
    assert mobile_widths(1) == [1, 1, 1, 1]
    assert mobile(sided=False).encoder.side is None
