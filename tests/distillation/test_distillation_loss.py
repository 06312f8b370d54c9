"""The loss of a student, by hand in NumPy."""

import numpy as np
import pytest
import torch
from scipy.special import log_expit

from earteach.distillation.distillation_loss import distillation_loss
from earteach.model.pca_path import PCAPath
from earteach.model.vae import EncoderOutput
from tests.model.networks import network, random_weights

LATENT = 16


def percept(seed: int, faces: torch.Tensor | None) -> EncoderOutput:
    generator = torch.Generator().manual_seed(seed)
    code = tuple(torch.randn(4, LATENT, generator=generator) for _ in range(2))
    maps = [torch.randn(4, c, s, s, generator=generator) for c, s in ((8, 16), (16, 8))]
    return EncoderOutput((code[0], code[1]), maps, faces)


@pytest.fixture
def linear() -> PCAPath:
    model = network()
    model.init_from_pca(random_weights(model), 1e-4)
    assert model.linear is not None
    return model.linear


def by_hand(
    seen: EncoderOutput, wanted: EncoderOutput, linear: PCAPath | None
) -> tuple[float, float]:
    """Of codes and of features."""
    kept = LATENT if linear is None else LATENT - 1
    (mu, logvar), (mu_t, logvar_t) = (
        [np.float64(part.numpy())[:, :kept] for part in p.code] for p in (seen, wanted)
    )
    codes = ((mu - mu_t) ** 2).mean() + 0.1 * ((logvar - logvar_t) ** 2).mean()
    if linear is not None:
        one, other = (
            (linear.decode(p.code[0][:, :-1]) - linear.decode(torch.zeros(4, kept))).numpy()
            for p in (seen, wanted)
        )
        codes += ((one - other) ** 2).sum(axis=(1, 2, 3)).mean() / float(linear.variances.sum())
    shares = []
    for a, b in zip(seen.maps, wanted.maps, strict=True):
        mine, theirs = np.float64(a.numpy()), np.float64(b.numpy())
        shares.append(
            ((mine - theirs) ** 2).sum() / (theirs.var(axis=(0, 2, 3)).sum() * 4 * a[0, 0].numel())
        )
    return codes, float(np.mean(shares))


def test_with_sides(linear: PCAPath):
    faces = torch.tensor([True, False, True, True])
    seen, wanted = percept(1, faces), percept(2, faces)
    logits = torch.tensor([2.0, 1.0, -0.5, 0.0])
    terms = distillation_loss(seen, wanted, logits, linear)
    codes, features = by_hand(seen, wanted, linear)
    signs = np.where(faces.numpy(), 1, -1)
    side = -log_expit(signs * logits.numpy()).mean() / np.log(2)
    assert terms.codes.item() == pytest.approx(codes, rel=1e-4)
    assert terms.features.item() == pytest.approx(features, rel=1e-5)
    assert terms.side.item() == pytest.approx(side, rel=1e-5)
    assert terms.total.item() == pytest.approx(codes + features + side, rel=1e-4)


def test_without_sides():
    seen, wanted = percept(1, None), percept(2, None)
    terms = distillation_loss(seen, wanted, None, None)
    codes, features = by_hand(seen, wanted, None)
    assert terms.total.item() == pytest.approx(codes + features, rel=1e-5)
    assert terms.side.item() == 0


def test_its_equal_and_one_that_knows_means_only():
    wanted = percept(2, None)
    assert distillation_loss(wanted, wanted, None, None).total.item() == 0
    means = [level.mean(dim=(0, 2, 3), keepdim=True).expand_as(level) for level in wanted.maps]
    blind = EncoderOutput(wanted.code, means, None)
    assert distillation_loss(blind, wanted, None, None).features.item() == pytest.approx(1)


def test_a_constant_map_has_a_finite_loss():
    flat = EncoderOutput(percept(1, None).code, [torch.ones(1, 4, 2, 2)], None)
    assert distillation_loss(flat, flat, None, None).total.isfinite()
