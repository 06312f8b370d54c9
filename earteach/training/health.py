"""The signs that the doctor tells a run's health from, gathered epoch by epoch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from earteach.data.arrays import EarArray
from earteach.metrics.clean_images import CleanImages
from earteach.metrics.doctor import Advice, diagnose
from earteach.metrics.signs import Epoch, Signs
from earteach.training.lightning_module import EarVAELightning

_log = logging.getLogger(__name__)


class Health:
    """Keeps what was seen of a run, and notes each new trouble once.

    It is kept in the checkpoint and not read from the logs, which a resumed run may have elsewhere.
    """

    def __init__(self, arrays: Mapping[str, EarArray]) -> None:
        self._arrays = arrays
        self._clean: CleanImages | None = None
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
        self._clean_recon = self._clean_images(module).reconstruction_loss(
            module.averaged, seed=module.config.run.seed, batch_size=module.config.optim.batch_size
        )

    def _clean_images(self, module: EarVAELightning) -> CleanImages:
        if self._clean is None:
            model = module.config.model
            self._clean = CleanImages(
                self._arrays["train"], size=model.image_size, channels=model.in_channels
            )
        return self._clean

    def scalars(self, module: EarVAELightning, metrics: Mapping[str, float]) -> dict[str, float]:
        """What is to be logged of an epoch beside its means; every device has to ask."""
        codes = module.validation_codes()
        self._codes = {
            "kld": codes.kld_per_dimension().tolist(),
            "variance": codes.variance().tolist(),
        }
        return {
            **{f"train/share_{name}": share for name, share in module.shares().items()},
            "train/clean_recon_loss": self._clean_recon,
            "val/gap": metrics["val/recon_loss"] - self._clean_recon,
            "val/active_units": float(codes.active_units()),
        }

    def add(self, metrics: Mapping[str, float], learning_rate: float) -> None:
        """Take an epoch into the history, by the names that are logged."""
        if "train/recon_loss" not in metrics:
            return  # a student's, which training does not have decode
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
        if not module.has_diagnostics:
            return ()
        clean = self._clean_images(module)
        return diagnose(
            Signs(
                config=module.config,
                epochs=len(self._history),
                steps=steps,
                finished=finished,
                history=tuple(self._history),
                images=len(self._arrays["val"]),
                kld_per_dimension=tuple(self._codes["kld"]),
                variance=tuple(self._codes["variance"]),
                recon_loss=self._history[-1].val_recon if self._history else None,
                mean_image_error=clean.mean_image_error,
                eigenvalues=clean.eigenvalues,
                side_dimension=module.model.side_dimension,
            )
        )
