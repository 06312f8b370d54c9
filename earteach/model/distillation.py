"""What a student is told: how its codes, maps and sides differ from its teacher's.

    total = codes + features + side

All three are 0 for a student that is its teacher's equal, and about 1 for one that knows only means:
codes in units of the prior's variance, features of what the teacher's maps vary, sides in bits.
Hinton et al. 2015 (https://arxiv.org/abs/1503.02531); with maps, Romero et al. 2015
(https://arxiv.org/abs/1412.6550).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from earteach.model.vae import Percept

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
    seen: Percept, wanted: Percept, sides: torch.Tensor | None
) -> DistillationTerms:
    """The student's percept beside the teacher's, of the same images looked at from the same side.

    `sides` are the student's logits `(B,)`, None where the teacher knows no sides.
    """
    device = wanted.code[0].device
    with torch.autocast(device.type, enabled=False):
        return DistillationTerms(
            codes=code_error(seen, wanted).mean(),
            features=torch.stack(
                [unexplained(*pair) for pair in zip(seen.maps, wanted.maps, strict=True)]
            ).mean(),
            side=torch.zeros((), device=device)
            if sides is None
            else side_error(sides, wanted).mean(),
        )


def code_error(seen: Percept, wanted: Percept) -> torch.Tensor:
    """Squared error of mu, and a tenth of that of logvar, mean over the dimensions, `(B,)`.

    The number that says the side is left out.
    """
    known = None if wanted.faces is None else -1
    mu, logvar = (
        (a[:, :known].float() - b[:, :known].float()).square().mean(dim=1)
        for a, b in zip(seen.code, wanted.code, strict=True)
    )
    return mu + LOGVAR_WEIGHT * logvar


def unexplained(seen: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Squared error of maps `(B, C, H, W)` over what they vary around each channel's mean."""
    seen, wanted = seen.float(), wanted.float()
    around = wanted - wanted.mean(dim=(0, 2, 3), keepdim=True)
    return (seen - wanted).square().sum() / around.square().sum().clamp(min=_LEAST)


def side_error(sides: torch.Tensor, wanted: Percept) -> torch.Tensor:
    """Cross-entropy of logits with the teacher's sides, in bits, `(B,)`."""
    assert wanted.faces is not None
    error = functional.binary_cross_entropy_with_logits(
        sides.float(), wanted.faces.float(), reduction="none"
    )
    return error / math.log(2)
