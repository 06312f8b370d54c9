"""The network around PCA: it starts as PCA, and treats an ear and its mirror image alike."""

import numpy as np
import pytest
import torch
from PIL import Image

from earteach.model.canonical_side import side_by_residual
from earteach.model.pca_vae import SideClassifierPCAVAE
from tests.model.networks import SHAPES, images_for, lively


@pytest.mark.parametrize("encoder", ["attention", "mobile"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_mirror_image_differs_in_the_last_dimension_only(shape, encoder):
    model = lively(*shape, encoder=encoder)
    assert model.side_dimension == shape[1] - 1
    images = images_for(model)
    with torch.no_grad():
        (mu, logvar), (mu_mirrored, logvar_mirrored) = map(model.encode, (images, images.flip(3)))
        picture, picture_mirrored = map(model.reconstruct, (images, images.flip(3)))
        levels, levels_mirrored = map(model.features, (images, images.flip(3)))
    assert torch.equal(mu[:, :-1], mu_mirrored[:, :-1])
    assert torch.equal(mu[:, -1], -mu_mirrored[:, -1])
    assert (mu[:, -1].abs() == 1).all()
    assert torch.equal(logvar, logvar_mirrored)
    assert (1 / (logvar[:, -1] / 2).exp() > 7).all()  # standard deviations from the other side
    assert torch.equal(picture_mirrored, picture.flip(3))
    assert (picture_mirrored - picture).abs().max() > 1e-3
    for level, mirrored in zip(levels, levels_mirrored, strict=True):
        assert torch.equal(mirrored, level.flip(3))


def test_features_lie_as_the_image_does():
    """A stripe at the left edge changes the left of the maps, whichever way the ear faces."""
    model = lively()
    images = images_for(model, 40)
    striped = images.clone()
    striped[..., :2] = 1 - striped[..., :2]
    with torch.no_grad():
        plain, changed = model.encode_all(images), model.encode_all(striped)
    same = plain.is_canonical == changed.is_canonical
    change = (changed.maps[0] - plain.maps[0]).abs().mean(dim=(1, 2))[same]
    assert set(plain.is_canonical[same].tolist()) == {True, False}
    assert (change[:, :2].mean(dim=1) > 5 * change[:, 8:].mean(dim=1)).all()


def test_the_sign_of_the_last_dimension_mirrors_the_picture():
    model, codes = lively(), torch.randn(5, 16, generator=torch.Generator().manual_seed(3))
    codes[:, -1] = torch.tensor([1.0, 1, 1, 1, 0])
    with torch.no_grad():
        canonical = model.decode(codes)
        for side, expected in ((7, canonical), (0, canonical), (-0.1, canonical.flip(3))):
            codes[:, -1] = side
            assert torch.equal(model.decode(codes), expected)


def test_the_decoder_adds_to_the_logits_of_the_pca_picture():
    model = lively()
    codes = torch.randn(4, 16, generator=torch.Generator().manual_seed(2))
    codes[:, -1] = 1
    picture = model.pca.decode(codes[:, :-1])
    sideless = torch.cat([codes[:, :-1], torch.zeros(4, 1)], dim=1)
    residual = model.decoder(sideless, picture)
    clipped = picture.clamp(0.01, 0.99)
    expected = 1 / (1 + (1 - clipped) / clipped * torch.exp(-residual))
    torch.testing.assert_close(model.decode(codes), expected)
    assert residual.abs().max() > 0.01


def by_pillow(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resized by Pillow, whose bilinear filter is antialiased."""
    planes = [
        [np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))
         for plane in image]
        for image in images.numpy()
    ]  # fmt: skip
    return torch.from_numpy(np.array(planes))


@pytest.mark.parametrize("residual_input", [False, True])
@pytest.mark.parametrize("shape", [(32, 32), (40, 24), (80, 96)])
def test_the_encoder_gets_the_image_on_its_canonical_side(shape, residual_input):
    """In networks of version 1 also the residual of PCA."""
    model = lively(residual_input=residual_input)
    x = torch.rand(6, 3, *shape, generator=torch.Generator().manual_seed(2))
    inputs = []
    model.encoder.blocks[0].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        model.features(x)
        is_canonical, code = side_by_residual(by_pillow(x, 32, 32), model.pca)
        picture = by_pillow(model.pca.decode(code), *shape)
    assert 0 < is_canonical.sum() < 6
    oriented = torch.where(is_canonical[:, None, None, None], x, x.flip(3))
    expected = 2 * oriented - 1
    if residual_input:
        expected = torch.cat([expected, 2 * (oriented - picture)], dim=1)
    torch.testing.assert_close(inputs[0], expected, atol=1e-4, rtol=0)


def test_a_mobile_network_encodes_without_pca_and_can_be_given_the_side():
    model = lively(encoder="mobile")
    assert isinstance(model, SideClassifierPCAVAE)
    images = images_for(model)
    with torch.no_grad():
        output = model.encode_all(images)
        assert torch.equal(output.is_canonical, model.side(images) >= 0)
        for buffer in model.pca.buffers():
            buffer.fill_(float("nan"))
        assert torch.equal(model.encode(images)[0], output.mu)
        given = torch.tensor([True, False] * 3)
        turned = torch.where(given[:, None, None, None], images, images.flip(3))
        deepest = model.encoder(turned)[-1]
        expected, _ = model.encoder.posterior(turned, deepest)
        mu = model.encode_from_side(images, given).mu
    assert torch.equal(mu[:, :-1], expected[:, :-1])
    assert mu[:, -1].tolist() == [1, -1] * 3
