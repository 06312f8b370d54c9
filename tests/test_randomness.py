"""Randomness without state: a draw is a function of the seed and of what it is for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from earteach.randomness import (
    Purpose,
    derive,
    permutation,
    training_noise,
    validation_noise,
    variation_noise,
)


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32, 2**63 - 1])
def test_derived_seeds_have_63_bits_and_never_meet(seed: int) -> None:
    places = [(epoch, index) for epoch in range(20) for index in range(20)]
    drawn = {derive(seed, purpose, *place) for purpose in Purpose for place in places}
    assert len(drawn) == len(Purpose) * len(places)
    assert all(0 <= value < 2**63 for value in drawn)
    assert max(drawn).bit_length() > 58


def test_derived_seeds_stay_what_they_were() -> None:
    """A checkpoint continues exactly only where a later version derives the same seeds."""
    words = np.random.SeedSequence([42, 1, 3, 7]).generate_state(2, np.uint32)
    assert derive(42, Purpose.AUGMENTATION, 3, 7) == (int(words[1]) << 32 | int(words[0])) >> 1
    assert [purpose.value for purpose in Purpose] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("length", [1, 2, 17, 1000])
def test_an_epochs_order_is_a_permutation_of_its_own(length: int) -> None:
    orders = [permutation(42, epoch, length) for epoch in range(5)]
    for order in orders:
        assert sorted(order) == list(range(length))
    if length > 10:
        assert len({tuple(order) for order in orders}) == 5
        assert tuple(permutation(43, 0, length)) != tuple(orders[0])
    np.random.seed(0)
    np.testing.assert_array_equal(permutation(42, 3, length), orders[3])


def test_every_image_may_come_first() -> None:
    first = [permutation(42, epoch, 5)[0] for epoch in range(500)]
    counts = np.bincount(first, minlength=5)
    assert counts.min() > 60  # 100 expected, of a standard deviation of 9


def test_training_noise_is_normal_and_of_its_step_and_rank() -> None:
    noise = training_noise(42, 7, 0, (200, 64))
    assert noise.dtype == torch.float32
    assert noise.mean() == pytest.approx(0, abs=0.03)
    assert noise.std() == pytest.approx(1, abs=0.03)
    assert torch.equal(noise, training_noise(42, 7, 0, (200, 64)))
    for other in [(43, 7, 0), (42, 8, 0), (42, 7, 1), (42, 0, 7)]:
        correlation = np.corrcoef(noise.flatten(), training_noise(*other, (200, 64)).flatten())
        assert abs(correlation[0, 1]) < 0.04


def test_validation_noise_belongs_to_the_image_and_not_to_its_batch() -> None:
    together = validation_noise(42, list(range(300)), 32)
    assert together.shape == (300, 32)
    assert together.mean() == pytest.approx(0, abs=0.04)
    assert together.std() == pytest.approx(1, abs=0.04)
    assert len({tuple(row.tolist()) for row in together}) == 300
    assert torch.equal(validation_noise(42, [299, 5], 32), together[[299, 5]])
    assert not torch.equal(validation_noise(43, [5], 32), together[[5]])


def test_variation_noise_belongs_to_the_ear_and_the_variation() -> None:
    together = variation_noise(42, range(200), 1, 32)
    assert together.std() == pytest.approx(1, abs=0.04)
    assert len({tuple(row.tolist()) for row in together}) == 200
    assert torch.equal(variation_noise(42, [199, 5], 1, 32), together[[199, 5]])
    for other in (variation_noise(42, [5], 2, 32), variation_noise(43, [5], 1, 32)):
        assert not torch.equal(other, together[[5]])


def test_noise_neither_reads_nor_moves_the_global_state() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = training_noise(1, 2, 3, (8,)), validation_noise(1, [2], 8)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    second = training_noise(1, 2, 3, (8,)), validation_noise(1, [2], 8)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_each_kind_of_draw_has_the_seed_of_its_purpose() -> None:
    def seeded(*parts: int) -> int:
        return int(np.random.SeedSequence([9, *parts]).generate_state(1, np.uint64)[0]) >> 1

    def normal(seed: int, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    order = np.random.default_rng(seeded(0, 3)).permutation(50)
    assert (permutation(9, 3, 50) == order).all()
    assert training_noise(9, 3, 1, (2, 4)).equal(normal(seeded(2, 3, 1), 2, 4))
    assert validation_noise(9, [5], 4)[0].equal(normal(seeded(3, 5), 4))
    assert variation_noise(9, [5], 2, 4)[0].equal(normal(seeded(6, 5, 2), 4))
