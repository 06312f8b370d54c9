"""What a run trains: the parts of a run that differ between `earteach train` and other tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from earteach.checkpoint import Checkpoint
from earteach.config import TrainConfig
from earteach.data.arrays import EarArray
from earteach.errors import EarTeachError
from earteach.model.annealing import final_kld_weight, kld_weight
from earteach.model.pca_vae import PCAVAE
from earteach.training.lightning_module import EarVAELightning
from earteach.training.pca_init import first_weights, init_from_pca


class Task:
    """Training a network on images, as `earteach train` does; other tasks override what differs."""

    name = "train"  # the command, and the `task` of the checkpoints
    sharpens = True  # whether a second decoder for new ears is trained at the end

    def check(self, config: TrainConfig) -> None:
        """Raise `EarTeachError` for a network that this task cannot train."""
        if config.model.encoder == "mobile" and config.model.pca_init:
            raise EarTeachError(
                "--encoder mobile: cannot start from PCA by itself; add --no-pca-init, or distil a "
                "trained network with `earteach distil`"
            )

    def module(self, config: TrainConfig) -> EarVAELightning:
        """The Lightning module with random weights."""
        return EarVAELightning(config.to_dict())

    def initialise(self, module: EarVAELightning, images: EarArray, *, keep: bool) -> None:
        """Give a new run's module its first weights; `keep` stores what was fitted on the images."""
        if not isinstance(module.model, PCAVAE):
            return
        config = module.config
        weights = first_weights(images, config.model, keep=keep)
        weight = final_kld_weight(config.kld)
        if config.kld.kld_reduction == "mean":
            weight /= config.model.latent_dim
        for network in module.networks():
            assert isinstance(network, PCAVAE)
            init_from_pca(network, weights, weight)

    def prepare_folder(self, folder: Path) -> None:
        """Put into a new run's folder what the task keeps there."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What each checkpoint keeps of where the run comes from, as builtin values."""
        return {}

    def mismatch(self, run: Checkpoint) -> str | None:
        """How a run in the way differs from this task, in words that follow "a run", or None."""
        return None if run.task == self.name else f"of `earteach {run.task}`"

    def kld_schedule(self, config: TrainConfig) -> tuple[float, ...]:
        """The KLD weight of each epoch; empty where the loss has no KLD."""
        epochs = config.optim.epochs
        return tuple(kld_weight(epoch, epochs, config.kld) for epoch in range(epochs))
