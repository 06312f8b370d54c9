"""What a student is told: how its codes, maps and sides differ from its teacher's.

    total = codes + features + side

All three are 0 for a student that is its teacher's equal, and about 1 for one that knows only means:
features in parts of what the teacher's maps vary, sides in bits, codes in units of the prior's variance
and, where the teacher has a linear path, once more as errors of the picture that it draws from them. In
whitened codes alone an error of what fills the picture weighs as little as one of a detail.
Hinton et al. 2015 (https://arxiv.org/abs/1503.02531); with maps, Romero et al. 2015
(https://arxiv.org/abs/1412.6550).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from earteach.model.pca_path import PCAPath
from earteach.model.vae import EncoderOutput

# The log-variance moves by less than the mean, and what is sampled from it matters less.
LOGVAR_WEIGHT = 0.1
_LEAST = 1e-6


@dataclass(frozen=True)
class DistillationTerms:
    """Scalars of one batch."""

    codes: torch.Tensor
    features: torch.Tensor
    side: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        return self.codes + self.features + self.side


def distillation_loss(
    seen: EncoderOutput, wanted: EncoderOutput, sides: torch.Tensor | None, linear: PCAPath | None
) -> DistillationTerms:
    """The student's percept beside the teacher's, of the same images looked at from the same side.

    `sides` are the student's logits `(B,)` and `linear` the teacher's path, None where it has none.
    """
    device = wanted.code[0].device
    with torch.autocast(device.type, enabled=False):
        features = [unexplained(*pair) for pair in zip(seen.maps, wanted.maps, strict=True)]
        return DistillationTerms(
            codes=code_error(seen, wanted, linear).mean(),
            features=torch.stack(features).mean(),
            side=(
                torch.zeros((), device=device)
                if sides is None
                else side_error(sides, wanted).mean()
            ),
        )


def code_error(seen: EncoderOutput, wanted: EncoderOutput, linear: PCAPath | None) -> torch.Tensor:
    """Squared error of mu, as it is and in the picture, and a tenth of that of logvar, `(B,)`.

    Means over the dimensions, without the number that says the side.
    """
    known = None if linear is None else -1
    mu, logvar = (
        a[:, :known].float() - b[:, :known].float()
        for a, b in zip(seen.code, wanted.code, strict=True)
    )
    error = mu.square().mean(dim=1) + LOGVAR_WEIGHT * logvar.square().mean(dim=1)
    return error if linear is None else error + linear.picture_error(mu)


def unexplained(seen: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Squared error of maps `(B, C, H, W)` over what they vary around each channel's mean."""
    seen, wanted = seen.float(), wanted.float()
    around = wanted - wanted.mean(dim=(0, 2, 3), keepdim=True)
    return (seen - wanted).square().sum() / around.square().sum().clamp(min=_LEAST)


def side_error(sides: torch.Tensor, wanted: EncoderOutput) -> torch.Tensor:
    """Cross-entropy of logits with the teacher's sides, in bits, `(B,)`."""
    assert wanted.faces is not None
    error = functional.binary_cross_entropy_with_logits(
        sides.float(), wanted.faces.float(), reduction="none"
    )
    return error / math.log(2)
