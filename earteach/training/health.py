"""The signs that the doctor tells a run's health from, gathered epoch by epoch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from earteach.data.arrays import EarArray
from earteach.data.batches import to_batch
from earteach.data.randomness import validation_noise
from earteach.metrics.doctor import Advice, Epoch, Signs, diagnose
from earteach.model.loss import squared_error
from earteach.model.vae import reparameterise
from earteach.training.module import EarVAELightning

# Enough for a mean, few enough to cost less than the validation of any array worth training on.
_CLEAN_IMAGES = 64
# The last eigenvalues of few images are much too small; the first quarter is near the truth.
_IMAGES_PER_EIGENVALUE = 4
_log = logging.getLogger(__name__)


class Health:
    """Keeps what was seen of a run, and notes each new trouble once.

    It is kept in the checkpoint and not read from the logs, which a resumed run may have elsewhere.
    """

    def __init__(self, train_array: EarArray) -> None:
        self._clean = CleanImages(train_array)
        self._clean_recon = float("nan")
        self._history: list[Epoch] = []
        self._codes: dict[str, list[float]] = {"kld": [], "variance": []}
        self._told: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        """Builtin values, for a checkpoint."""
        return {
            "history": [asdict(epoch) for epoch in self._history],
            "codes": {name: list(values) for name, values in self._codes.items()},
            "told": list(self._told),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._history = [Epoch(**epoch) for epoch in state["history"]]
        self._codes = {name: list(values) for name, values in state["codes"].items()}
        self._told = list(state["told"])

    @property
    def kld_per_dimension(self) -> np.ndarray:
        """Of the last validation, in nats, `(latent_dim,)`."""
        return np.asarray(self._codes["kld"])

    def look_at_clean_images(self, module: EarVAELightning) -> None:
        """Reconstruct a few training images as validation reconstructs its own."""
        self._clean_recon = self._clean.reconstruction_loss(module)

    def scalars(self, module: EarVAELightning, metrics: Mapping[str, float]) -> dict[str, float]:
        """What is to be logged of an epoch beside its means; every device has to ask."""
        codes = module.validation_codes()
        self._codes = {
            "kld": codes.kld_per_dimension().tolist(),
            "variance": codes.variance().tolist(),
        }
        return {
            **_shares(module, metrics),
            "train/clean_recon_loss": self._clean_recon,
            "val/gap": metrics["val/recon_loss"] - self._clean_recon,
            "val/active_units": float(codes.active_units()),
        }

    def add(self, metrics: Mapping[str, float], learning_rate: float) -> None:
        """Take an epoch into the history, by the names that are logged."""
        self._history.append(
            Epoch(
                train_recon=metrics["train/recon_loss"],
                clean_recon=metrics["train/clean_recon_loss"],
                val_recon=metrics["val/recon_loss"],
                val_loss=metrics["val/loss"],
                learning_rate=learning_rate,
            )
        )

    def note(self, module: EarVAELightning, steps: int) -> None:
        """Log what is wrong and has not been said of this run before."""
        for advice in self.diagnosis(module, steps, finished=False):
            if advice.code not in self._told:
                self._told.append(advice.code)
                _log.info("%s", advice.message)

    def diagnosis(
        self, module: EarVAELightning, steps: int, *, finished: bool
    ) -> tuple[Advice, ...]:
        """What is wrong with the run as it stands after `steps`."""
        return diagnose(
            Signs(
                config=module.config,
                epochs=len(self._history),
                steps=steps,
                finished=finished,
                history=tuple(self._history),
                kld_per_dimension=tuple(self._codes["kld"]),
                variance=tuple(self._codes["variance"]),
                recon_loss=self._history[-1].val_recon if self._history else None,
                mean_image_error=self._clean.mean_image_error(module),
                eigenvalues=self._clean.eigenvalues(module),
                side_dimension=module.model.side_dimension,
            )
        )


class CleanImages:
    """A few training images, evenly spread over the array, without augmentation."""

    def __init__(self, array: EarArray) -> None:
        count = min(_CLEAN_IMAGES, len(array))
        self._array = array
        self._rows = np.linspace(0, len(array) - 1, count).round().astype(int).tolist()
        self._images: np.ndarray | None = None
        self._spectrum: np.ndarray | None = None

    def reconstruction_loss(self, module: EarVAELightning) -> float:
        """Their mean squared error, from noisy codes."""
        images, size, total = self._read(module), module.config.optim.batch_size, 0.0
        for start in range(0, len(images), size):
            batch = to_batch(images[start : start + size]).to(module.device)
            noise = validation_noise(
                module.config.run.seed,
                self._rows[start : start + size],
                module.config.model.latent_dim,
            ).to(module.device)
            with torch.no_grad():
                seen = module.decode(reparameterise(*module.averaged.encode(batch), noise))
                total += float(squared_error(seen, batch).sum())
        return total / len(images)

    def mean_image_error(self, module: EarVAELightning) -> float | None:
        """The mean squared error of their mean on images like them; None for a single one."""
        if len(self._rows) < 2:
            return None
        return float(self._eigenvalues(module).sum() / self._read(module)[0].size)

    def eigenvalues(self, module: EarVAELightning) -> tuple[float, ...]:
        """Of their PCA, in summed pixels, as many as are near those of all images."""
        known = len(self._rows) // _IMAGES_PER_EIGENVALUE
        return tuple(self._eigenvalues(module)[:known].tolist()) if known else ()

    def _eigenvalues(self, module: EarVAELightning) -> np.ndarray:
        if self._spectrum is None:
            flat = self._read(module).reshape(len(self._rows), -1).astype(np.float32) / 255
            centred = flat - flat.mean(axis=0)
            scatter = centred @ centred.T
            self._spectrum = np.linalg.eigvalsh(scatter)[::-1] / (len(self._rows) - 1)
        return self._spectrum

    def _read(self, module: EarVAELightning) -> np.ndarray:
        if self._images is None:
            model = module.config.model
            ears = [
                self._array.image(row, size=model.image_size, channels=model.in_channels)
                for row in self._rows
            ]
            self._images = np.stack(ears)
        return self._images


def _shares(module: EarVAELightning, metrics: Mapping[str, float]) -> dict[str, float]:
    """Each term's share of what training descends."""
    kld = metrics["train/kld_weight"] * metrics["train/kld"]
    if module.config.kld.kld_reduction == "mean":
        kld /= module.config.model.latent_dim
    terms = {"recon": metrics["train/recon_loss"], "kld": kld}
    if "train/ssim" in metrics:
        terms["ssim"] = module.config.optim.ssim_weight * (1 - metrics["train/ssim"])
    whole = sum(terms.values())
    return {f"train/share_{name}": term / whole if whole else 0.0 for name, term in terms.items()}
