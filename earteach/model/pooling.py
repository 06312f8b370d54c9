"""The encoder's maps as one row of numbers for each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

_CELLS = 8


def pooled(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Maps `(B, channels, h, w)` to `(B, P)`."""
    cells = [functional.adaptive_max_pool2d(level, _CELLS) for level in maps]
    return torch.cat([level.flatten(1) for level in cells], dim=1)
