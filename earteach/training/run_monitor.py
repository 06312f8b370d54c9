"""Collects the statistics that the run diagnostics judge, epoch by epoch, and logs new advice."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from earteach.data.arrays import EarArray
from earteach.metrics import diagnostics
from earteach.metrics.diagnostics import Advice, EpochLosses, RunStatistics, TrainingSubset
from earteach.run_files import RECORDER_STATE
from earteach.training.lightning_module import EarVAELightning

_log = logging.getLogger(__name__)


class RunMonitor(Callback):
    """Keeps a run's history in the checkpoint: a resumed run may log to another folder."""

    def __init__(self, arrays: Mapping[str, EarArray]) -> None:
        self._arrays = arrays
        self._subset: TrainingSubset | None = None
        self._clean_recon = float("nan")
        self._history: list[EpochLosses] = []
        # Of the last validation, by latent dimension: KLD in nats, and variance of mu.
        self.codes: dict[str, list[float]] = {"kld": [], "variance": []}
        self._reported: list[str] = []
        self._advice: tuple[Advice, ...] = ()

    @property
    def state_key(self) -> str:
        return RECORDER_STATE

    def state_dict(self) -> dict[str, Any]:
        """Builtin values, for a checkpoint."""
        history = [asdict(epoch) for epoch in self._history]
        advice = [asdict(entry) for entry in self._advice]
        return {
            "history": history, "codes": {**self.codes}, "told": [*self._reported], "advice": advice
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._history = [EpochLosses(**epoch) for epoch in state_dict["history"]]
        self.codes, self._reported = {**state_dict["codes"]}, [*state_dict["told"]]
        self._advice = tuple(Advice(**entry) for entry in state_dict.get("advice", ()))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reconstruct a few training images without augmentation, as in validation."""
        assert isinstance(pl_module, EarVAELightning)
        run, optim = pl_module.config.run, pl_module.config.optim
        self._clean_recon = self._training_subset(pl_module).reconstruction_loss(
            pl_module.averaged, seed=run.seed, batch_size=optim.batch_size
        )

    def _training_subset(self, module: EarVAELightning) -> TrainingSubset:
        if self._subset is None:
            size, channels = module.config.model.image_size, module.config.model.in_channels
            self._subset = TrainingSubset(self._arrays["train"], size=size, channels=channels)
        return self._subset

    def scalars(self, module: EarVAELightning, metrics: Mapping[str, float]) -> dict[str, float]:
        """What to log of an epoch beside its means; a collective call on all devices."""
        codes = module.validation_codes()
        self.codes = {
            "kld": codes.kld_per_dimension().tolist(),
            "variance": codes.variance().tolist(),
        }
        return {
            **{f"train/share_{name}": share for name, share in module.shares().items()},
            "train/clean_recon_loss": self._clean_recon,
            "val/gap": metrics["val/recon_loss"] - self._clean_recon,
            "val/active_units": float(codes.active_units()),
        }

    def add_epoch(self, metrics: Mapping[str, float], learning_rate: float) -> None:
        """Append an epoch to the history, from the scalars that are logged."""
        if "train/recon_loss" not in metrics:
            return  # a student: its training decodes nothing
        self._history.append(
            EpochLosses(
                train_recon=metrics["train/recon_loss"],
                clean_recon=metrics["train/clean_recon_loss"],
                val_recon=metrics["val/recon_loss"],
                val_loss=metrics["val/loss"],
                learning_rate=learning_rate,
            )
        )

    def log_new_advice(self, module: EarVAELightning, steps: int) -> None:
        """Log the advice that this run has not had before."""
        self._advice = self.diagnose(module, steps, finished=False)
        for advice in self._advice:
            if advice.code not in self._reported:
                self._reported.append(advice.code)
                _log.info("%s", advice.message)

    def diagnose(
        self, module: EarVAELightning, steps: int, *, finished: bool
    ) -> tuple[Advice, ...]:
        """The advice on the run after so many steps."""
        if not module.has_diagnostics:
            return ()
        subset = self._training_subset(module)
        return diagnostics.diagnose(
            RunStatistics(
                config=module.config,
                epochs=len(self._history),
                steps=steps,
                finished=finished,
                history=tuple(self._history),
                images=len(self._arrays["val"]),
                kld_per_dimension=tuple(self.codes["kld"]),
                variance=tuple(self.codes["variance"]),
                recon_loss=self._history[-1].val_recon if self._history else None,
                mean_image_error=subset.mean_image_error,
                eigenvalues=subset.eigenvalues,
                side_dimension=module.model.side_dimension,
            )
        )
