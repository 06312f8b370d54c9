"""Latent codes of ears, one row each, with pooled features beside them.

>>> embed("checkpoints", Path("photos"), Path("codes.npz")).images
560
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from earteach.checkpoint import file_hash
from earteach.config import Fit, InferenceConfig, Layout
from earteach.data.image_batches import to_batch
from earteach.errors import EarTeachError
from earteach.files.folders import make_folder, missing_folders, remove_empty
from earteach.inference.embedding_files import check_replaceable, check_suffix, write_columns
from earteach.inference.inputs import Ear, ears
from earteach.inference.loaded_model import LoadedModel, load_model


@dataclass(frozen=True)
class Embedding:
    """What was written: `images` rows of `latent_dim` values, and of `features` values if any."""

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
    """Write mu of each ear in an array, a folder or an image to `.npz`, `.npy` or `.parquet`.

    Rows keep the input's order and are named: by the path below the folder; for an array by its
    manifest, or else by row number. `logvar` and `features` (pooled, as `probe` uses them) add columns,
    which `.npy` cannot hold.

    Memory does not grow with the number of images. Raises `EarTeachError` where no photograph can be
    read, and where another program's file is in the way. `out` is written whole or not at all.
    """
    check_suffix(out, logvar=logvar, features=features)
    config = config or InferenceConfig()
    model = load_model(Path(path), config)
    new_folders = missing_folders(out.parent)
    make_folder(out.parent)
    try:
        check_replaceable(out)
        with ExitStack() as stack:
            stack.callback(remove_empty, new_folders)  # in case nothing is written
            chosen = ["mu", *["logvar"] * logvar, *["features"] * features]
            spools: dict[str, BinaryIO] = {
                name: stack.enter_context(tempfile.TemporaryFile(dir=out.parent)) for name in chosen
            }
            inputs = ears(source, model.network, layout, fit)
            names = _fill(spools, model, inputs, config.batch_size)
            if not names:
                raise EarTeachError(
                    f"--input {source}: none of the photographs could be read; name other ones"
                )
            sha256 = file_hash(model.checkpoint.path)
            about = {"checkpoint": model.checkpoint.path.name, "checkpoint_sha256": sha256}
            columns = {name: _mapped(file, len(names)) for name, file in spools.items()}
            write_columns(out, names, columns, about)
    except OSError as error:
        raise EarTeachError(f"{out}: cannot be written: {error.strerror or error}") from error
    return Embedding(
        checkpoint=model.checkpoint.path,
        checkpoint_sha256=sha256,
        input=source,
        path=out,
        images=len(names),
        latent_dim=model.network.latent_dim,
        logvar=logvar,
        features=columns["features"].shape[1] if features else None,
    )


def _fill(
    spools: Mapping[str, BinaryIO], model: LoadedModel, inputs: Iterator[Ear], batch_size: int
) -> list[str]:
    """Write the columns to temporary files, as the number of rows is not known; return their names."""
    names: list[str] = []
    with model.running() as network:
        while batch := list(islice(inputs, batch_size)):
            images = to_batch(np.stack([ear.image for ear in batch])).to(model.device)
            # Pooling reads the largest maps, so only on request.
            outputs = network.embed(images) if "features" in spools else network.encode(images)
            for name, values in zip(("mu", "logvar", "features"), outputs, strict=False):
                if name in spools:
                    spools[name].write(values.float().cpu().numpy().tobytes())
            names.extend(ear.label for ear in batch)
    return names


def _mapped(file: BinaryIO, rows: int) -> np.ndarray:
    """A column `(rows, …)`, memory-mapped."""
    file.flush()
    return np.memmap(file, np.float32, "r").reshape(rows, -1)
