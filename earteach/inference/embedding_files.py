"""The files that `embed` writes: `.npz`, `.npy` and `.parquet`."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from earteach.errors import EarTeachError
from earteach.files.atomic_write import write_atomically
from earteach.files.overwrite_guard import foreign

# The entry that marks a file as ours.
_HASH = "checkpoint_sha256"
_ROWS = 4096


@dataclass(frozen=True)
class Columns:
    """Row names, float32 columns `(N, …)` by name, and the checkpoint's name and hash."""

    names: list[str]
    values: Mapping[str, np.ndarray]
    about: Mapping[str, str]


def check_suffix(out: Path, *, logvar: bool, features: bool) -> None:
    """Raise `EarTeachError` for an unknown suffix, and for columns that the file cannot hold."""
    suffix = out.suffix.lower()
    if suffix not in _WRITERS:
        raise EarTeachError(f"--out {out}: must end in {', '.join(_WRITERS)}")
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
    if not (_is_our_npz(out) if out.suffix.lower() == ".npz" else _is_our_parquet(out)):
        raise foreign(out, "embed")


def write_columns(out: Path, columns: Columns) -> None:
    """Write the file whole or not at all."""
    write = _WRITERS[out.suffix.lower()]
    write_atomically(out, lambda partial: write(partial, columns))


def _write_npz(path: Path, columns: Columns) -> None:
    """`names`, `mu` and the other columns, `checkpoint` and `checkpoint_sha256`; not compressed."""
    entries = {
        "names": np.array([_text(name) for name in columns.names]),
        **columns.values,
        **{name: np.array(_text(value)) for name, value in columns.about.items()},
    }
    with path.open("wb") as file:  # given a path, numpy would add .npz
        np.savez(file, **entries)  # type: ignore[arg-type]


def _is_our_npz(path: Path) -> bool:
    try:
        # numpy does not close a file that is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return _HASH in stored.files
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        return False


def _write_npy(path: Path, columns: Columns) -> None:
    with path.open("wb") as file:
        np.save(file, columns.values["mu"])


def _write_parquet(path: Path, columns: Columns) -> None:
    """A column `name`, fixed-length lists for the others, and the checkpoint in the metadata."""
    import pyarrow
    from pyarrow import parquet

    types = {
        name: pyarrow.list_(pyarrow.float32(), column.shape[1])
        for name, column in columns.values.items()
    }
    metadata = {name: _text(value) for name, value in columns.about.items()}
    schema = pyarrow.schema({"name": pyarrow.string(), **types}, metadata=metadata)
    with parquet.ParquetWriter(path, schema) as file:
        for start in range(0, len(columns.names), _ROWS):
            rows = slice(start, start + _ROWS)
            names = pyarrow.array([_text(name) for name in columns.names[rows]])
            lists = [
                pyarrow.FixedSizeListArray.from_arrays(
                    pyarrow.array(np.ascontiguousarray(column[rows]).reshape(-1)), column.shape[1]
                )
                for column in columns.values.values()
            ]
            file.write_table(pyarrow.table([names, *lists], schema=schema))


def _is_our_parquet(path: Path) -> bool:
    import pyarrow
    from pyarrow import parquet

    try:
        return _HASH.encode() in (parquet.read_schema(path).metadata or {})
    except (OSError, pyarrow.ArrowInvalid):
        return False


_WRITERS = {".npz": _write_npz, ".npy": _write_npy, ".parquet": _write_parquet}


def _text(name: str) -> str:
    """A file name may hold bytes that are not text."""
    return name.encode("utf-8", "replace").decode()
