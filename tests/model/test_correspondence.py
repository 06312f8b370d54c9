"""The teaching objective: descriptors of points, and the loss that matches them across views."""

import math

import pytest
import torch
from torch.nn import functional

from earteach.model.correspondence import POINTS, Matches, matching_loss, random_points
from earteach.model.feature_pyramid import FeaturePyramid, descriptors


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def test_the_pyramid_gives_every_level_the_same_channels_and_the_context_of_coarser_ones():
    torch.manual_seed(0)
    pyramid = FeaturePyramid([8, 16, 32, 64], 12)
    maps = [torch.randn(2, 8 * 2**i, 32 >> i, 24 >> i) for i in range(4)]
    levels = pyramid(maps)
    assert [level.shape for level in levels] == [(2, 12, 32 >> i, 24 >> i) for i in range(4)]
    changed = pyramid([*maps[:3], maps[3] + 1])
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(levels, changed, strict=True))
    finer = pyramid([maps[0] + 1, *maps[1:]])
    assert all(torch.equal(a, b) for a, b in zip(levels[1:], finer[1:], strict=True))


def test_descriptors_are_unit_vectors_read_at_their_points():
    """Pixel centres of a map of 4×4 lie at −0.75, −0.25, 0.25 and 0.75."""
    fine = torch.randn(1, 5, 4, 4, generator=generator())
    coarse = torch.randn(1, 5, 1, 1, generator=generator())
    points = torch.tensor([[[-0.75, 0.25], [0.75, -0.75]]])
    expected = torch.stack([fine[0, :, 2, 0], fine[0, :, 0, 3]]) + coarse[0, :, 0, 0]
    found = descriptors([fine, coarse], points)
    torch.testing.assert_close(found[0], functional.normalize(expected, dim=1))


def matches(first: torch.Tensor, second: torch.Tensor, points: torch.Tensor) -> Matches:
    return Matches(points, torch.ones(points.shape[:2], dtype=torch.bool), first, second)


def test_the_loss_is_the_divergence_worked_out_by_hand():
    points = torch.tensor([[[0.0, 0.0], [0.12, 0.0]]])
    first = functional.normalize(torch.randn(1, 2, 3, generator=generator()), dim=2)
    second = functional.normalize(torch.randn(1, 2, 3, generator=generator()) + 0.3, dim=2)
    near = math.exp(-0.5)  # one width away
    target = [[1 / (1 + near), near / (1 + near)], [near / (1 + near), 1 / (1 + near)]]
    expected = 0.0
    for similarity in (first[0] @ second[0].T, second[0] @ first[0].T):
        for row, goal in zip(similarity.tolist(), target, strict=True):
            weights = [math.exp(value / 0.07) for value in row]
            shares = [weight / sum(weights) for weight in weights]
            expected += sum(t * math.log(t / p) for t, p in zip(goal, shares, strict=True)) / 4
    assert matching_loss(matches(first, second, points)).item() == pytest.approx(expected, rel=1e-4)


def test_points_of_the_ear_before_are_found_near_the_same_place_with_a_wider_target():
    """One point of each of two ears, and a second that only the first ear has."""
    points = torch.tensor([[[0.0, 0.0], [0.25, 0.0]], [[0.0, 0.25], [0.9, 0.9]]])
    visible = torch.tensor([[True, True], [True, False]])
    first, second = (
        functional.normalize(torch.randn(2, 2, 3, generator=generator()), dim=2) for _ in range(2)
    )
    second = second.flip(1)
    own = Matches(points, visible, first, second)
    extra = matching_loss(own._replace(is_canonical=True)) - matching_loss(own)
    near, far = math.exp(-0.5), math.exp(-1)  # one width away, and one in each direction
    target = [
        near / (near + far),
        far / (near + far),
    ]  # of the second ear's point on the first's two

    def divergence(described: torch.Tensor, candidates: torch.Tensor) -> float:
        weights = torch.exp(candidates @ described / 0.07)
        shares = (weights / weights.sum()).tolist()
        return sum(t * math.log(t / share) for t, share in zip(target, shares, strict=True))

    # The two points of the first ear have one candidate, which costs nothing: three points in all.
    there = divergence(first[1, 0], second[0]) / 3
    back = divergence(second[1, 0], first[0]) / 3
    assert extra.item() == pytest.approx(0.5 * 0.5 * (there + back), rel=1e-4)


def test_points_outside_of_a_view_count_neither_as_points_nor_as_candidates():
    points = random_points(2, generator())
    first, second = (functional.normalize(torch.randn(2, POINTS, 8), dim=2) for _ in range(2))
    visible = torch.rand(2, POINTS, generator=generator()) < 0.7
    visible[1] = visible[0]
    loss = matching_loss(Matches(points, visible, first, second))
    kept = [each[:, visible[0]] for each in (points, first, second)]
    alone = matching_loss(matches(kept[1], kept[2], kept[0]))
    torch.testing.assert_close(loss, alone)
    none = Matches(points, torch.zeros_like(visible), first, second)
    assert matching_loss(none).item() == 0


def test_the_loss_is_lowest_where_the_same_points_are_alike():
    points = random_points(1, generator())
    angles = math.pi * points  # neighbours have near descriptors
    described = torch.cat([angles.cos(), angles.sin()], dim=2)
    described = functional.normalize(described, dim=2)
    right = matching_loss(matches(described, described, points))
    wrong = matching_loss(matches(described, described.flip(1), points))
    assert right < 0.5 < wrong


def test_the_loss_is_float32_under_autocast():
    points = random_points(1, generator())
    unit = torch.full((*points.shape[:2], 4), 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        loss = matching_loss(matches(unit.bfloat16(), unit.bfloat16(), points))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, matching_loss(matches(unit, unit, points)))
