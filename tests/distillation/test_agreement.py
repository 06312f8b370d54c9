"""R² beside scikit-learn's, and the whole agreement in whatever batches and on two devices."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import r2_score

from earteach.distillation.agreement import Agreement, Explained
from earteach.distillation.distillation_loss import distillation_loss
from earteach.model.vae import EarVAE, EncoderOutput
from tests.model.networks import network, random_weights


def values(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sizes", [[10], [3, 7], [1] * 10])
@pytest.mark.parametrize("shape", [(5,), (5, 4, 3)])
def test_r2_is_that_of_scikit_learn(shape, sizes):
    wanted = 2 + values(0, 10, *shape) * torch.arange(1, 6).reshape(5, *[1] * (len(shape) - 1))
    seen = wanted + 0.5 * values(1, 10, *shape)
    explained = Explained(5)
    for pair in zip(seen.split(sizes), wanted.split(sizes), strict=True):
        explained.update(*pair)
    rows = [t.movedim(1, -1).reshape(-1, 5).double().numpy() for t in (wanted, seen)]
    assert explained.share() == pytest.approx(
        r2_score(*rows, multioutput="variance_weighted"), abs=1e-6
    )


def test_where_nothing_varies_there_is_no_r2():
    explained = Explained(2)
    explained.update(torch.zeros(3, 2), torch.ones(3, 2))
    assert math.isnan(explained.share())


def pair(teacher: EarVAE) -> tuple[EncoderOutput, EncoderOutput, torch.Tensor]:
    faces = torch.tensor([True, False, True, True, True, True])
    made = []
    for seed in (0, 1):
        code = (values(seed, 6, 16), values(seed + 2, 6, 16))
        maps = [
            values(seed + 4, 6, channels, 16 // 2**level, 16 // 2**level)
            for level, channels in enumerate(teacher.feature_channels)
        ]
        made.append(EncoderOutput(code, maps, faces if seed else faces.flip(0)))
    return made[0], made[1], values(9, 6)


def part(of: EncoderOutput, some: slice) -> EncoderOutput:
    assert of.faces is not None
    code = (of.code[0][some], of.code[1][some])
    return EncoderOutput(code, [level[some] for level in of.maps], of.faces[some])


def test_its_loss_is_that_of_all_images_at_once():
    teacher = network()
    teacher.init_from_pca(random_weights(teacher), 1e-4)
    seen, wanted, logits = pair(teacher)
    halves = []
    for some in (slice(0, 2), slice(2, 6)):
        halves.append(Agreement(teacher))
        halves[-1].update(part(seen, some), part(wanted, some), logits[some])
    # Two devices: what one has is summed with what the other has, in the order that it is asked for.
    theirs: list[torch.Tensor] = []
    halves[1].reduced(lambda sums: theirs.append(sums.clone()) or sums)
    both = halves[0].reduced(lambda sums: sums + theirs.pop(0))
    terms = distillation_loss(seen, wanted, logits, teacher.linear)
    assert both.loss() == pytest.approx(terms.total.item(), rel=1e-5)
    assert both.side_share() == pytest.approx(4 / 6)
    assert both.codes.share() == pytest.approx(
        r2_score(
            *(part.code[0][:, :-1].numpy() for part in (wanted, seen)),
            multioutput="variance_weighted",
        ),
        abs=1e-6,
    )


def test_without_sides_there_is_no_share_of_them():
    teacher = network(pca_init=False)
    seen, wanted, _ = pair(teacher)
    agreement = Agreement(teacher)
    agreement.update(
        EncoderOutput(seen.code, seen.maps, None),
        EncoderOutput(wanted.code, wanted.maps, None),
        None,
    )
    assert agreement.side_share() is None
    wanted_loss = distillation_loss(seen, wanted, None, None).total.item()
    assert agreement.loss() == pytest.approx(wanted_loss, rel=1e-5)
