"""The Lightning module of a student, which learns what its teacher makes of the same images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch.nn import functional

from earteach.data.loaders import Sample
from earteach.distillation.agreement import Agreement
from earteach.distillation.distillation_loss import DistillationBatch, distillation_terms
from earteach.images import to_float
from earteach.model.loss import LossTerm
from earteach.model.mobile_encoder import COARSE_SIZE, MobileEncoder
from earteach.model.pca_path import PCAPath
from earteach.model.pca_vae import PCAVAE, SideClassifierPCAVAE
from earteach.model.vae import ConvVAE
from earteach.training.lightning_module import EarVAELightning


class StudentLightning(EarVAELightning):
    """A student that learns from a teacher, which is frozen and in no checkpoint of this run.

    The student has the teacher's decoder and PCA path, also frozen. In a training step it is shown
    each image from the side that the teacher chose, and learns to choose the side beside that; in
    validation it is left to itself.
    """

    def _build(self) -> ConvVAE:
        model = super()._build()
        model.decoder.requires_grad_(False)
        for part in (model.pyramid, model.landmark_head):
            if part is not None:
                part.requires_grad_(False)
        return model

    def with_teacher(self, teacher: ConvVAE) -> Self:
        # In a tuple, so that Lightning does not take it for a part of this module.
        self._teacher = (teacher.eval().requires_grad_(False),)
        return self

    @property
    def teacher(self) -> ConvVAE:
        return self._teacher[0]

    def init_from_teacher(self) -> None:
        """Take everything but the encoder from the teacher, before the first step."""
        teacher = self.teacher
        for network in self.networks():
            network.decoder.load_state_dict(teacher.decoder.state_dict())
            for name in ("pyramid", "landmark_head"):
                if (part := getattr(network, name)) is not None:
                    part.load_state_dict(getattr(teacher, name).state_dict())
            # What the images add to it is zero at first.
            network.encoder.to_code.init_logvar(teacher.encoder.to_code.first_logvar)
            if isinstance(network, PCAVAE) and isinstance(teacher, PCAVAE):
                network.pca.load_state_dict(teacher.pca.state_dict())
                assert isinstance(network.encoder, MobileEncoder)
                init_from_coarse_images(network.encoder, teacher.pca)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        device = self.trainer.strategy.root_device
        self.teacher.to(device)
        if device.type == "cuda":
            self.teacher.to(memory_format=torch.channels_last)  # as the student's

    def loss_terms(self) -> Sequence[LossTerm[Any]]:
        return distillation_terms(self.teacher)

    def _outputs(self, batch: Sample) -> DistillationBatch:
        images = to_float(batch["input"])
        with torch.no_grad():
            teacher = self.teacher.encode_all(images)
        if not isinstance(self.model, SideClassifierPCAVAE):
            return DistillationBatch(self.model.encode_all(images), teacher, None)
        assert teacher.is_canonical is not None
        student = self.model.encode_from_side(images, teacher.is_canonical)
        return DistillationBatch(student, teacher, self.model.side(images))

    def _sums_of_format_3(self, sums: list[float]) -> dict[str, float]:
        return dict(zip(self._names_of_sums(), sums[1:], strict=True))

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self._agreement = Agreement(self.teacher)

    def validation_step(self, batch: Sample, batch_idx: int) -> None:
        images = to_float(batch["input"])
        assert isinstance(batch["index"], torch.Tensor)
        student = self.averaged.encode_all(images)
        self._agreement.update(
            student, self.teacher.encode_all(images), side_logits(self.averaged, images)
        )
        self._update_metrics(images, batch["index"], student.mu, student.logvar)

    def _validation_metrics(self) -> dict[str, torch.Tensor]:
        """As of any network, but the loss is the student's; and how far it agrees with its teacher."""
        agreement = self._agreement.reduced(self._over_devices)
        levels = agreement.feature_r2()
        values = {
            "val/loss": agreement.loss(),
            "val/codes_r2": agreement.codes.r2(),
            "val/features_r2": sum(levels) / len(levels),
        }
        if (side := agreement.side_agreement()) is not None:
            values["val/side_agreement"] = side
        scalars = {name: torch.tensor(value) for name, value in values.items()}
        return super()._validation_metrics() | scalars


def side_logits(network: ConvVAE, images: torch.Tensor) -> torch.Tensor | None:
    """A student's logits of the side, `(B,)`; None without sides."""
    return network.side(images) if isinstance(network, SideClassifierPCAVAE) else None


def init_from_coarse_images(encoder: MobileEncoder, pca: PCAPath) -> None:
    """Start with the codes that the PCA path would give if it saw images of 16×16 pixels only."""
    weight, bias = coarse_pca(pca, COARSE_SIZE)
    linear = encoder.coarse_head.linear
    with torch.no_grad():
        linear.weight[: len(weight)] = weight
        linear.bias[: len(bias)] = bias
    encoder.to_code.zero_init()


def coarse_pca(pca: PCAPath, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What images averaged to `(C, side, side)` say of their PCA codes, as a linear map.

    Its weight `(K, C · side²)` and bias `(K,)`; images must face the canonical side. It is the
    posterior mean under probabilistic PCA (Tipping and Bishop 1999,
    https://doi.org/10.1111/1467-9868.00196), whose noise is as large as the last component.
    """
    averaged, mean = (
        functional.adaptive_avg_pool2d(flat.reshape(-1, *pca.shape), side).flatten(1)
        for flat in (pca.components, pca.mean)
    )
    loadings = averaged * pca.variances.sqrt()[:, None]
    noise = pca.variances.min() * side**2 / pca.shape[1] ** 2
    covariance = loadings @ loadings.T + noise * torch.eye(len(loadings), device=noise.device)
    weight = pca.rotation.T @ torch.linalg.solve(covariance, loadings)
    return weight, -weight @ mean[0]
