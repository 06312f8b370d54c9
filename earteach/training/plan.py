"""What a run will train, before it trains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from earteach.config import TrainConfig
from earteach.data.arrays import EarArray
from earteach.model.annealing import final_kld_weight
from earteach.model.build import build_model
from earteach.model.loss import elbo_beta
from earteach.model.summary import summarise
from earteach.training.task import Task


@dataclass(frozen=True)
class Plan:
    """The size of a run; `schedule` is the KLD weight of each epoch, `elbo_beta` the final β.

    `schedule` is empty where the loss has no KLD; `provenance` names what the run starts from.
    """

    image_size: int
    in_channels: int
    latent_dim: int
    base_channels: int
    parameters: int
    multiply_adds: int
    train_data: Path
    val_data: Path
    train_images: int
    val_images: int
    epochs: int
    epochs_done: int
    batch_size: int
    steps_per_epoch: int
    steps: int
    precision: str
    lr_schedule: str
    learning_rate: float  # its peak
    schedule: tuple[float, ...]
    final_kld_weight: float
    elbo_beta: float
    checkpoint_dir: Path
    log_dir: Path
    provenance: dict[str, str]


def plan(config: TrainConfig, task: Task, *, epochs_done: int = 0) -> Plan:
    """Open the arrays and build the network, without values, to count.

    Raises `EarTeachError` as training would.
    """
    data, model, optim = config.data, config.model, config.optim
    train, val = (EarArray.open(p, data.layout) for p in (data.train_data, data.val_data))
    with torch.device("meta"):
        summary = summarise(build_model(model))
    hardware = config.hardware
    all_devices = max(1, torch.cuda.device_count())
    devices = hardware.num_nodes * (hardware.devices if hardware.devices > 0 else all_devices)
    steps = steps_per_epoch(len(train), optim.batch_size, devices)
    final = final_kld_weight(config.kld)
    dimensions = model.in_channels * model.image_size**2
    return Plan(
        image_size=model.image_size,
        in_channels=model.in_channels,
        latent_dim=model.latent_dim,
        base_channels=model.base_channels,
        parameters=summary.parameters,
        multiply_adds=summary.multiply_adds,
        train_data=data.train_data,
        val_data=data.val_data,
        train_images=len(train),
        val_images=len(val),
        epochs=optim.epochs,
        epochs_done=epochs_done,
        batch_size=optim.batch_size,
        steps_per_epoch=steps,
        steps=steps * optim.epochs,
        precision=config.hardware.precision,
        lr_schedule=optim.lr_schedule,
        learning_rate=optim.peak_learning_rate,
        schedule=task.kld_schedule(config),
        final_kld_weight=final,
        elbo_beta=elbo_beta(final, config.kld.kld_reduction, model.latent_dim, dimensions),
        checkpoint_dir=config.run.checkpoint_dir,
        log_dir=config.run.log_dir,
        provenance={name: entry["path"] for name, entry in task.provenance.items()},
    )


def steps_per_epoch(images: int, batch_size: int, devices: int) -> int:
    """Steps per epoch, the same number on each device."""
    return math.ceil(math.ceil(images / devices) / batch_size)
