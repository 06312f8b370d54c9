"""How well a student agrees with its teacher, gathered batch by batch."""

from __future__ import annotations

from collections.abc import Callable

import torch

from earteach.distillation.distillation_loss import code_error, side_error
from earteach.model.vae import EarVAE, EncoderOutput

Reduce = Callable[[torch.Tensor], torch.Tensor]


class Explained:
    """R² of predictions of the channels of codes or maps, in float64.

    1 − Σ (wanted − predicted)² / Σ (wanted − mean)², both summed over all channels, images and places;
    each channel has its own mean.
    """

    def __init__(self, channels: int) -> None:
        # Rows: squared errors, what is wanted, its square, and the number of values.
        self._sums = torch.zeros(4, channels, dtype=torch.float64)

    def update(self, predicted: torch.Tensor, wanted: torch.Tensor) -> None:
        """Add a batch, `(B, channels)` or `(B, channels, H, W)` each."""
        seen, target = (_by_channel(values) for values in (predicted, wanted))
        rows = [(seen - target).square(), target, target.square(), torch.ones_like(target)]
        self._sums += torch.stack([row.sum(dim=(0, 2), dtype=torch.float64).cpu() for row in rows])

    def reduced(self, reduce: Reduce) -> Explained:
        """The sums of all devices, where `reduce` sums a tensor over them."""
        made = Explained(self._sums.shape[1])
        made._sums = reduce(self._sums.clone()).cpu()
        return made

    def share(self) -> float:
        """R², at most 1; NaN where nothing varies."""
        errors, sums, squares, count = self._sums
        around = float((squares - sums.square() / count.clamp(min=1)).sum())
        return 1 - float(errors.sum()) / around if around > 0 else float("nan")


class Agreement:
    """A student's codes, maps and sides beside its teacher's, over images."""

    def __init__(self, teacher: EarVAE) -> None:
        self._sided = teacher.side_dimension is not None
        self._linear = teacher.linear
        self.codes = Explained(teacher.latent_dim - self._sided)
        self.features = [Explained(channels) for channels in teacher.feature_channels]
        # Code errors, side errors, images whose side is the teacher's, images.
        self._sums = torch.zeros(4, dtype=torch.float64)

    def update(
        self, seen: EncoderOutput, wanted: EncoderOutput, sides: torch.Tensor | None
    ) -> None:
        """Add what a student saw by itself, with its logits of the sides."""
        kept = slice(None, -1 if self._sided else None)
        self.codes.update(seen.code[0][:, kept], wanted.code[0][:, kept])
        for level, *pair in zip(self.features, seen.maps, wanted.maps, strict=True):
            level.update(*pair)
        errors = code_error(seen, wanted, self._linear)
        rows = [errors, torch.zeros_like(errors), torch.ones_like(errors), torch.ones_like(errors)]
        if sides is not None:
            assert seen.faces is not None
            assert wanted.faces is not None
            rows[1], rows[2] = side_error(sides, wanted), seen.faces == wanted.faces
        self._sums += torch.stack([row.sum(dtype=torch.float64).cpu() for row in rows])

    def reduced(self, reduce: Reduce) -> Agreement:
        """The agreement over all devices, where `reduce` sums a tensor over them."""
        made = object.__new__(Agreement)
        made._sided, made._linear = self._sided, self._linear
        made.codes = self.codes.reduced(reduce)
        made.features = [level.reduced(reduce) for level in self.features]
        made._sums = reduce(self._sums.clone()).cpu()
        return made

    def side_share(self) -> float | None:
        """The share of images that both take for the same side; None where there are no sides."""
        return float(self._sums[2] / self._sums[3]) if self._sided else None

    def feature_shares(self) -> list[float]:
        """R² of each level, finest first."""
        return [level.share() for level in self.features]

    def loss(self) -> float:
        """The distillation loss over all images, with the student's own sides."""
        codes, side = (self._sums[:2] / self._sums[3]).tolist()
        unexplained = [1 - share for share in self.feature_shares()]
        return float(codes + side + sum(unexplained) / len(unexplained))


def _by_channel(values: torch.Tensor) -> torch.Tensor:
    """float32 `(B, channels, places)`."""
    return values.detach().float().reshape(*values.shape[:2], -1)
