"""Whole groups for validation, as many images as were asked for."""

from __future__ import annotations

import pytest

from earteach.data.split import Split
from earteach.errors import EarTeachError


def images_for_validation(sizes: dict[str, int], fraction: float, seed: int) -> int:
    groups = [name for name, size in sizes.items() for _ in range(size)]
    return sum(sizes[name] for name in Split(fraction, seed=seed).validation(groups))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("wanted", [7, 9.5, 14, 30])
def test_the_share_is_met_to_half_a_group(seed: int, wanted: float) -> None:
    sizes = {f"person {number}": 4 for number in range(25)}
    assert abs(images_for_validation(sizes, wanted / 100, seed) - wanted) <= 2


def test_groups_that_are_too_large_are_passed_over_wherever_they_come() -> None:
    groups = ["a"] * 60 + ["b"] * 50 + ["c"] * 8 + ["d"] * 9
    chosen = [Split(0.08, seed=seed).validation(groups) for seed in range(200)]
    assert all(names in ({"c"}, {"d"}) for names in chosen)
    assert 80 < chosen.count({"d"}) < 120


@pytest.mark.parametrize("seed", range(5))
def test_where_all_are_too_large_the_smallest_is_taken(seed: int) -> None:
    assert images_for_validation({"a": 50, "b": 45, "c": 40, "d": 48}, 0.01, seed) == 40


@pytest.mark.parametrize("seed", range(5))
def test_one_group_stays_for_training(seed: int) -> None:
    assert images_for_validation({"a": 4, "b": 4, "c": 4}, 0.99, seed) == 8


@pytest.mark.parametrize("fraction", [0.05, 0.15, 0.3, 0.5, 0.9])
@pytest.mark.parametrize(
    "sizes", [[1] * 100, [7] * 20, list(range(1, 30)), [3, 1], [100, *[1] * 20]]
)
def test_the_share_is_kept_within_a_group(sizes: list[int], fraction: float) -> None:
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    shares = []
    for seed in range(10):
        chosen = Split(fraction, seed=seed).validation(groups)
        taken = sum(sizes[int(group[1:])] for group in chosen)
        assert 0 < len(chosen) < len(sizes)
        assert abs(taken - fraction * len(groups)) <= max(sizes)
        shares.append(frozenset(chosen))
    if len(sizes) > 2:
        assert len(set(shares)) > 1


def test_one_large_group_does_not_become_the_validation_array() -> None:
    groups = ["studio"] * 100 + [f"visitor {number}" for number in range(30)]
    for seed in range(40):
        assert "studio" not in Split(0.15, seed=seed).validation(groups)
    assert Split(0.15).validation(["many"] * 100 + ["few"] * 40) == {"few"}


def test_the_split_depends_on_the_groups_and_not_on_their_order() -> None:
    groups = [f"g{number}" for number in range(50)]
    assert Split(0.3, seed=5).validation(groups) == Split(0.3, seed=5).validation(groups[::-1])


@pytest.mark.parametrize("seed", range(5))
def test_half_a_group_more_is_taken(seed: int) -> None:
    """1.5 images of 10 are 2, as half is rounded up."""
    sizes = {f"person {number}": 1 for number in range(10)}
    assert images_for_validation(sizes, 0.15, seed) == 2


def test_a_group_is_taken_from_where_half_of_it_is_wanted() -> None:
    """Of 5 images 0.38 are 1.9, less than half of the large group, and 0.42 are 2.1."""
    groups = ["large"] * 4 + ["small"]
    chosen = {share: [Split(share, seed=seed).validation(groups) for seed in range(20)]
              for share in (0.38, 0.42)}  # fmt: skip
    assert all(names == {"small"} for names in chosen[0.38])
    assert {"large"} in chosen[0.42]


def test_a_split_that_leaves_an_array_empty_names_a_few_groups() -> None:
    groups = [f"g{number}" for number in range(9)]
    with pytest.raises(EarTeachError) as error:
        Split(val_groups="x").validation(groups)
    assert str(error.value) == (
        "--val-groups x: takes none of the 9 groups for validation; there must be some for each array "
        "(a few of the groups: g0, g1, g2, g3, g4)"
    )
    with pytest.raises(EarTeachError, match=r"^the split: takes all of the 1 groups"):
        Split().validation(["only"] * 3)
