"""The files that `embed` writes: `.npz`, `.npy` and `.parquet`."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from earteach.errors import EarTeachError
from earteach.files.atomic_write import write_atomically
from earteach.files.overwrite_guard import foreign

# The entry that marks a file as ours.
_HASH = "checkpoint_sha256"
_SUFFIXES = (".npz", ".npy", ".parquet")
_ROWS = 4096


def check_suffix(out: Path, *, logvar: bool, features: bool) -> None:
    """Raise `EarTeachError` for an unknown suffix, and for columns that the file cannot hold."""
    suffix = out.suffix.lower()
    if suffix not in _SUFFIXES:
        raise EarTeachError(f"--out {out}: must end in {', '.join(_SUFFIXES)}")
    for option, chosen in (("--logvar", logvar), ("--features", features)):
        if suffix == ".npy" and chosen:
            raise EarTeachError(
                f"{option}: a .npy file holds mu alone; write --out {out.with_suffix('.npz')}"
            )
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise EarTeachError(
            f"--out {out}: needs pyarrow; install it with `pip install 'earteach[parquet]'`"
        )


def check_replaceable(out: Path) -> None:
    """Raise `EarTeachError` where a file exists that `embed` did not write."""
    if not out.exists():
        return
    if out.suffix.lower() == ".npy":
        raise EarTeachError(
            f"{out}: exists, and a .npy file does not say who wrote it; move it away or choose "
            "another --out"
        )
    if not _is_ours(out):
        raise foreign(out, "embed")


def _is_ours(path: Path) -> bool:
    try:
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as archive:
                return f"{_HASH}.npy" in archive.namelist()
        from pyarrow import parquet

        return _HASH.encode() in (parquet.read_schema(path).metadata or {})
    except (OSError, ValueError, zipfile.BadZipFile):  # pyarrow's errors are of the first two
        return False


def write_columns(
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
