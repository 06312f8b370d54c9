"""R² against scikit-learn, and agreement over any batches and devices."""

import math

import pytest
import torch
from sklearn.metrics import r2_score

from earteach.distillation.agreement import Agreement, RSquared
from earteach.distillation.distillation_loss import DistillationBatch, distillation_terms
from earteach.model.loss import objective
from earteach.model.vae import ConvVAE, EncoderOutput
from tests.model.networks import network, pca_network


def values(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sizes", [[10], [3, 7], [1] * 10])
@pytest.mark.parametrize("shape", [(5,), (5, 4, 3)])
def test_r2_is_that_of_scikit_learn(shape, sizes):
    target = 2 + values(0, 10, *shape) * torch.arange(1, 6).reshape(5, *[1] * (len(shape) - 1))
    predicted = target + 0.5 * values(1, 10, *shape)
    actual = RSquared(5)
    for batch in zip(predicted.split(sizes), target.split(sizes), strict=True):
        actual.update(*batch)
    rows = [t.movedim(1, -1).reshape(-1, 5).double().numpy() for t in (target, predicted)]
    assert actual.r2() == pytest.approx(r2_score(*rows, multioutput="variance_weighted"), abs=1e-6)


def test_where_nothing_varies_there_is_no_r2():
    actual = RSquared(2)
    actual.update(torch.zeros(3, 2), torch.ones(3, 2))
    assert math.isnan(actual.r2())


def random_output(seed: int, teacher: ConvVAE, is_canonical: list[bool] | None) -> EncoderOutput:
    maps = [
        values(seed + level, 6, channels, 16 // 2**level, 16 // 2**level)
        for level, channels in enumerate(teacher.feature_channels)
    ]
    side = None if is_canonical is None else torch.tensor(is_canonical)
    return EncoderOutput(values(seed, 6, 16), values(seed + 1, 6, 16), maps, side)


def part(output: EncoderOutput, rows: slice) -> EncoderOutput:
    side = None if output.is_canonical is None else output.is_canonical[rows]
    maps = [level[rows] for level in output.maps]
    return EncoderOutput(output.mu[rows], output.logvar[rows], maps, side)


@pytest.mark.parametrize("pca_init", [True, False])
def test_agreement_over_two_devices_is_that_of_all_images_at_once(pca_init):
    teacher = pca_network() if pca_init else network(pca_init=False)
    sides = [[True] * 5 + [False], [True, False] + [True] * 4] if pca_init else [None, None]
    student, target = random_output(10, teacher, sides[0]), random_output(20, teacher, sides[1])
    logits = values(9, 6) if pca_init else None
    halves = []
    for rows in (slice(0, 2), slice(2, 6)):
        halves.append(Agreement(teacher))
        logits_of_rows = None if logits is None else logits[rows]
        halves[-1].update(part(student, rows), part(target, rows), logits_of_rows)
    # `reduce` adds what the other device has, in the order in which it is asked.
    others: list[torch.Tensor] = []
    halves[1].reduced(lambda sums: others.append(sums.clone()) or sums)
    both = halves[0].reduced(lambda sums: sums + others.pop(0))
    terms = distillation_terms(teacher)
    batch = DistillationBatch(student, target, logits)
    loss = objective(terms, {term.name: term.values_of(batch) for term in terms})
    assert both.loss() == pytest.approx(loss.item(), rel=1e-5)
    assert both.side_agreement() == (pytest.approx(4 / 6) if pca_init else None)
    size = 15 if pca_init else 16
    expected = r2_score(*(o.mu[:, :size].numpy() for o in (target, student)),
                        multioutput="variance_weighted")  # fmt: skip
    assert both.codes.r2() == pytest.approx(expected, abs=1e-6)
