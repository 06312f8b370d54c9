"""A trained network on a device, ready to run in a chosen precision."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from earteach import checkpoint
from earteach.checkpoint import Checkpoint
from earteach.config import InferenceConfig, Layout, Precision
from earteach.data.arrays import EarArray
from earteach.data.image_batches import ImageBatch, image_batches
from earteach.errors import EarTeachError
from earteach.hardware import on_cpu, precision_on_cpu, reuse_freed_memory
from earteach.model.build import build_model
from earteach.model.vae import ConvVAE
from earteach.randomness import seeded_weights

Split = Literal["train", "val"]
_AUTOCAST_TYPES = {"16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint and its network."""

    checkpoint: Checkpoint
    network: ConvVAE
    device: torch.device
    precision: Precision

    @contextmanager
    def running(self) -> Iterator[ConvVAE]:
        """The network inside inference mode and autocast."""
        with torch.inference_mode(), self.autocast():
            yield self.network

    def autocast(self) -> torch.autocast:
        dtype = _AUTOCAST_TYPES.get(self.precision)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def for_training(self) -> LoadedModel:
        """As it is, but in float32 instead of float16, whose gradients vanish without scaling."""
        return replace(self, precision="32") if self.precision == "16" else self

    def weights_digest(self) -> str:
        """SHA-256 of all weights, the key of what is cached for them."""
        digest = hashlib.sha256()
        for name, value in self.network.state_dict().items():
            digest.update(name.encode())
            digest.update(value.cpu().numpy().tobytes())
        return digest.hexdigest()

    def untrained(self, seed: int, **options: Any) -> ConvVAE:
        """A network of the same configuration, but for these options, with random weights."""
        with seeded_weights(seed):
            network = build_model(replace(self.checkpoint.config.model, **options))
        return network.eval().to(self.device)

    def open_array(self, split: Split) -> EarArray:
        """The training or validation array that the checkpoint names; `EarTeachError` if missing."""
        data = self.checkpoint.config.data
        return EarArray.open(data.train_data if split == "train" else data.val_data, data.layout)

    def open_data(self, data: str | Path | None, layout: Layout | None) -> EarArray:
        """The array of `--data`, by default the validation array that the checkpoint names.

        Raises `EarTeachError` if it cannot be read.
        """
        trained_on = self.checkpoint.config.data
        path = Path(data or trained_on.val_data)
        try:
            array = EarArray.open(path, layout or trained_on.layout)
        except EarTeachError as error:
            if path.exists():
                raise
            raise EarTeachError(f"{path}: no such file; name an array with --data") from error
        array.note_conversions(self.network.image_size, self.network.in_channels)
        return array

    def is_as_in_training(self, array: EarArray, split: Split) -> bool | None:
        """Whether the array has the images that this network was trained with; None if unknown."""
        before = self.checkpoint.about["data"].get(split)
        return None if before is None else bool(before == array.fingerprint())

    def batches(
        self, array: EarArray, batch_size: int, rows: Sequence[int] | np.ndarray | None = None
    ) -> Iterator[ImageBatch]:
        """The images of these rows, by default of all, as the network takes them."""
        size, channels = self.network.image_size, self.network.in_channels
        indices = None if rows is None else np.asarray(rows).tolist()
        return image_batches(
            array, size=size, channels=channels, batch_size=batch_size, indices=indices
        )

    def image(self, array: EarArray, row: int) -> np.ndarray:
        """An image of an array at the network's size, uint8 `(S, S, C)`."""
        network = self.network
        return array.image(row, size=network.image_size, channels=network.in_channels)


def load_model(path: str | Path, config: InferenceConfig = InferenceConfig()) -> LoadedModel:
    """Read a checkpoint, or the best one in a folder, and move its network to the device.

    Raises `EarTeachError` for a checkpoint that cannot be read, and for a GPU that does not exist.
    """
    loaded = checkpoint.find(path)
    precision = config.precision or loaded.config.hardware.precision
    device = torch.device("cuda")
    if on_cpu(config.accelerator):
        device, precision = torch.device("cpu"), precision_on_cpu(precision)
        reuse_freed_memory()
    return LoadedModel(loaded, loaded.model().to(device), device, precision)
