"""The encoder's maps as one row of numbers for each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

# Of the maps of a network, finest first: strides 2 and 4. The coarser ones added nothing to landmarks.
_LEVELS = 2
_CELLS = 8


def pooled(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Maps as `EarVAE.features` gives them to pooled features, `(B, 384 · base_channels)`.

    Of the maps at strides 2 and 4 they hold the largest and then the smallest value of each channel in
    each cell of a grid of 8 × 8 over the image: level by level, channel by channel, row by row.
    """
    return torch.cat([_extremes(level) for level in maps[:_LEVELS]], dim=1)


def _extremes(level: torch.Tensor) -> torch.Tensor:
    largest = functional.adaptive_max_pool2d(level, _CELLS)
    smallest = -functional.adaptive_max_pool2d(-level, _CELLS)
    return torch.cat([largest.flatten(1), smallest.flatten(1)], dim=1)
