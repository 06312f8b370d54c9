"""The Lightning module: steps, optimizer, and what is logged."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MeanMetric
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from earteach.config import TrainConfig
from earteach.data.loaders import Sample
from earteach.errors import EarTeachError
from earteach.images import to_float
from earteach.metrics.latent import LatentStatistics
from earteach.model.annealing import final_kld_weight, kld_weight
from earteach.model.loss import dissimilarity, image_losses, total_loss, vae_loss
from earteach.model.pca_path import PCAWeights
from earteach.model.vae import EarVAE, reparameterise
from earteach.randomness import training_noise, validation_noise
from earteach.training.lr_schedule import CosineSchedule

_SUMS = "train_sums"


class EarVAELightning(pl.LightningModule):
    """An `EarVAE` with its loss and optimizer.

    `model` is what the steps train; `averaged` is the moving average of its weights, or `model` itself
    with `--ema-decay 0`. All that is measured, shown and used later is the averaged network.

    `EarVAELightning.load_from_checkpoint(path)` works with torch's safe loading.
    """

    # Whether the doctor knows this kind of training.
    has_doctor = True

    def __init__(self, config: Mapping[str, Mapping[str, Any]]) -> None:
        """`config` is `TrainConfig.to_dict()`: builtin values, as checkpoints keep them."""
        super().__init__()
        self.save_hyperparameters()
        self.config = TrainConfig.from_dict(config)
        self.model = EarVAE.from_config(self.config.model)
        self.averaged = self._copy_of_model() if self.config.optim.ema_decay else self.model
        self.val_loss = MeanMetric(nan_strategy="disable")
        self.val_recon = MeanMetric(nan_strategy="disable")
        self.val_kld = MeanMetric(nan_strategy="disable")
        self.val_ssim = StructuralSimilarityIndexMeasure(data_range=1.0)
        self.val_psnr = PeakSignalNoiseRatio(
            data_range=1.0, dim=(1, 2, 3), reduction="elementwise_mean"
        )
        self._val_codes = LatentStatistics(self.config.model.latent_dim)
        # The loss and its terms (reconstruction loss, KLD and 1 − SSIM) of the epoch so far, and the
        # images that they are over.
        self._sums = torch.zeros(5, dtype=torch.float64)

    def _copy_of_model(self) -> EarVAE:
        averaged = copy.deepcopy(self.model).requires_grad_(False)
        averaged.linear = self.model.linear  # not trained, so kept once
        return averaged

    def init_from_pca(self, weights: PCAWeights) -> None:
        """Become PCA, before the first step."""
        weight = final_kld_weight(self.config.kld)
        if self.config.kld.kld_reduction == "mean":
            weight /= self.config.model.latent_dim
        for network in (self.model, self.averaged):
            network.init_from_pca(weights, weight)

    def init_from_model(self, trained: EarVAE) -> None:
        """Take the weights of another network of the same shape; raises `RuntimeError` for another."""
        for network in (self.model, self.averaged):
            network.load_state_dict(trained.state_dict())

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Images `(B, C, S, S)` in [0, 1] to their codes mu, `(B, latent_dim)`."""
        return self.averaged.encode(x)[0]

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Codes to images in (0, 1)."""
        return self.averaged.decode(z)

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        """Images to their reconstructions from mu, without noise."""
        return self.averaged.reconstruct(x)

    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """New images from the standard normal prior."""
        return self.averaged.sample(num_samples, generator)

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The encoder's maps at strides 2, 4, 8 and 16."""
        return self.averaged.features(x)

    @property
    def kld_weight(self) -> float:
        """The annealed weight of the current epoch."""
        return kld_weight(self.current_epoch, self.config.optim.epochs, self.config.kld)

    def setup(self, stage: str) -> None:
        if self.trainer.strategy.root_device.type == "cuda":
            # Tensor cores take convolutions in this order; images follow their weights.
            self.to(memory_format=torch.channels_last)

    def training_step(self, batch: Sample, batch_idx: int) -> torch.Tensor:
        noise = training_noise(
            self.config.run.seed,
            self.global_step,
            self.global_rank,
            (len(batch["input"]), self.config.model.latent_dim),
        )
        images = to_float(batch["input"])
        same = batch["target"] is batch["input"]
        target = images if same else to_float(batch["target"])
        if self.device.type == "cuda":
            noise = noise.pin_memory()  # else the copy would wait for the device
        reconstruction, mu, logvar = self.model(images, noise.to(self.device, non_blocking=True))
        terms = vae_loss(
            reconstruction, target, mu, logvar,
            weight=self.kld_weight, reduction=self.config.kld.kld_reduction,
        )  # fmt: skip
        unlike = dissimilarity(reconstruction, target).mean() if self._takes_ssim else None
        none = torch.ones_like(terms.kld)
        values = [terms.total, terms.recon, terms.kld, none if unlike is None else unlike]
        self._add_to_sums(values, len(target))
        return (
            terms.total if unlike is None else terms.total + self.config.optim.ssim_weight * unlike
        )

    @property
    def _takes_ssim(self) -> bool:
        return self.config.optim.ssim_weight > 0

    def _add_to_sums(self, values: list[torch.Tensor], images: int) -> None:
        self._sums = self._sums.to(self.device)
        self._sums += torch.stack([*values, torch.ones_like(values[0])]).detach() * images

    def on_train_epoch_start(self) -> None:
        self._sums = torch.zeros(5, dtype=torch.float64, device=self.device)

    def running_loss(self) -> float:
        """Mean loss of the epoch so far on this device, which is waited for."""
        return float(self._sums[0] / self._sums[4])

    def training_means(self) -> dict[str, float]:
        """Means over the images of the epoch so far, over all devices."""
        loss, recon, kld, unlike = self._means_of_terms()
        means = {
            "train/loss": loss,
            "train/recon_loss": recon,
            "train/kld": kld,
            "train/kld_weight": self.kld_weight,
        }
        return means | ({"train/ssim": 1 - unlike} if self._takes_ssim else {})

    def shares(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """What each term comes to in what training lowers, from the epoch's means."""
        kld = metrics["train/kld_weight"] * metrics["train/kld"]
        if self.config.kld.kld_reduction == "mean":
            kld /= self.config.model.latent_dim
        terms = {"recon": metrics["train/recon_loss"], "kld": kld}
        if self._takes_ssim:
            terms["ssim"] = self.config.optim.ssim_weight * (1 - metrics["train/ssim"])
        return terms

    def _means_of_terms(self) -> list[float]:
        sums = self._sums_of_all_devices()
        means: list[float] = (sums[:-1] / sums[-1]).tolist()
        return means

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
        self._judge(images, batch["index"], *self.averaged.encode(images))

    def _judge(
        self, images: torch.Tensor, index: torch.Tensor, mu: torch.Tensor, logvar: torch.Tensor
    ) -> None:
        """Measure what the codes of validation images give."""
        noise = validation_noise(
            self.config.run.seed, index.tolist(), self.config.model.latent_dim
        ).to(self.device)
        noisy = self.averaged.decode(reparameterise(mu, logvar, noise))
        recon, kld = image_losses(noisy, images, mu, logvar)
        loss = total_loss(
            recon,
            kld,
            final_kld_weight(self.config.kld),
            self.config.kld.kld_reduction,
            mu.shape[1],
        )
        clean = self.averaged.decode(mu)
        self._val_codes.update(mu, logvar)
        self.val_loss.update(loss)
        self.val_recon.update(recon)
        self.val_kld.update(kld)
        # The windows of SSIM lose a third of its value in bfloat16.
        with torch.autocast(self.device.type, enabled=False):
            self.val_ssim.update(clean, images)
            self.val_psnr.update(clean, images)

    def _validated(self) -> dict[str, torch.Tensor]:
        """The means over the validation images, over all devices; measuring begins anew."""
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
        return values

    def on_validation_epoch_end(self) -> None:
        values = self._validated()
        if not math.isfinite(float(values["val/loss"])):
            raise EarTeachError(
                f"the validation loss of epoch {self.current_epoch + 1} is not finite; "
                f"try a smaller --learning-rate than {self.config.optim.peak_learning_rate:g}"
            )
        self.log_dict(values, logger=False, rank_zero_only=False)
        # Lightning would step this one after the epoch's checkpoint has been written, and a resumed
        # run would miss that step.
        if isinstance(scheduler := self.lr_schedulers(), ReduceLROnPlateau):
            scheduler.step(values["val/loss"])

    def configure_optimizers(self) -> Any:
        optim = self.config.optim
        optimizer = torch.optim.AdamW(
            [parameter for parameter in self.model.parameters() if parameter.requires_grad],
            lr=optim.peak_learning_rate,
            weight_decay=optim.weight_decay,
            fused=self.device.type in ("cpu", "cuda") and not self._scales_gradients,
        )
        if optim.lr_schedule == "plateau":
            plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=10)
            schedule: Any = {"scheduler": plateau, "monitor": "val/loss"}
        else:
            cosine = CosineSchedule(optimizer, self._steps_of_the_run(), optim)
            schedule = {"scheduler": cosine, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": {**schedule, "name": "lr"}}

    @property
    def _scales_gradients(self) -> bool:
        """Whether gradients are scaled against underflow; a fused step would come before clipping."""
        return self.trainer.precision == "16-mixed"

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip for a fused optimizer too, which Lightning refuses even where nothing is scaled."""
        if self._scales_gradients:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), gradient_clip_val)

    def _steps_of_the_run(self) -> int:
        """Lightning's own count would open the loader before a resumed run's place in it is known."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        return int(datamodule.steps_per_epoch()) * self.config.optim.epochs

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step the schedule that goes by steps; `on_validation_epoch_end` has stepped the other."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """A step of the optimizer, then of the moving average.

        The average begins short and grows to its length, so that the first weights leave it soon.
        """
        super().optimizer_step(*args, **kwargs)
        if self.averaged is self.model:
            return
        taken = self.trainer.global_step
        decay = min(self.config.optim.ema_decay, taken / (taken + 9))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.averaged.parameters()), list(self.model.parameters()), 1 - decay
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[_SUMS] = self._sums_of_all_devices().tolist()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        sums = torch.tensor(checkpoint.get(_SUMS, [0.0] * 5), dtype=torch.float64)
        self._sums = sums if self.global_rank == 0 else torch.zeros_like(sums)
