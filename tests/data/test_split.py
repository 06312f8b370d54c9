"""Whole groups for validation, as close to the fraction of images as they allow."""

from __future__ import annotations

import pytest

from earteach.data.split import Split
from earteach.errors import EarTeachError


def chosen(sizes: list[int], fraction: float, seed: int) -> list[int]:
    """The sizes of the groups that are taken for validation."""
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    names = Split(fraction, seed=seed).validation(groups)
    assert names == Split(fraction, seed=seed).validation(groups[::-1])
    return [sizes[int(name[1:])] for name in names]


@pytest.mark.parametrize("fraction", [0.05, 0.15, 0.3, 0.5, 0.9])
@pytest.mark.parametrize(
    "sizes", [[1] * 100, [7] * 20, [4] * 25, list(range(1, 30)), [3, 1], [100, *[1] * 20]]
)
def test_the_fraction_is_met_within_a_group(sizes: list[int], fraction: float) -> None:
    choices = [chosen(sizes, fraction, seed) for seed in range(10)]
    for choice in choices:
        assert 0 < len(choice) < len(sizes)
        bound = max(sizes) if len(set(sizes)) > 1 else max(sizes) / 2
        assert abs(sum(choice) - fraction * sum(sizes)) <= bound
    if len(sizes) > 2 and len(set(sizes)) > 1:
        assert len({tuple(choice) for choice in choices}) > 1


# Sizes of groups, the fraction, and the sums of images that may be taken.
CHOICES = [
    ([50, 45, 40, 48], 0.01, {40}),  # the smallest, as all are too large
    ([4, 4, 4], 0.99, {8}),  # one stays for training
    ([1] * 10, 0.15, {2}),  # half a group is rounded up
    ([60, 50, 8, 9], 0.08, {8, 9}),  # groups that are too large are skipped
    ([100, 40], 0.15, {40}),
    # A group is taken if at least half of it is missing: 0.38 of 5 are 1.9 images, and 0.42 are 2.1.
    ([4, 1], 0.38, {1}),
    ([4, 1], 0.42, {1, 4}),
]


@pytest.mark.parametrize(("sizes", "fraction", "images"), CHOICES)
def test_large_groups_do_not_overshoot_the_fraction(sizes, fraction, images) -> None:
    assert {sum(chosen(sizes, fraction, seed)) for seed in range(40)} == images


def test_a_split_that_leaves_an_array_empty_names_a_few_groups() -> None:
    groups = [f"g{number}" for number in range(9)]
    with pytest.raises(EarTeachError) as error:
        Split(val_groups="x").validation(groups)
    assert str(error.value) == (
        "--val-groups x: puts none of the 9 groups in validation; each array needs at least one "
        "(some of the groups: g0, g1, g2, g3, g4)"
    )
    with pytest.raises(EarTeachError, match=r"^the split: puts all of the 1 groups"):
        Split().validation(["only"] * 3)
