"""An array of images on its way to the disk, with the manifest and the landmarks beside it.

Rows go to a partial file at once; nothing lies under its own name before `publish`.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from earteach.data.manifest import ManifestRow, beside, is_manifest, write_manifest
from earteach.errors import EarTeachError


@dataclass(frozen=True)
class Row:
    """One image on its way into an array, uint8 `(S, S, C)`, and its landmarks, float32 `(K, 2)`."""

    image: np.ndarray
    about: ManifestRow
    landmarks: np.ndarray | None = None


@dataclass
class ArrayFile:
    """An array with its manifest and landmarks, while it is being written row by row."""

    path: Path
    shape: tuple[int, int, int]
    rows: list[ManifestRow] = field(default_factory=list)
    landmarks: list[np.ndarray | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.manifest = beside(self.path, "manifest.csv")
        self.landmarks_path = beside(self.path, "landmarks.npy")
        self.written = (self.path, self.manifest, self.landmarks_path)
        self._bytes = int(np.prod(self.shape))

    def refuse_foreign(self) -> None:
        for path in self.written:
            if path.exists() and not is_manifest(self.manifest):
                raise EarTeachError(
                    f"{path}: exists and `earteach prepare` did not write it (its manifest is not "
                    "there); move it away or choose another --out"
                )

    def open(self) -> None:
        partial = _partial(self.path)
        self._file: BinaryIO = partial.open("r+b" if partial.exists() else "w+b")
        self._header = _write_header(self._file, (0, *self.shape))

    def add(self, row: Row) -> None:
        self._file.write(np.ascontiguousarray(row.image).data)
        self.note(row.about, row.landmarks)

    def note(self, about: ManifestRow, landmarks: np.ndarray | None) -> None:
        self.rows.append(about)
        self.landmarks.append(landmarks)

    def flush(self) -> None:
        self._file.flush()

    def holds(self, row: int, checksum: int) -> bool:
        """Whether the file has this row; what a crash of the machine left may be cut short, or zeros."""
        self._file.seek(self._header + row * self._bytes)
        data = self._file.read(self._bytes)
        return len(data) == self._bytes and zlib.crc32(data) == checksum

    def end_here(self) -> None:
        """Leave out whatever the file holds after the rows that are known."""
        self._file.seek(self._header + len(self.rows) * self._bytes)
        self._file.truncate()

    def finish(self) -> None:
        """Write the true length into the header, and the manifest and landmarks beside the array."""
        self._file.seek(0)
        length = _write_header(self._file, (len(self.rows), *self.shape))
        assert length == self._header, "numpy pads headers so that the first axis can grow"
        self.close()
        write_manifest(_partial(self.manifest), self.rows)
        points = self._points()
        if points is not None:
            with _partial(self.landmarks_path).open("wb") as file:
                np.save(file, points)

    def _points(self) -> np.ndarray | None:
        """Float32 `(N, K, 2)`; None where no row has any."""
        some = next((these for these in self.landmarks if these is not None), None)
        if some is None:
            return None
        unseen = np.full_like(some, np.nan)
        return np.stack([unseen if these is None else these for these in self.landmarks])

    def publish(self) -> None:
        """Move the finished files into place; the manifest first, as it says whose the others are."""
        _partial(self.manifest).replace(self.manifest)
        if _partial(self.landmarks_path).exists():
            _partial(self.landmarks_path).replace(self.landmarks_path)
        else:
            self.landmarks_path.unlink(missing_ok=True)
        _partial(self.path).replace(self.path)

    def close(self) -> None:
        # Not opened yet; or a full disk: what was buffered cannot be written, and need not be.
        with suppress(AttributeError, OSError):
            self._file.close()

    def remove_partial(self) -> None:
        for path in self.written:
            _partial(path).unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> int:
    """Write the .npy header of a uint8 array of this shape; gives its length in bytes."""
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return file.tell()
