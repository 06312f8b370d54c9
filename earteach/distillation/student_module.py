"""The Lightning module of a student: it is told what a teacher makes of the same images."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from earteach.data.loaders import Sample
from earteach.distillation.agreement import Agreement
from earteach.distillation.distillation_loss import distillation_loss
from earteach.images import to_float
from earteach.model.encoder_decoder import MobileEncoder
from earteach.model.vae import EarVAE
from earteach.training.lightning_module import EarVAELightning


class Distillation(EarVAELightning):
    """A student that learns from a teacher, which is frozen and in no checkpoint of this run.

    The student has the teacher's decoder and linear path, which are frozen too. In a step it is shown
    each image from the side that the teacher took it for, and learns to tell the side beside that; in
    validation it is left to itself.
    """

    has_doctor = False

    def learn_from(self, teacher: EarVAE) -> None:
        """Take a teacher, and from it all that is not the encoder, before the first step."""
        # In a tuple, so that Lightning takes it for no part of this module.
        self._teacher = (teacher.eval().requires_grad_(False),)
        for network in (self.model, self.averaged):
            network.decoder.load_state_dict(teacher.decoder.state_dict())
            if network.linear is not None and teacher.linear is not None:
                network.linear.load_state_dict(teacher.linear.state_dict())
            if isinstance(network.encoder, MobileEncoder) and teacher.linear is not None:
                network.encoder.init_from_pca(teacher.linear)
            # What the images add to it is zero at first.
            network.encoder.to_code.begin_logvar(teacher.encoder.to_code.first_logvar)
        self.model.decoder.requires_grad_(False)

    def _copy_of_model(self) -> EarVAE:
        averaged = super()._copy_of_model()
        averaged.decoder = self.model.decoder  # not trained, so kept once
        return averaged

    @property
    def teacher(self) -> EarVAE:
        return self._teacher[0]

    def setup(self, stage: str) -> None:
        super().setup(stage)
        device = self.trainer.strategy.root_device
        self.teacher.to(device)
        if device.type == "cuda":
            self.teacher.to(memory_format=torch.channels_last)  # as the student's

    def training_step(self, batch: Sample, batch_idx: int) -> torch.Tensor:
        images = to_float(batch["input"])
        with torch.no_grad():
            wanted = self.teacher.encode_all(images)
        seen = self.model.encode_all(images, wanted.faces)
        sides = self.model.side_logits(images)
        terms = distillation_loss(seen, wanted, sides, self.teacher.linear)
        self._add_to_sums([terms.total, terms.codes, terms.features, terms.side], len(images))
        return terms.total

    def training_means(self) -> dict[str, float]:
        """Means over the images of the epoch so far, over all devices."""
        names = ("loss", "codes", "features", "side")
        return {
            f"train/{name}": mean for name, mean in zip(names, self._means_of_terms(), strict=True)
        }

    def shares(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """What each term comes to in what training lowers, from the epoch's means."""
        return {name: metrics[f"train/{name}"] for name in ("codes", "features", "side")}

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self._agreement = Agreement(self.teacher)

    def validation_step(self, batch: Sample, batch_idx: int) -> None:
        images = to_float(batch["input"])
        assert isinstance(batch["index"], torch.Tensor)
        seen = self.averaged.encode_all(images)
        self._agreement.update(
            seen, self.teacher.encode_all(images), self.averaged.side_logits(images)
        )
        self._judge(images, batch["index"], *seen.code)

    def _validated(self) -> dict[str, torch.Tensor]:
        """As of any network, but the loss is the student's; and how far it agrees with its teacher."""
        agreement = self._agreement.reduced(self._over_devices)
        levels = agreement.feature_shares()
        values = {
            "val/loss": agreement.loss(),
            "val/codes_r2": agreement.codes.share(),
            "val/features_r2": sum(levels) / len(levels),
        }
        if (side := agreement.side_share()) is not None:
            values["val/side_agreement"] = side
        return super()._validated() | {name: torch.tensor(value) for name, value in values.items()}
