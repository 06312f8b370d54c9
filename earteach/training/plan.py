"""What a run will train, before it trains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from earteach.config import SHARPEN_STEPS, HardwareConfig, TrainConfig
from earteach.data.arrays import EarArray
from earteach.model.annealing import final_kld_weight
from earteach.model.build import build_model
from earteach.model.loss import elbo_beta
from earteach.model.summary import summarise
from earteach.training.task import Task

# Those of the options that the JSON of `--dry-run` holds.
_OPTIONS = (
    "image_size", "in_channels", "latent_dim", "base_channels", "train_data", "val_data", "epochs",
    "batch_size", "precision", "lr_schedule", "learning_rate", "checkpoint_dir", "log_dir",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """The size of a run; `schedule` is the KLD weight of each epoch, `elbo_beta` the final β.

    `schedule` is empty where the loss has no KLD; `provenance` names what the run starts from.
    `sharpen_steps` are those of the second decoder, at the end.
    """

    config: TrainConfig
    parameters: int
    multiply_adds: int
    train_images: int
    val_images: int
    epochs_done: int
    steps_per_epoch: int
    schedule: tuple[float, ...]
    final_kld_weight: float
    elbo_beta: float
    provenance: dict[str, str]
    sharpen_steps: int

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.config.optim.epochs

    def to_dict(self) -> dict[str, Any]:
        """The fields, with some options in place of the configuration."""
        options = self.config.resolved_options()
        values = {**vars(self), "steps": self.steps, **{name: options[name] for name in _OPTIONS}}
        del values["config"]
        return values


def plan(config: TrainConfig, task: Task, *, epochs_done: int = 0) -> Plan:
    """Open the arrays and build the network, without values, to count.

    Raises `EarTeachError` as training would.
    """
    data, model, devices = config.data, config.model, number_of_devices(config.hardware)
    train, val = (EarArray.open(p, data.layout) for p in (data.train_data, data.val_data))
    with torch.device("meta"):
        summary = summarise(build_model(model))
    final = final_kld_weight(config.kld)
    dimensions = model.in_channels * model.image_size**2
    epoch = steps_per_epoch(len(train), config.optim.batch_size, devices)
    steps = epoch * config.optim.epochs
    return Plan(
        config=config,
        parameters=summary.parameters,
        multiply_adds=summary.multiply_adds,
        train_images=len(train),
        val_images=len(val),
        epochs_done=epochs_done,
        steps_per_epoch=epoch,
        schedule=task.kld_schedule(config),
        final_kld_weight=final,
        elbo_beta=elbo_beta(final, config.kld.kld_reduction, model.latent_dim, dimensions),
        provenance={name: entry["path"] for name, entry in task.provenance.items()},
        sharpen_steps=sharpen_steps(config, steps) if task.sharpens else 0,
    )


def number_of_devices(hardware: HardwareConfig) -> int:
    """Those of all nodes."""
    all_devices = max(1, torch.cuda.device_count())
    return hardware.num_nodes * (hardware.devices if hardware.devices > 0 else all_devices)


def sharpen_steps(config: TrainConfig, steps: int) -> int:
    """Steps of the second decoder after `steps` of training; 0 for runs of several devices.

    Only one of these could train it, while the others wait.
    """
    if number_of_devices(config.hardware) > 1:
        return 0
    if config.run.sharpen_steps is not None:
        return config.run.sharpen_steps
    return SHARPEN_STEPS if steps >= SHARPEN_STEPS else 0


def steps_per_epoch(images: int, batch_size: int, devices: int) -> int:
    """Steps per epoch, the same number on each device."""
    return math.ceil(math.ceil(images / devices) / batch_size)
