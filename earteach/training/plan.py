"""What a configuration would train, told without training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from earteach.config import ModelConfig, TrainConfig
from earteach.data.arrays import EarArray
from earteach.errors import EarTeachError
from earteach.model.annealing import final_kld_weight, kld_weight
from earteach.model.loss import elbo_beta
from earteach.model.summary import summarise
from earteach.model.vae import EarVAE

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 24


@dataclass(frozen=True)
class Plan:
    """The run's size; `schedule` is the KLD weight over the epochs as a sparkline."""

    train_images: int
    val_images: int
    parameters: int
    multiply_adds: int
    steps_per_epoch: int
    steps: int
    final_kld_weight: float
    elbo_beta: float
    schedule: str


def plan(config: TrainConfig) -> Plan:
    """Open the arrays and build the network, without values, to count.

    Raises `EarTeachError` as training would.
    """
    import torch

    data, model, optim = config.data, config.model, config.optim
    check_trainable(model)
    train, val = (EarArray.open(p, data.layout) for p in (data.train_data, data.val_data))
    with torch.device("meta"):
        summary = summarise(EarVAE.from_config(model))
    steps = math.ceil(len(train) / optim.batch_size)
    final = final_kld_weight(config.kld)
    dimensions = model.in_channels * model.image_size**2
    return Plan(
        train_images=len(train),
        val_images=len(val),
        parameters=summary.parameters,
        multiply_adds=summary.multiply_adds,
        steps_per_epoch=steps,
        steps=steps * optim.epochs,
        final_kld_weight=final,
        elbo_beta=elbo_beta(final, config.kld.kld_reduction, model.latent_dim, dimensions),
        schedule=sparkline(config),
    )


def sparkline(config: TrainConfig) -> str:
    """The annealed weight over the epochs, drawn in block characters."""
    epochs = config.optim.epochs
    width = min(_WIDTH, epochs)
    weights = [kld_weight(place * epochs // width, epochs, config.kld) for place in range(width)]
    top = max(config.kld.kld_weight, 1e-30)
    return "".join(_BARS[round(weight / top * (len(_BARS) - 1))] for weight in weights)


def check_trainable(model: ModelConfig) -> None:
    """Raise `EarTeachError` for a network that only a teacher can train."""
    if model.encoder == "mobile" and model.pca_init:
        raise EarTeachError(
            "--encoder mobile: without a teacher it cannot begin as PCA; add --no-pca-init, or distil "
            "a trained network with `earteach distil`"
        )
