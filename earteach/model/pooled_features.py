"""Maps of the encoder or of the feature pyramid, pooled to one vector per image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

# The finest two levels, strides 2 and 4. Coarser ones did not improve landmarks.
_LEVELS = 2
_CELLS = 8


def pooled(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Maps, finest first, to pooled features: of C channels, `(B, 128 · C)`, for the first two levels.

    For each channel of the maps at strides 2 and 4: the maxima over a grid of 8 × 8 cells, then the
    minima; ordered by level, extreme, channel, row and column.
    """
    extremes = [
        sign * functional.adaptive_max_pool2d(sign * level, _CELLS).flatten(1)
        for level in maps[:_LEVELS]
        for sign in (1, -1)
    ]
    return torch.cat(extremes, dim=1)
