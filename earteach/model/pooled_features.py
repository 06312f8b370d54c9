"""The encoder's maps, pooled to one vector per image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

# The finest two levels, strides 2 and 4. Coarser ones did not improve landmarks.
_LEVELS = 2
_CELLS = 8


def pooled(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Maps as `ConvVAE.features` returns them to pooled features, `(B, 384 · base_channels)`.

    For each channel of the maps at strides 2 and 4: the maxima over a grid of 8 × 8 cells, then the
    minima; ordered by level, extreme, channel, row and column.
    """
    return torch.cat([_extremes(level) for level in maps[:_LEVELS]], dim=1)


def _extremes(level: torch.Tensor) -> torch.Tensor:
    maxima = functional.adaptive_max_pool2d(level, _CELLS)
    minima = -functional.adaptive_max_pool2d(-level, _CELLS)
    return torch.cat([maxima.flatten(1), minima.flatten(1)], dim=1)
