"""Latent codes of ears, one row each, with pooled features beside them.

>>> embed("checkpoints", Path("photos"), Path("codes.npz")).images
560
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from earteach.checkpoint import file_hash
from earteach.config import Fit, InferenceConfig, Layout
from earteach.data.image_batches import to_batch
from earteach.errors import EarTeachError
from earteach.files.atomic_write import write_atomically
from earteach.files.folders import make_folder, missing_folders, remove_empty
from earteach.files.overwrite_guard import refuse_foreign
from earteach.inference.inputs import Ear, ears
from earteach.inference.loaded_model import LoadedModel, load_model

# The entry that marks a file as ours.
_HASH = "checkpoint_sha256"
_SUFFIXES = (".npz", ".npy", ".parquet")
_ROWS = 4096


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
    config: InferenceConfig = InferenceConfig(),
) -> Embedding:
    """Write mu of each ear in an array, a folder or an image to `.npz`, `.npy` or `.parquet`.

    Rows keep the input's order and are named: by the path below the folder; for an array by its
    manifest, or else by row number. `logvar` and `features` (pooled, as `probe` uses them) add columns,
    which `.npy` cannot hold.

    Memory does not grow with the number of images. Raises `EarTeachError` where no photograph can be
    read, and where another program's file is in the way. `out` is written whole or not at all.
    """
    _check_suffix(out, logvar=logvar, features=features)
    model = load_model(path, config)
    new_folders = missing_folders(out.parent)
    make_folder(out.parent)
    try:
        _check_replaceable(out)
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
                    f"--input {source}: none of the photographs could be read; try others"
                )
            sha256 = file_hash(model.checkpoint.path)
            about = {"checkpoint": model.checkpoint.path.name, "checkpoint_sha256": sha256}
            columns = {name: _mapped(file, len(names)) for name, file in spools.items()}
            _write_columns(out, names, columns, about)
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


def _check_suffix(out: Path, *, logvar: bool, features: bool) -> None:
    """Raise `EarTeachError` for an unknown suffix, and for columns that the file cannot hold."""
    suffix = out.suffix.lower()
    if suffix not in _SUFFIXES:
        raise EarTeachError(f"--out {out}: must end in {', '.join(_SUFFIXES)}")
    for option, chosen in (("--logvar", logvar), ("--features", features)):
        if suffix == ".npy" and chosen:
            raise EarTeachError(
                f"{option}: a .npy file holds only mu; use --out {out.with_suffix('.npz')}"
            )
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise EarTeachError(
            f"--out {out}: needs pyarrow; install it with `pip install 'earteach[parquet]'`"
        )


def _check_replaceable(out: Path) -> None:
    """Raise `EarTeachError` where a file exists that `embed` did not write."""
    if out.suffix.lower() == ".npy" and out.exists():
        raise EarTeachError(
            f"{out}: exists, and a .npy file does not say who wrote it; move it away or choose "
            "another --out"
        )
    refuse_foreign(out, _is_ours, "embed")


def _is_ours(path: Path) -> bool:
    try:
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as archive:
                return f"{_HASH}.npy" in archive.namelist()
        from pyarrow import parquet

        return _HASH.encode() in (parquet.read_schema(path).metadata or {})
    except (OSError, ValueError, zipfile.BadZipFile):  # pyarrow's errors are of the first two
        return False


def _write_columns(
    out: Path, names: Sequence[str], columns: Mapping[str, np.ndarray], about: Mapping[str, str]
) -> None:
    """Write N row names, float32 columns `(N, …)`, and the checkpoint's name and hash.

    The file is written whole or not at all.
    """
    # A file name may hold bytes that are not text.
    names = [name.encode(errors="replace").decode() for name in names]
    about = {key: value.encode(errors="replace").decode() for key, value in about.items()}

    def write(partial: Path) -> None:
        if out.suffix.lower() == ".parquet":
            _write_parquet(partial, names, columns, about)
            return
        with partial.open("wb") as file:  # given a path, numpy would add its own suffix
            if out.suffix.lower() == ".npy":
                np.save(file, columns["mu"])
            else:
                texts = {key: np.array(value) for key, value in about.items()}
                np.savez(file, **{"names": np.array(names), **columns, **texts})  # type: ignore[arg-type]

    write_atomically(out, write)


def _write_parquet(
    path: Path, names: Sequence[str], columns: Mapping[str, np.ndarray], about: Mapping[str, str]
) -> None:
    """A column `name`, fixed-length lists for the others, and the checkpoint in the metadata."""
    import pyarrow
    from pyarrow import parquet

    types = {
        name: pyarrow.list_(pyarrow.float32(), column.shape[1]) for name, column in columns.items()
    }
    schema = pyarrow.schema({"name": pyarrow.string(), **types}, metadata=dict(about))
    with parquet.ParquetWriter(path, schema) as file:
        for start in range(0, len(names), _ROWS):
            rows = slice(start, start + _ROWS)
            lists = [
                pyarrow.FixedSizeListArray.from_arrays(
                    pyarrow.array(np.ascontiguousarray(column[rows]).reshape(-1)), column.shape[1]
                )
                for column in columns.values()
            ]
            file.write_table(pyarrow.table([pyarrow.array(names[rows]), *lists], schema=schema))
