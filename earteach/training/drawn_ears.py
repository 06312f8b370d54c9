"""Drawn ears, whose landmarks a network learns to find beside the images that it is trained on."""

from __future__ import annotations

import torch

from earteach.data.arrays import to_channels
from earteach.data.strong_views import LARGEST_SIDE, strong_views
from earteach.images import to_float
from earteach.model.vae import ConvVAE
from earteach.synthetic.drawn_ear import DrawnEar, draw_ear

_EARS, _PER_STEP = 2000, 4
# In half sides: a landmarker is shown ears that are nearly centred.
_SHIFT = 0.1


class DrawnEars:
    """The ears of a series. Those of a step follow from its number and its generator."""

    def __init__(self, series: int) -> None:
        self._series = series
        self._drawn = dict[tuple[int, int], DrawnEar]()

    def views(
        self, network: ConvVAE, step: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Strong views `(B, C, S, S)` of some of them, and their landmarks as fractions of the sides.

        Each step can choose from one ear more than the last, so that no run begins with drawing all of
        them.
        """
        known = min(_EARS, _PER_STEP + step)
        rows = torch.randint(known, (_PER_STEP,), generator=generator).tolist()
        size = min(network.image_size, LARGEST_SIDE)
        ears = [self._ear(row, size) for row in rows]
        images = torch.stack(
            [torch.from_numpy(to_channels(ear.image, network.in_channels)) for ear in ears]
        ).permute(0, 3, 1, 2)
        landmarks = torch.stack([torch.from_numpy(ear.landmarks) for ear in ears])
        views = strong_views(to_float(images), generator, shift=_SHIFT)
        device = next(network.parameters()).device
        truth = (views.points(2 * landmarks - 1) + 1) / 2
        return views.images.to(device), truth.to(device)

    def _ear(self, index: int, size: int) -> DrawnEar:
        if (index, size) not in self._drawn:
            self._drawn[index, size] = draw_ear(self._series, index, size)
        return self._drawn[index, size]
