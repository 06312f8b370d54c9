"""A trained network on the device and in the arithmetic that are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from earteach import checkpoint
from earteach.checkpoint import Checkpoint
from earteach.config import InferenceConfig, Precision
from earteach.hardware import on_cpu, precision_on_cpu
from earteach.model.vae import EarVAE

_TYPES = {"16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint's network, ready to run."""

    checkpoint: Checkpoint
    network: EarVAE
    device: torch.device
    precision: Precision

    @contextmanager
    def running(self) -> Iterator[EarVAE]:
        """The network inside inference mode and autocast."""
        reduced = _TYPES.get(self.precision)
        autocast = torch.autocast(self.device.type, dtype=reduced, enabled=reduced is not None)
        with torch.inference_mode(), autocast:
            yield self.network


def load_model(path: Path, config: InferenceConfig | None = None) -> LoadedModel:
    """Read a checkpoint, or a folder's best, and place its network.

    Raises `EarTeachError` for a checkpoint that cannot be read and for a GPU that is not there.
    """
    config = config or InferenceConfig()
    found = checkpoint.read(checkpoint.best(path) if path.is_dir() else path)
    precision = config.precision or found.config.hardware.precision
    device = torch.device("cuda")
    if on_cpu(config.accelerator):
        device, precision = torch.device("cpu"), precision_on_cpu(precision)
    return LoadedModel(found, found.model().to(device), device, precision)
