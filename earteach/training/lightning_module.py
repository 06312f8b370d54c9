"""The Lightning module: steps, optimizer, and what is logged."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MeanMetric
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from earteach.checkpoint import upgraded
from earteach.config import TrainConfig
from earteach.data.loaders import Sample
from earteach.errors import EarTeachError
from earteach.images import to_float
from earteach.metrics.latent import LatentStatistics
from earteach.model.annealing import final_kld_weight, kld_weight
from earteach.model.build import build_model
from earteach.model.loss import LossTerm, VAEBatch, objective, reported_loss, vae_terms
from earteach.model.vae import ConvVAE, reparameterise
from earteach.randomness import Purpose, derive, training_noise, validation_noise, views_generator
from earteach.training.drawn_ears import DrawnEars
from earteach.training.lr_schedule import CosineSchedule
from earteach.training.teaching import teach

_SUMS, _IMAGES = "train_sums", "images"
_MAX_LISTED = 16


def one_pass(
    network: ConvVAE,
    images: torch.Tensor,
    target: torch.Tensor,
    noise: torch.Tensor,
    views: torch.Generator,
    ears: DrawnEars,
    step: int,
) -> VAEBatch:
    """What the loss terms of a training step are computed from; a pyramid is taught too."""
    teaches = network.pyramid is not None
    output = network.encode_all(images, maps=teaches)
    reconstruction = network.decode(reparameterise(output.mu, output.logvar, noise))
    batch = VAEBatch(reconstruction, target, output.mu, output.logvar)
    if not teaches:
        return batch
    matches, drawn = teach(network, images, output, views, ears, step)
    return batch._replace(matches=matches, drawn=drawn)


class EarVAELightning(pl.LightningModule):
    """A network with its loss and optimizer.

    `model` is what the steps train; `averaged` is the moving average of its weights, or `model` itself
    with `--ema-decay 0`. Everything measured, shown and used later is the averaged network.

    `EarVAELightning.load_from_checkpoint(path)` works with torch's safe loading.
    """

    def __init__(self, config: Mapping[str, Mapping[str, Any]]) -> None:
        """`config` is `TrainConfig.to_dict()`: builtin values, as checkpoints keep them."""
        super().__init__()
        self.save_hyperparameters()
        self.config = TrainConfig.from_dict(config)
        self.model = self._build()
        self.averaged = self._copy_of_model() if self.config.optim.ema_decay else self.model
        names = ["loss", *(term.logged_as for term in self._validation_terms())]
        self.val_means = torch.nn.ModuleDict(
            {name: MeanMetric(nan_strategy="disable") for name in names}
        )
        self.val_ssim = StructuralSimilarityIndexMeasure(data_range=1.0)
        self.val_psnr = PeakSignalNoiseRatio(
            data_range=1.0, dim=(1, 2, 3), reduction="elementwise_mean"
        )
        self._val_codes = LatentStatistics(self.config.model.latent_dim)
        self._drawn_ears = DrawnEars(derive(self.config.run.seed, Purpose.DRAWN_EARS))
        # Of the epoch so far: the sum over images of each loss term, then the number of images.
        self._sums = torch.zeros(0, dtype=torch.float64)

    def _build(self) -> ConvVAE:
        return build_model(self.config.model)

    def _copy_of_model(self) -> ConvVAE:
        averaged = copy.deepcopy(self.model).requires_grad_(False)
        for name, part in self.model.named_children():
            if not any(parameter.requires_grad for parameter in part.parameters()):
                setattr(averaged, name, part)  # not trained, so kept once
        return averaged

    def networks(self) -> Sequence[ConvVAE]:
        """The trained network and its average."""
        return [self.model] if self.averaged is self.model else [self.model, self.averaged]

    def init_from_model(self, trained: ConvVAE) -> None:
        """Take the weights of another network of the same shape; raises `RuntimeError` for another."""
        for network in self.networks():
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

    def loss_terms(self) -> Sequence[LossTerm[Any]]:
        """The terms of the loss, with their weights in the current epoch."""
        return vae_terms(self.config, self.kld_weight)

    def _validation_terms(self) -> list[LossTerm[VAEBatch]]:
        """The terms that validation reports: the KLD has its final weight, whatever the epoch."""
        terms = vae_terms(self.config, final_kld_weight(self.config.kld))
        return [term for term in terms if term.in_loss]

    def training_step(self, batch: Sample, batch_idx: int) -> torch.Tensor:
        terms, outputs = self.loss_terms(), self._outputs(batch)
        values = {term.name: term.values_of(outputs) for term in terms}
        self._add_to_sums(values, len(batch["input"]))
        return objective(terms, values)

    def _outputs(self, batch: Sample) -> Any:
        """What the loss terms are computed from."""
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
        noise = noise.to(self.device, non_blocking=True)
        step = self.global_step
        views = views_generator(self.config.run.seed, step, self.global_rank)
        return one_pass(self.model, images, target, noise, views, self._drawn_ears, step)

    def _add_to_sums(self, values: Mapping[str, torch.Tensor], images: int) -> None:
        means = [value.mean().detach() for value in values.values()]
        row = torch.stack([*means, torch.ones_like(means[0])])
        if not len(self._sums):
            self._sums = torch.zeros(len(row), dtype=torch.float64)
        self._sums = self._sums.to(self.device) + row * images

    def on_train_batch_end(self, outputs: Any, batch: Sample, batch_idx: int) -> None:
        if self.device.type == "cpu":  # elsewhere reading the loss would wait for the device
            assert isinstance(batch["index"], torch.Tensor)
            self._check_finite(outputs["loss"], "the loss", batch["index"].tolist())

    def _check_finite(
        self, value: torch.Tensor | float, what: str, images: Sequence[int] = ()
    ) -> None:
        """Raise `EarTeachError` if the value, of these images if they are known, is not finite."""
        if math.isfinite(value):
            return
        optim = self.config.optim
        advice = "look at the images with `earteach inspect-data`, or try a smaller --learning-rate"
        if self.config.hardware.precision == "16":
            advice = "try --precision bf16 or 32"
        elif optim.peak_learning_rate > 10 * optim.default_learning_rate:
            advice = f"try --learning-rate {optim.peak_learning_rate / 10:g}"
        listed = ", ".join(map(str, images[:_MAX_LISTED])) + ", …" * (len(images) > _MAX_LISTED)
        raise EarTeachError(
            f"{what} is {float(value)} in epoch {self.current_epoch + 1}, step {self.global_step}"
            f"{f' (images {listed})' if images else ''}; the last checkpoint is kept: {advice}"
        )

    def on_train_epoch_start(self) -> None:
        self._sums = torch.zeros(0, dtype=torch.float64)

    def running_loss(self) -> float:
        """Mean loss of the epoch so far on this device, which is waited for.

        Raises `EarTeachError` if it is not finite, unless each step is checked for that.
        """
        loss = self._loss((self._sums[:-1] / self._sums[-1]).tolist())
        if self.device.type != "cpu":  # where each step is checked, and the error lists its images
            self._check_finite(loss, "the loss")
        return loss

    def _loss(self, means: Sequence[float]) -> float:
        terms = self.loss_terms()
        values = zip(terms, torch.tensor(means, dtype=torch.float64), strict=True)
        return float(reported_loss(terms, {term.name: mean for term, mean in values}))

    def training_means(self) -> dict[str, float]:
        """Means over the images of the epoch so far, over all devices."""
        sums = self._over_devices(self._sums.clone())
        means = (sums[:-1] / sums[-1]).tolist()
        scalars = {"train/loss": self._loss(means)}
        for term, mean in zip(self.loss_terms(), means, strict=True):
            scalars[f"train/{term.logged_as}"] = term.logged(mean)
        return scalars | ({"train/kld_weight": self.kld_weight} if "train/kld" in scalars else {})

    def _over_devices(self, sums: torch.Tensor) -> torch.Tensor:
        sums = self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum")
        assert isinstance(sums, torch.Tensor)
        return sums

    def validation_codes(self) -> LatentStatistics:
        """The codes of the last validation's images, over all devices."""
        return self._val_codes.reduced(self._over_devices)

    def on_validation_epoch_start(self) -> None:
        self._check_finite(self._over_devices(self._sums.clone()).sum(), "the loss")
        self._val_codes = LatentStatistics(self.config.model.latent_dim)

    def validation_step(self, batch: Sample, batch_idx: int) -> None:
        images = to_float(batch["input"])
        assert isinstance(batch["index"], torch.Tensor)
        self._update_metrics(images, batch["index"], *self.averaged.encode(images))

    def _update_metrics(
        self, images: torch.Tensor, index: torch.Tensor, mu: torch.Tensor, logvar: torch.Tensor
    ) -> None:
        """Add a batch of validation images with their mu and logvar to the metrics."""
        noise = validation_noise(
            self.config.run.seed, index.tolist(), self.config.model.latent_dim
        ).to(self.device)
        noisy = self.averaged.decode(reparameterise(mu, logvar, noise))
        terms, batch = self._validation_terms(), VAEBatch(noisy, images, mu, logvar)
        values = {term.name: term.values_of(batch) for term in terms}
        means = {"loss": reported_loss(terms, values)}
        means |= {term.logged_as: values[term.name] for term in terms}
        for name, metric in self.val_means.items():
            assert isinstance(metric, MeanMetric)
            metric.update(means[name])
        clean = self.averaged.decode(mu)
        self._val_codes.update(mu, logvar)
        # The windows of SSIM lose a third of its value in bfloat16.
        with torch.autocast(self.device.type, enabled=False):
            self.val_ssim.update(clean, images)
            self.val_psnr.update(clean, images)

    def _validation_metrics(self) -> dict[str, torch.Tensor]:
        """The means over the validation images, over all devices; then the metrics start over."""
        metrics: dict[str, Any] = {
            **{f"val/{name}": metric for name, metric in self.val_means.items()},
            "val/ssim": self.val_ssim,
            "val/psnr": self.val_psnr,
        }
        values = {name: metric.compute() for name, metric in metrics.items()}
        for metric in metrics.values():
            metric.reset()
        return values

    def on_validation_epoch_end(self) -> None:
        values = self._validation_metrics()
        self._check_finite(values["val/loss"], "the validation loss")
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
        sums = self._over_devices(self._sums.clone())
        # A step may spoil the weights although its own loss is finite.
        weights = sum(weight.detach().sum() for weight in self.model.parameters())
        self._check_finite(sums.sum() + weights, "the loss")
        checkpoint[_SUMS] = dict(zip(self._names_of_sums(), sums.tolist(), strict=False))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        sums = checkpoint.get(_SUMS, {})
        if isinstance(sums, list):
            sums = self._sums_of_format_3(sums)
        values = [sums.get(name, 0.0) for name in self._names_of_sums()] if sums else []
        self._sums = torch.tensor(values, dtype=torch.float64)
        if self.global_rank > 0:
            self._sums.zero_()  # they are of all devices
        checkpoint.update(upgraded(checkpoint))

    def _names_of_sums(self) -> list[str]:
        return [*(term.name for term in self.loss_terms()), _IMAGES]

    def _sums_of_format_3(self, sums: list[float]) -> dict[str, float]:
        """The sums of loss, reconstruction, KLD, 1 − SSIM and images, by name."""
        return dict(zip(("loss", "recon", "kld", "ssim", _IMAGES), sums, strict=True))
