"""The files that `embed` writes: `.npz`, `.npy` and `.parquet`."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from earteach.errors import EarTeachError
from earteach.files.atomic_write import write_atomically
from earteach.files.overwrite_guard import foreign

_HASH = "checkpoint_sha256"
_ROWS = 4096


@dataclass(frozen=True)
class Columns:
    """Names of the rows, float32 columns `(N, …)` by name, and of which checkpoint they are."""

    names: list[str]
    values: Mapping[str, np.ndarray]
    about: Mapping[str, str]


class Writer(Protocol):
    def check_target(self, out: Path) -> None:
        """Raise `EarTeachError` where a file is in the way that is not of `embed`."""

    def write(self, out: Path, columns: Columns) -> None:
        """Write whole or not at all."""


def find_writer(out: Path, *, logvar: bool, features: bool) -> Writer:
    """By the suffix. Raises `EarTeachError` for another, and for what `.npy` cannot hold."""
    suffix = out.suffix.lower()
    if suffix not in _WRITERS:
        raise EarTeachError(f"--out {out}: must end in {', '.join(_WRITERS)}")
    for option, wanted in (("--logvar", logvar), ("--features", features)):
        if suffix == ".npy" and wanted:
            raise EarTeachError(
                f"{option}: a .npy file holds mu alone; write --out {out.with_suffix('.npz')}"
            )
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise EarTeachError(
            f"--out {out}: needs pyarrow; install it with `pip install 'earteach[parquet]'`"
        )
    return _WRITERS[suffix]


class _Npz:
    """`names`, `mu` and the other columns, `checkpoint` and `checkpoint_sha256`; not compressed."""

    def check_target(self, out: Path) -> None:
        try:
            # numpy leaves a file open that turns out to be no archive.
            with out.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                ours = _HASH in stored.files
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
            ours = False
        if not ours:
            raise foreign(out, "embed")

    def write(self, out: Path, columns: Columns) -> None:
        entries = {
            "names": np.array([_text(name) for name in columns.names]),
            **columns.values,
            **{name: np.array(_text(value)) for name, value in columns.about.items()},
        }

        def write_to(partial: Path) -> None:
            with partial.open("wb") as file:  # a name of its own: numpy would add .npz
                np.savez(file, **entries)  # type: ignore[arg-type]

        write_atomically(out, write_to)


class _Npy:
    """mu alone. It cannot say who wrote it, so an existing file stays."""

    def check_target(self, out: Path) -> None:
        if out.exists():
            raise EarTeachError(
                f"{out}: exists, and a .npy file does not say who wrote it; move it away or choose "
                "another --out"
            )

    def write(self, out: Path, columns: Columns) -> None:
        def write_to(partial: Path) -> None:
            with partial.open("wb") as file:
                np.save(file, columns.values["mu"])

        write_atomically(out, write_to)


class _Parquet:
    """A column `name`, lists of fixed length for the others, and the checkpoint in the metadata."""

    def check_target(self, out: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        try:
            ours = _HASH.encode() in (parquet.read_schema(out).metadata or {})
        except FileNotFoundError:
            return
        except (OSError, pyarrow.ArrowInvalid):
            ours = False
        if not ours:
            raise foreign(out, "embed")

    def write(self, out: Path, columns: Columns) -> None:
        import pyarrow
        from pyarrow import parquet

        kinds = {
            name: pyarrow.list_(pyarrow.float32(), column.shape[1])
            for name, column in columns.values.items()
        }
        schema = pyarrow.schema(
            {"name": pyarrow.string(), **kinds},
            metadata={name: _text(value) for name, value in columns.about.items()},
        )

        def write_to(partial: Path) -> None:
            with parquet.ParquetWriter(partial, schema) as file:
                for start in range(0, len(columns.names), _ROWS):
                    rows = slice(start, start + _ROWS)
                    named = pyarrow.array([_text(name) for name in columns.names[rows]])
                    lists = [
                        pyarrow.FixedSizeListArray.from_arrays(
                            pyarrow.array(np.ascontiguousarray(column[rows]).reshape(-1)),
                            column.shape[1],
                        )
                        for column in columns.values.values()
                    ]
                    file.write_table(pyarrow.table([named, *lists], schema=schema))

        write_atomically(out, write_to)


_WRITERS: dict[str, Writer] = {".npz": _Npz(), ".npy": _Npy(), ".parquet": _Parquet()}


def _text(name: str) -> str:
    """A file name may hold bytes that are no text."""
    return name.encode("utf-8", "replace").decode()
