"""Latent codes of ears, row for row, and pooled features beside them.

>>> embed("checkpoints", Path("photos"), Path("codes.npz")).images
560
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from earteach.checkpoint import file_hash
from earteach.config import Fit, InferenceConfig, Layout
from earteach.data.image_batches import to_batch
from earteach.errors import EarTeachError
from earteach.files.folders import make_folder, missing_folders, remove_empty
from earteach.inference.embedding_files import Columns, find_writer
from earteach.inference.inputs import Ear, ears
from earteach.inference.loaded_model import LoadedModel, load_model


@dataclass(frozen=True)
class Embedding:
    """What was written: so many rows, and how long they are in each column."""

    checkpoint: Path
    checkpoint_sha256: str
    input: Path
    path: Path
    images: int
    latent_dim: int
    logvar: bool
    features: int | None


def embed(
    path: str | Path,
    source: Path,
    out: Path,
    *,
    logvar: bool = False,
    features: bool = False,
    layout: Layout | None = None,
    fit: Fit = "stretch",
    config: InferenceConfig | None = None,
) -> Embedding:
    """Write mu of each ear of an array, a folder or an image to `.npz`, `.npy` or `.parquet`.

    Rows are in the input's order and have its names: paths below the folder, and of an array what its
    manifest says, or the row's number. `logvar` and `features`, the pooled ones that
    `probe` reads, stand beside mu. `.npy` holds mu alone.

    Memory does not grow with the images. Raises `EarTeachError` where no photograph can be read, for
    columns that `.npy` cannot hold, and for a foreign file in the way; `out` is whole or not there.
    """
    path = Path(path)
    writer = find_writer(out, logvar=logvar, features=features)
    config = config or InferenceConfig()
    model = load_model(path, config)
    made = missing_folders(out.parent)
    make_folder(out.parent)
    if out.exists():  # of a name too long that is an error of its own
        writer.check_target(out)
    named = iter(ears(source, model.network, layout, fit))
    try:
        with ExitStack() as stack:
            stack.callback(remove_empty, made)  # where nothing was written
            spools = _Spools(stack, out.parent, logvar=logvar, features=features)
            names = _fill(spools, model, named, config.batch_size)
            if not names:
                raise EarTeachError(
                    f"--input {source}: none of the photographs could be read; name other ones"
                )
            sha256 = file_hash(model.checkpoint.path)
            about = {"checkpoint": model.checkpoint.path.name, "checkpoint_sha256": sha256}
            columns = Columns(names, spools.mapped(len(names)), about)
            writer.write(out, columns)
    except OSError as error:
        raise EarTeachError(f"{out}: cannot be written: {error.strerror or error}") from error
    pooled = columns.values.get("features")
    return Embedding(
        checkpoint=model.checkpoint.path,
        checkpoint_sha256=sha256,
        input=source,
        path=out,
        images=len(names),
        latent_dim=model.network.latent_dim,
        logvar=logvar,
        features=None if pooled is None else int(pooled.shape[1]),
    )


def _fill(spools: _Spools, model: LoadedModel, named: Iterator[Ear], batch_size: int) -> list[str]:
    names: list[str] = []
    with model.running() as network:
        while batch := list(islice(named, batch_size)):
            images = to_batch(np.stack([ear.image for ear in batch])).to(model.device)
            # Pooling costs a pass over the largest maps, so only where it is wanted.
            found = network.embed(images) if spools.features else network.encode(images)
            spools.add(*found)
            names.extend(ear.label for ear in batch)
    return names


class _Spools:
    """The columns on disk, float32 and unnamed, while it is not known how many rows there will be."""

    def __init__(self, stack: ExitStack, folder: Path, *, logvar: bool, features: bool) -> None:
        wanted = {"mu": True, "logvar": logvar, "features": features}
        self.features = features
        self._files: dict[str, BinaryIO | None] = {
            name: stack.enter_context(tempfile.TemporaryFile(dir=folder)) if used else None  # noqa: SIM115
            for name, used in wanted.items()
        }

    def add(self, *values: torch.Tensor) -> None:
        """mu, logvar and, where they are wanted, features."""
        for file, value in zip(self._files.values(), values, strict=False):
            if file is not None:
                file.write(value.float().cpu().numpy().tobytes())

    def mapped(self, rows: int) -> dict[str, np.ndarray]:
        """The columns `(rows, …)`, memory-mapped."""
        values = {}
        for name, file in self._files.items():
            if file is not None:
                file.flush()
                values[name] = np.memmap(file, np.float32, "r").reshape(rows, -1)
        return values
