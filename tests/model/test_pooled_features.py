"""Pooled features: the extremes in each cell, by hand."""

from itertools import product

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
    expected = []
    for level in (maps[0].numpy(), maps[1].numpy()):
        side = level.shape[-1]
        # The cells' borders where the grid does not divide the map: from ⌊i h / 8⌋ to ⌈(i + 1) h / 8⌉.
        cells = [slice(i * side // 8, -(-(i + 1) * side // 8)) for i in range(8)]
        for extreme, channel in product((np.max, np.min), range(level.shape[1])):
            for rows, columns in product(cells, cells):
                expected.append(extreme(level[:, channel, rows, columns], axis=(1, 2)))
    assert np.array_equal(pooled(maps), np.stack(expected, axis=1))
    assert len(expected) == 384 * 4
