"""The two arrays that `prepare` writes, each with its manifest and landmarks.

Images go to hidden partial files as they are made. Files get their final names only once everything is
complete, so an interrupted run leaves the old arrays as they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from earteach.data.manifest import ManifestRow, beside, is_manifest, write_manifest
from earteach.errors import EarTeachError
from earteach.files.atomic_write import write_error
from earteach.files.folders import make_folder, missing_folders, remove_empty
from earteach.files.overwrite_guard import refuse_foreign

ImageShape = tuple[int, int, int]


@dataclass(frozen=True)
class Row:
    """One image to write, uint8 `(S, S, C)`, and its landmarks, float32 `(K, 2)`."""

    image: np.ndarray
    manifest: ManifestRow
    landmarks: np.ndarray | None = None


@dataclass(frozen=True)
class Rejected:
    """A photograph, an ear in it or an annotation that was left out, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class PreparedArray:
    """An array that was written."""

    path: Path
    images: int


class _PartialArray:
    """One of the two arrays while it is written."""

    def __init__(self, path: Path, shape: ImageShape) -> None:
        self.path = path
        self.rows: list[ManifestRow] = []
        self._shape = shape
        self._landmarks: list[np.ndarray | None] = []
        self._manifest_path = beside(path, "manifest.csv")
        self._landmarks_path = beside(path, "landmarks.npy")
        self._paths = (path, self._manifest_path, self._landmarks_path)

    def refuse_foreign(self) -> None:
        for path in self._paths:
            refuse_foreign(path, lambda _: is_manifest(self._manifest_path), "prepare")

    def open(self) -> None:
        for path in self._paths:  # of a killed run; or a link, which must not be followed
            _partial(path).unlink(missing_ok=True)
        self._file = _partial(self.path).open("wb")
        self._write_header()

    def _write_header(self) -> None:
        # The same length for any number of rows: numpy pads headers so that the first axis can change.
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(self.rows), *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def add(self, row: Row) -> None:
        self._file.write(row.image.tobytes())
        self.rows.append(row.manifest)
        self._landmarks.append(row.landmarks)

    def finish(self) -> None:
        """Write the number of images into the header, and the manifest and landmarks beside it."""
        self._file.seek(0)
        self._write_header()
        self._file.close()
        write_manifest(_partial(self._manifest_path), self.rows)
        known = next((points for points in self._landmarks if points is not None), None)
        if known is not None:
            unknown = np.full_like(known, np.nan)
            stacked = np.stack([unknown if p is None else p for p in self._landmarks])
            with _partial(self._landmarks_path).open("wb") as file:
                np.save(file, stacked)

    def publish(self) -> PreparedArray:
        """Move the finished files into place; the manifest first, which marks the others as ours."""
        for path in (self._manifest_path, self._landmarks_path, self.path):
            if _partial(path).exists():
                _partial(path).replace(path)
            else:
                path.unlink(missing_ok=True)  # landmarks of the ears that were here before
        return PreparedArray(self.path, len(self.rows))

    def remove_partial(self) -> None:
        with suppress(OSError):  # what a full disk did not take
            self._file.close()
        for path in self._paths:
            _partial(path).unlink(missing_ok=True)


class ArrayWriter:
    """Writes ears in order to `train_teacher.npy` and `val_teacher.npy`; made by `array_writer`."""

    def __init__(self, out: Path, shape: ImageShape, validation: set[str]) -> None:
        self._out, self._validation = out, validation
        self._train = _PartialArray(out / "train_teacher.npy", shape)
        self._val = _PartialArray(out / "val_teacher.npy", shape)
        self.arrays = (self._train, self._val)
        self.rejected: list[Rejected] = []
        self.mirrored = 0

    def add(self, ears: Sequence[Row | Rejected]) -> None:
        """Write the ears of the next photograph."""
        self.rejected.extend(ear for ear in ears if isinstance(ear, Rejected))
        with _writing_to(self._out):
            for row in (ear for ear in ears if isinstance(ear, Row)):
                array = self._val if row.manifest.group in self._validation else self._train
                array.add(row)
                self.mirrored += row.manifest.mirrored

    def publish(self) -> tuple[PreparedArray, PreparedArray]:
        """Move both arrays into place; raises `EarTeachError` if one of them is empty."""
        for array in self.arrays:
            if not array.rows:
                first = self.rejected[0] if self.rejected else None
                raise EarTeachError(
                    f"{self._out}: no ear for {array.path.name} could be read"
                    + (f" ({first.path}: {first.reason})" if first else "; add photographs")
                )
        with _writing_to(self._out):
            for array in self.arrays:
                array.finish()
            return self._train.publish(), self._val.publish()


@contextmanager
def array_writer(out: Path, shape: ImageShape, validation: set[str]) -> Iterator[ArrayWriter]:
    """Hold the folder `out` for this process and write arrays of images of `shape` there.

    Ears of the groups in `validation` go to the validation array. Partial files are removed at the end,
    and those of a killed run are overwritten. Raises `EarTeachError` if something cannot be written, was
    not written by `prepare`, or if another process writes there.
    """
    writer = ArrayWriter(out, shape, validation)
    with ExitStack() as cleanup:
        cleanup.callback(remove_empty, missing_folders(out))
        make_folder(out)
        with _writing_to(out):
            for array in writer.arrays:
                array.refuse_foreign()
            cleanup.enter_context(_locked(out))
            for array in writer.arrays:
                array.open()
                cleanup.callback(array.remove_partial)
        yield writer


@contextmanager
def _writing_to(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise write_error(out, error) from error


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    path = out / ".prepare.lock"
    try:
        with FileLock(path, blocking=False, fallback_to_soft=False), ExitStack() as cleanup:
            # Removed while it is locked: `FileLock` never locks a file that is gone.
            cleanup.callback(path.unlink, missing_ok=True)
            yield
    except Timeout as error:
        raise EarTeachError(
            f"{out}: another `earteach prepare` is writing there; wait, or choose another --out"
        ) from error


def _partial(path: Path) -> Path:
    """Where a file is written until it is complete."""
    return path.with_name(f".{path.name}.partial")
