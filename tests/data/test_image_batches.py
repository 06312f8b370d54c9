"""Float batches of an array's images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from earteach.data.arrays import EarArray
from earteach.data.image_batches import image_batches


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("batch_size", "indices", "expected"),
    [
        (4, None, [[0, 1, 2, 3], [4, 5, 6, 7], [8]]),
        (100, None, [list(range(9))]),
        (2, [7, 0, 3], [[7, 0], [3]]),
        (2, np.array([8, 1]), [[8, 1]]),
        (2, [], []),
    ],
)
def test_each_image_comes_once_and_in_order(
    tmp_path: Path, batch_size: int, indices: Sequence[int] | None, expected, channels: int
) -> None:
    """As float32 in [0, 1], of the size and the channels asked for."""
    colours = np.random.default_rng(0).integers(0, 256, (9, 1, 1, 3), np.uint8)
    np.save(tmp_path / "ears.npy", np.broadcast_to(colours, (9, 24, 20, 3)))
    array = EarArray.open(tmp_path / "ears.npy")
    batches = list(
        image_batches(array, size=16, channels=channels, batch_size=batch_size, indices=indices)
    )
    assert [batch.indices for batch in batches] == expected
    for batch in batches:
        assert batch.images.dtype == torch.float32
        assert batch.images.is_contiguous()
        assert batch.images.shape == (len(batch.indices), channels, 16, 16)
        colour = colours[batch.indices].transpose(0, 3, 1, 2).astype(float)
        if channels == 1:
            colour = np.rint(np.einsum("bcyx,c->byx", colour, [0.299, 0.587, 0.114]))[:, None]
        assert np.abs(batch.images.numpy() - colour / 255).max() < 1e-6
