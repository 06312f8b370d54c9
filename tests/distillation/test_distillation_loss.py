"""The loss of a student, by hand in NumPy."""

import numpy as np
import pytest
import torch
from scipy.special import log_expit

from earteach.distillation.distillation_loss import (
    DistillationBatch,
    distillation_terms,
    picture_error,
)
from earteach.model.loss import objective
from earteach.model.vae import ConvVAE, EncoderOutput
from tests.model.networks import network, pca_network

LOGITS = torch.tensor([2.0, 1.0, -0.5, 0.0])


def random_output(seed: int, is_canonical: torch.Tensor | None = None) -> EncoderOutput:
    generator = torch.Generator().manual_seed(seed)
    mu, logvar = (torch.randn(4, 16, generator=generator) for _ in range(2))
    maps = [torch.randn(4, c, s, s, generator=generator) for c, s in ((8, 16), (16, 8))]
    return EncoderOutput(mu, logvar, maps, is_canonical)


def loss_of(
    teacher: ConvVAE, student: EncoderOutput, target: EncoderOutput, logits: torch.Tensor | None
) -> dict[str, float]:
    terms = distillation_terms(teacher)
    values = {t.name: t.values_of(DistillationBatch(student, target, logits)) for t in terms}
    return {
        **{n: v.mean().item() for n, v in values.items()},
        "total": objective(terms, values).item(),
    }


@pytest.mark.parametrize("pca_init", [True, False])
def test_the_terms_by_hand(pca_init):
    teacher = pca_network() if pca_init else network(pca_init=False)
    is_canonical = torch.tensor([True, False, True, True])
    student, target = random_output(1), random_output(2, is_canonical if pca_init else None)
    actual = loss_of(teacher, student, target, LOGITS if pca_init else None)
    size = 15 if pca_init else 16  # without the side
    mu, logvar = ((a - b)[:, :size].double().numpy()
                  for a, b in ((student.mu, target.mu), (student.logvar, target.logvar)))  # fmt: skip
    codes, side = (mu**2).mean() + 0.1 * (logvar**2).mean(), 0.0
    if pca_init:
        pictures = [teacher.pca.decode(output.mu[:, :-1]) for output in (student, target)]
        error = (pictures[0] - pictures[1]).square().sum(dim=(1, 2, 3)).mean()
        codes += float(error / teacher.pca.variances.sum())
        signs = np.where(is_canonical, 1, -1)
        side = -log_expit(signs * LOGITS.numpy()).mean() / np.log(2)
    shares = []
    for a, b in zip(student.maps, target.maps, strict=True):
        error, expected = (a - b).square().sum().item(), b.double().numpy()
        shares.append(error / (expected.var(axis=(0, 2, 3)).sum() * expected[:, 0].size))
    expected = {"codes": codes, "features": np.mean(shares), "side": side}
    assert actual == pytest.approx({**expected, "total": sum(expected.values())}, rel=1e-4)


def test_a_perfect_student_and_one_that_knows_only_means():
    teacher, target = network(pca_init=False), random_output(2)
    assert loss_of(teacher, target, target, None)["total"] == 0
    means = [level.mean(dim=(0, 2, 3), keepdim=True).expand_as(level) for level in target.maps]
    blind = EncoderOutput(target.mu, target.logvar, means)
    assert loss_of(teacher, blind, target, None)["features"] == pytest.approx(1)
    flat = EncoderOutput(target.mu, target.logvar, [torch.ones(1, 4, 2, 2)])
    assert np.isfinite(loss_of(teacher, flat, flat, None)["total"])


def test_components_that_few_images_left_undetermined_do_not_count_as_picture_error():
    pca = pca_network().pca
    pca.components[5:] = 0
    pca.variances[5:] = 1
    error = torch.randn(400, 15, generator=torch.Generator().manual_seed(3))
    pictures = pca.decode(error) - pca.decode(torch.zeros(1, 15))
    expected = pictures.square().sum(dim=(1, 2, 3)) / pca.variances[:5].sum()
    torch.testing.assert_close(picture_error(pca, error), expected, rtol=1e-4, atol=1e-6)
    assert picture_error(pca, error).mean() == pytest.approx(1, rel=0.1)
