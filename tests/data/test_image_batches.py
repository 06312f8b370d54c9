"""Float batches of an array's images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from earteach.data.arrays import EarArray
from earteach.data.image_batches import image_batches, to_batch


@pytest.mark.parametrize(
    ("batch_size", "indices", "expected"),
    [
        (4, None, [[0, 1, 2, 3], [4, 5, 6, 7], [8]]),
        (9, None, [list(range(9))]),
        (100, None, [list(range(9))]),
        (2, [7, 0, 3], [[7, 0], [3]]),
        (1, range(6, 9), [[6], [7], [8]]),
        (2, np.array([8, 1]), [[8, 1]]),
        (2, [], []),
    ],
)
def test_each_image_comes_once_and_in_order(
    tmp_path: Path, batch_size: int, indices: Sequence[int] | None, expected: list[list[int]]
) -> None:
    values = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), np.uint8)
    np.save(tmp_path / "ears.npy", values)
    array = EarArray.open(tmp_path / "ears.npy")
    batches = list(
        image_batches(array, size=16, channels=3, batch_size=batch_size, indices=indices)
    )
    assert [batch.indices for batch in batches] == expected
    for batch in batches:
        assert batch.images.dtype == torch.float32
        assert batch.images.is_contiguous()
        reference = values[batch.indices].transpose(0, 3, 1, 2).astype(np.float32) / 255
        np.testing.assert_array_equal(batch.images.numpy(), reference)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_resized_and_have_the_channels_asked_for(tmp_path: Path, channels: int) -> None:
    values = np.full((2, 40, 30, 3), (200, 100, 50), np.uint8)
    np.save(tmp_path / "ears.npy", values)
    (batch,) = image_batches(
        EarArray.open(tmp_path / "ears.npy"), size=32, channels=channels, batch_size=8
    )
    assert batch.images.shape == (2, channels, 32, 32)
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    colours = [200, 100, 50] if channels == 3 else [round(luma)]
    for channel, value in enumerate(colours):
        torch.testing.assert_close(batch.images[:, channel], torch.full((2, 32, 32), value / 255))


def test_black_is_0_and_white_is_1() -> None:
    images = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 3)
    assert torch.equal(to_batch(images).flatten(), torch.tensor([0, 0.2, 1]))
