"""How well a student agrees with its teacher, gathered batch by batch."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from earteach.distillation.distillation_loss import code_error, side_error
from earteach.model.pca_vae import PCAVAE
from earteach.model.vae import ConvVAE, EncoderOutput

Reduce = Callable[[torch.Tensor], torch.Tensor]


class RSquared:
    """R² of predictions of the channels of codes or maps, in float64.

    1 − Σ (target − predicted)² / Σ (target − mean)², both summed over all channels, images and places;
    each channel has its own mean.
    """

    def __init__(self, channels: int) -> None:
        # Rows: squared errors, targets, their squares, and the number of values.
        self._sums = torch.zeros(4, channels, dtype=torch.float64)

    def update(self, predicted: torch.Tensor, target: torch.Tensor) -> None:
        """Add a batch, `(B, channels)` or `(B, channels, H, W)` each."""
        predicted, target = _by_channel(predicted), _by_channel(target)
        rows = [(predicted - target).square(), target, target.square(), torch.ones_like(target)]
        self._sums += torch.stack([row.sum(dim=(0, 2), dtype=torch.float64).cpu() for row in rows])

    def reduced(self, reduce: Reduce) -> RSquared:
        """The sums of all devices, where `reduce` sums a tensor over them."""
        total = RSquared(self._sums.shape[1])
        total._sums = reduce(self._sums.clone()).cpu()
        return total

    def r2(self) -> float:
        """R², at most 1; NaN where nothing varies."""
        errors, sums, squares, count = self._sums
        around = float((squares - sums.square() / count.clamp(min=1)).sum())
        return 1 - float(errors.sum()) / around if around > 0 else float("nan")


class Agreement:
    """A student's codes, maps and sides beside its teacher's, over images."""

    def __init__(self, teacher: ConvVAE) -> None:
        self._pca = teacher.pca if isinstance(teacher, PCAVAE) else None
        self.codes = RSquared(teacher.latent_dim - (self._pca is not None))
        self.features = [RSquared(channels) for channels in teacher.feature_channels]
        # Code errors, side errors, images on the teacher's side, images.
        self._sums = torch.zeros(4, dtype=torch.float64)

    def update(
        self, student: EncoderOutput, teacher: EncoderOutput, side_logits: torch.Tensor | None
    ) -> None:
        """Add a batch as the student encodes it by itself, with its logits of the sides."""
        last = None if self._pca is None else -1
        self.codes.update(student.mu[:, :last], teacher.mu[:, :last])
        for level, *pair in zip(self.features, student.maps, teacher.maps, strict=True):
            level.update(*pair)
        errors = code_error(student, teacher, self._pca)
        rows = [errors, torch.zeros_like(errors), torch.ones_like(errors), torch.ones_like(errors)]
        if side_logits is not None:
            assert student.is_canonical is not None
            assert teacher.is_canonical is not None
            rows[1] = side_error(side_logits, teacher)
            rows[2] = torch.eq(student.is_canonical, teacher.is_canonical)
        self._sums += torch.stack([row.sum(dtype=torch.float64).cpu() for row in rows])

    def reduced(self, reduce: Reduce) -> Agreement:
        """The agreement over all devices, where `reduce` sums a tensor over them."""
        total = copy.copy(self)
        total.codes = self.codes.reduced(reduce)
        total.features = [level.reduced(reduce) for level in self.features]
        total._sums = reduce(self._sums.clone()).cpu()
        return total

    def side_agreement(self) -> float | None:
        """The share of images on which both choose the same side; None without sides."""
        return None if self._pca is None else float(self._sums[2] / self._sums[3])

    def feature_r2(self) -> list[float]:
        """R² of each level, finest first."""
        return [level.r2() for level in self.features]

    def loss(self) -> float:
        """The distillation loss over all images, with the student's own sides."""
        codes, side = (self._sums[:2] / self._sums[3]).tolist()
        unexplained = [1 - r2 for r2 in self.feature_r2()]
        return float(codes + side + sum(unexplained) / len(unexplained))


def _by_channel(values: torch.Tensor) -> torch.Tensor:
    """float32 `(B, channels, places)`."""
    return values.detach().float().reshape(*values.shape[:2], -1)
