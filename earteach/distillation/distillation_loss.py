"""The loss of a student: how its codes, maps and sides differ from its teacher's.

    loss = codes + features + side

Each term is 0 for a student that equals its teacher and about 1 for one that knows only means. Features
are in parts of the variance of the teacher's maps, sides in bits, codes in units of the prior's
variance and, where the teacher has a PCA path, once more as errors of the picture it draws from them:
in whitened codes alone an error that fills the picture weighs no more than one of a detail.
Hinton et al. 2015 (https://arxiv.org/abs/1503.02531); for maps, Romero et al. 2015
(https://arxiv.org/abs/1412.6550).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch.nn import functional

from earteach.model.loss import LossTerm
from earteach.model.pca_path import PCAPath
from earteach.model.pca_vae import PCAVAE
from earteach.model.vae import ConvVAE, EncoderOutput

# The log-variance moves less than the mean, and what is sampled from it matters less.
_LOGVAR_WEIGHT = 0.1
_MIN_VARIANCE = 1e-6


class DistillationBatch(NamedTuple):
    """What student and teacher make of the same images, looked at from the same side."""

    student: EncoderOutput
    teacher: EncoderOutput
    side_logits: torch.Tensor | None  # the student's, (B,); None without sides


def distillation_terms(teacher: ConvVAE) -> list[LossTerm[DistillationBatch]]:
    """The terms of a student of this teacher; those of another device or precision are float32."""
    pca = teacher.pca if isinstance(teacher, PCAVAE) else None

    def codes(batch: DistillationBatch) -> torch.Tensor:
        return code_error(batch.student, batch.teacher, pca)

    def features(batch: DistillationBatch) -> torch.Tensor:
        pairs = zip(batch.student.maps, batch.teacher.maps, strict=True)
        return torch.stack([unexplained_variance(*pair) for pair in pairs]).mean()

    def side(batch: DistillationBatch) -> torch.Tensor:
        if batch.side_logits is None:
            return torch.zeros((), device=batch.teacher.mu.device)
        return side_error(batch.side_logits, batch.teacher)

    return [LossTerm("codes", codes), LossTerm("features", features), LossTerm("side", side)]


def code_error(student: EncoderOutput, teacher: EncoderOutput, pca: PCAPath | None) -> torch.Tensor:
    """Squared error of mu, also in the picture that `pca` draws, and a tenth of logvar's, `(B,)`.

    Means over the dimensions, without the side.
    """
    last = None if pca is None else -1
    with torch.autocast(teacher.mu.device.type, enabled=False):
        mu = student.mu[:, :last].float() - teacher.mu[:, :last].float()
        logvar = student.logvar[:, :last].float() - teacher.logvar[:, :last].float()
        error = mu.square().mean(dim=1) + _LOGVAR_WEIGHT * logvar.square().mean(dim=1)
        return error if pca is None else error + picture_error(pca, mu)


def picture_error(pca: PCAPath, error: torch.Tensor) -> torch.Tensor:
    """Errors of whitened codes `(B, K)` as squared errors of pictures, in parts of their variance.

    Mean 1 for errors as large as the codes themselves.
    """
    scores = error @ pca.rotation.T
    # Components that too few images left undetermined change no picture.
    variances = pca.variances * pca.components.square().sum(dim=1)
    return scores.square() @ variances / variances.sum()


def unexplained_variance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Squared error of maps `(B, C, H, W)` in parts of the variance around each channel's mean."""
    with torch.autocast(teacher.device.type, enabled=False):
        student, teacher = student.float(), teacher.float()
        deviation = teacher - teacher.mean(dim=(0, 2, 3), keepdim=True)
        variance = deviation.square().sum().clamp(min=_MIN_VARIANCE)
        return (student - teacher).square().sum() / variance


def side_error(side_logits: torch.Tensor, teacher: EncoderOutput) -> torch.Tensor:
    """Cross-entropy of logits with the teacher's sides, in bits, `(B,)`."""
    assert teacher.is_canonical is not None
    with torch.autocast(side_logits.device.type, enabled=False):
        error = functional.binary_cross_entropy_with_logits(
            side_logits.float(), teacher.is_canonical.float(), reduction="none"
        )
    return error / math.log(2)
