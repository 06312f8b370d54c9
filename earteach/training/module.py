"""The Lightning module: steps, optimizer, and what is logged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MeanMetric
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from earteach.config import TrainConfig
from earteach.data.loading import Sample
from earteach.data.randomness import training_noise, validation_noise
from earteach.errors import EarTeachError
from earteach.images import to_float
from earteach.metrics.latent import LatentStatistics
from earteach.model.annealing import final_kld_weight, kld_weight
from earteach.model.loss import LossTerms, image_losses, total_loss, vae_loss
from earteach.model.vae import EarVAE, reparameterise

_SUMS = "train_sums"


class EarVAELightning(pl.LightningModule):
    """An `EarVAE` with its loss and optimizer.

    `EarVAELightning.load_from_checkpoint(path)` works with torch's safe loading.
    """

    def __init__(self, config: Mapping[str, Mapping[str, Any]]) -> None:
        """`config` is `TrainConfig.to_dict()`: builtin values, as checkpoints keep them."""
        super().__init__()
        self.save_hyperparameters()
        self.config = TrainConfig.from_dict(config)
        self.model = EarVAE.from_config(self.config.model)
        self.val_loss = MeanMetric(nan_strategy="disable")
        self.val_recon = MeanMetric(nan_strategy="disable")
        self.val_kld = MeanMetric(nan_strategy="disable")
        self.val_ssim = StructuralSimilarityIndexMeasure(data_range=1.0)
        self.val_psnr = PeakSignalNoiseRatio(
            data_range=1.0, dim=(1, 2, 3), reduction="elementwise_mean"
        )
        self._val_codes = LatentStatistics(self.config.model.latent_dim)
        # Loss, reconstruction loss and KLD of the epoch so far, and the images they are over.
        self._sums = torch.zeros(4, dtype=torch.float64)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Images `(B, C, S, S)` in [0, 1] to their codes mu, `(B, latent_dim)`."""
        return self.model.encode(x)[0]

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Codes to images in (0, 1)."""
        return self.model.decode(z)

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        """Images to their reconstructions from mu, without noise."""
        return self.model.reconstruct(x)

    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """New images from the standard normal prior."""
        return self.model.sample(num_samples, generator)

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The encoder's maps at strides 2, 4, 8 and 16."""
        return self.model.features(x)

    @property
    def kld_weight(self) -> float:
        """The annealed weight of the current epoch."""
        return kld_weight(self.current_epoch, self.config.optim.epochs, self.config.kld)

    def training_step(self, batch: Sample, batch_idx: int) -> torch.Tensor:
        noise = training_noise(
            self.config.run.seed,
            self.global_step,
            self.global_rank,
            (len(batch["input"]), self.config.model.latent_dim),
        )
        outputs = self.model(to_float(batch["input"]), noise.to(self.device, non_blocking=True))
        terms = vae_loss(
            outputs[0],
            to_float(batch["target"]),
            *outputs[1:],
            weight=self.kld_weight,
            reduction=self.config.kld.kld_reduction,
        )
        self._add_to_sums(terms, len(batch["input"]))
        return terms.total

    def _add_to_sums(self, terms: LossTerms, images: int) -> None:
        values = torch.stack([terms.total, terms.recon, terms.kld, torch.ones_like(terms.kld)])
        self._sums = self._sums.to(self.device)
        self._sums += values.detach() * images

    def on_train_epoch_start(self) -> None:
        self._sums = torch.zeros(4, dtype=torch.float64, device=self.device)

    def training_means(self) -> dict[str, float]:
        """Means over the images of the epoch so far, over all devices."""
        sums = self._sums_of_all_devices()
        loss, recon, kld = (sums[:3] / sums[3]).tolist()
        return {
            "train/loss": loss,
            "train/recon_loss": recon,
            "train/kld": kld,
            "train/kld_weight": self.kld_weight,
        }

    def _sums_of_all_devices(self) -> torch.Tensor:
        return self._over_devices(self._sums.clone())

    def _over_devices(self, sums: torch.Tensor) -> torch.Tensor:
        sums = self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum")
        assert isinstance(sums, torch.Tensor)
        return sums

    def validation_codes(self) -> LatentStatistics:
        """The codes of the last validation's images, over all devices."""
        return self._val_codes.reduced(self._over_devices)

    def on_validation_epoch_start(self) -> None:
        self._val_codes = LatentStatistics(self.config.model.latent_dim)

    def validation_step(self, batch: Sample, batch_idx: int) -> None:
        images = to_float(batch["input"])
        assert isinstance(batch["index"], torch.Tensor)
        noise = validation_noise(
            self.config.run.seed, batch["index"].tolist(), self.config.model.latent_dim
        ).to(self.device)
        mu, logvar = self.model.encode(images)
        noisy = self.model.decode(reparameterise(mu, logvar, noise))
        recon, kld = image_losses(noisy, images, mu, logvar)
        loss = total_loss(
            recon,
            kld,
            final_kld_weight(self.config.kld),
            self.config.kld.kld_reduction,
            mu.shape[1],
        )
        clean = self.model.decode(mu)
        self._val_codes.update(mu, logvar)
        self.val_loss.update(loss)
        self.val_recon.update(recon)
        self.val_kld.update(kld)
        # The windows of SSIM lose a third of its value in bfloat16.
        with torch.autocast(self.device.type, enabled=False):
            self.val_ssim.update(clean, images)
            self.val_psnr.update(clean, images)

    def on_validation_epoch_end(self) -> None:
        metrics = {
            "val/loss": self.val_loss,
            "val/recon_loss": self.val_recon,
            "val/kld": self.val_kld,
            "val/ssim": self.val_ssim,
            "val/psnr": self.val_psnr,
        }
        values = {name: metric.compute() for name, metric in metrics.items()}
        for metric in metrics.values():
            metric.reset()
        if not math.isfinite(float(values["val/loss"])):
            raise EarTeachError(
                f"the validation loss of epoch {self.current_epoch + 1} is not finite; "
                f"try a smaller --learning-rate than {self.config.optim.learning_rate:g}"
            )
        self.log_dict(values, logger=False, rank_zero_only=False)
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, ReduceLROnPlateau)
        scheduler.step(values["val/loss"])

    def configure_optimizers(self) -> Any:
        optim = self.config.optim
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=optim.learning_rate, weight_decay=optim.weight_decay
        )
        scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=10)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss", "name": "lr"},
        }

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Nothing: Lightning would step it after the epoch's checkpoint has been written, and a
        resumed run would miss that step. `on_validation_epoch_end` has stepped it already."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[_SUMS] = self._sums_of_all_devices().tolist()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        sums = torch.tensor(checkpoint.get(_SUMS, [0.0] * 4), dtype=torch.float64)
        self._sums = sums if self.global_rank == 0 else torch.zeros_like(sums)
