"""Pooled features: the extremes in each cell, by hand."""

import numpy as np
import pytest
import torch

from earteach.model.pooled_features import pooled
from tests.model.networks import lively


@pytest.mark.parametrize("size", [32, 64, 96])
def test_the_extremes_of_each_channel_in_each_cell(size):
    model = lively(size, 16, 4, 3)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        maps = model.features(images)
        found = pooled(maps).numpy()
    assert found.shape == (2, 384 * 4)
    place = 0
    for level in (maps[0].numpy(), maps[1].numpy()):
        side = level.shape[-1]
        # The cells' borders where the grid does not divide the map: from ⌊i h / 8⌋ to ⌈(i + 1) h / 8⌉.
        edges = [(i * side // 8, -(-(i + 1) * side // 8)) for i in range(8)]
        for extreme in (np.max, np.min):
            for channel in range(level.shape[1]):
                for top, bottom in edges:
                    for left, right in edges:
                        cell = level[:, channel, top:bottom, left:right]
                        assert np.array_equal(found[:, place], extreme(cell, axis=(1, 2)))
                        place += 1
    assert place == found.shape[1]
