"""The two arrays that `prepare` writes, each with its manifest and landmarks.

Images go to hidden partial files as they are made, never through a list in memory. Files get their
final names only once everything is complete, so an interrupted run leaves the old arrays as they were.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from earteach.data.manifest import ManifestRow, beside, is_manifest, write_manifest
from earteach.errors import EarTeachError
from earteach.files.atomic_write import unwritten
from earteach.files.folders import make_folder, missing_folders, remove_empty

ImageShape = tuple[int, int, int]


@dataclass(frozen=True)
class Row:
    """One image to write, uint8 `(S, S, C)`, and its landmarks, float32 `(K, 2)`."""

    image: np.ndarray
    manifest: ManifestRow
    landmarks: np.ndarray | None = None


@dataclass(frozen=True)
class Rejected:
    """A photograph, or an ear in it, that was left out, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class CutEars:
    """The ears cut from one photograph, and those that could not be."""

    rows: tuple[Row, ...] = ()
    rejected: tuple[Rejected, ...] = ()


@dataclass(frozen=True)
class PreparedArray:
    """An array that was written."""

    path: Path
    images: int


@dataclass
class _PartialArray:
    """One of the two arrays while it is written; `capacity` is the most images that may come."""

    path: Path
    shape: ImageShape
    capacity: int
    rows: list[ManifestRow] = field(default_factory=list)
    landmarks: list[np.ndarray | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._manifest = beside(self.path, "manifest.csv")
        self._landmarks = beside(self.path, "landmarks.npy")
        self._files = (self.path, self._manifest, self._landmarks)

    def refuse_foreign(self) -> None:
        for path in self._files:
            if path.exists() and not is_manifest(self._manifest):
                raise EarTeachError(
                    f"{path}: exists and `earteach prepare` did not write it (its manifest is not "
                    "there); move it away or choose another --out"
                )

    def open(self) -> None:
        partial = _partial(self.path)
        self._images = np.lib.format.open_memmap(
            partial, "w+", np.uint8, (self.capacity, *self.shape)
        )
        with partial.open("r+b") as file:
            # Without reserved blocks, a full disk would kill the process when a page is written.
            os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)

    def add(self, row: Row) -> None:
        self._images[len(self.rows)] = row.image
        self.rows.append(row.manifest)
        self.landmarks.append(row.landmarks)

    def finish(self) -> None:
        """Cut the array to the images that came, and write the manifest and landmarks beside it."""
        self._images.flush()
        del self._images
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(self.rows), *self.shape)}
        with _partial(self.path).open("r+b") as file:
            # Of the same length as before: numpy pads headers so that the first axis can change.
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + len(self.rows) * int(np.prod(self.shape)))
        write_manifest(_partial(self._manifest), self.rows)
        shown = next((points for points in self.landmarks if points is not None), None)
        if shown is not None:
            unknown = np.full_like(shown, np.nan)
            stacked = np.stack([unknown if p is None else p for p in self.landmarks])
            with _partial(self._landmarks).open("wb") as file:
                np.save(file, stacked)

    def publish(self) -> PreparedArray:
        """Move the finished files into place; the manifest first, which marks the others as ours."""
        for path in (self._manifest, self._landmarks, self.path):
            if _partial(path).exists():
                _partial(path).replace(path)
            else:
                path.unlink(missing_ok=True)  # landmarks of the ears that were here before
        return PreparedArray(self.path, len(self.rows))

    def remove_partial(self) -> None:
        for path in self._files:
            _partial(path).unlink(missing_ok=True)


class ArrayWriter:
    """Writes ears in order to `train_teacher.npy` and `val_teacher.npy`; made by `array_writer`."""

    def __init__(self, out: Path, shape: ImageShape, groups: Sequence[str], val: set[str]) -> None:
        self._out, self._validation = out, val
        count = sum(group in val for group in groups)
        self._train = _PartialArray(out / "train_teacher.npy", shape, len(groups) - count)
        self._val = _PartialArray(out / "val_teacher.npy", shape, count)
        self.arrays = (self._train, self._val)
        self.rejected: list[Rejected] = []

    @property
    def rows(self) -> list[ManifestRow]:
        return [*self._train.rows, *self._val.rows]

    def add(self, cut: CutEars) -> None:
        """Write the ears of the next photograph."""
        with _writing_to(self._out):
            for row in cut.rows:
                array = self._val if row.manifest.group in self._validation else self._train
                array.add(row)
        self.rejected.extend(cut.rejected)

    def publish(self) -> tuple[PreparedArray, PreparedArray]:
        """Move both arrays into place; raises `EarTeachError` if one of them is empty."""
        for array in self.arrays:
            if not array.rows:
                first = self.rejected[0] if self.rejected else None
                raise EarTeachError(
                    f"{self._out}: no ear for {array.path.name} could be read"
                    + (f" ({first.path}: {first.reason})" if first else "; name others")
                )
        with _writing_to(self._out):
            for array in self.arrays:
                array.finish()
            return self._train.publish(), self._val.publish()


@contextmanager
def array_writer(
    out: Path, shape: ImageShape, groups: Sequence[str], validation: set[str]
) -> Iterator[ArrayWriter]:
    """Hold the folder `out` for this process and write arrays of images of `shape` there.

    `groups` has the group of each image that may come. Partial files are removed at the end, and what a
    killed run left is overwritten. Raises `EarTeachError` if something cannot be written, was not
    written by `prepare`, or if another process writes there.
    """
    writer = ArrayWriter(out, shape, groups, validation)
    with ExitStack() as cleanup:
        cleanup.callback(remove_empty, missing_folders(out))
        make_folder(out)
        with _writing_to(out):
            for array in writer.arrays:
                array.refuse_foreign()
            cleanup.enter_context(_locked(out))
            for array in writer.arrays:
                cleanup.callback(array.remove_partial)
                array.open()
        yield writer


@contextmanager
def _writing_to(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritten(out, error) from error


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    path = out / ".prepare.lock"
    lock = FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise EarTeachError(
            f"{out}: another `earteach prepare` writes there; wait for it, or choose another --out"
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # removed while it is locked: `FileLock` never locks a file that is gone
        lock.release()


def _partial(path: Path) -> Path:
    """Where a file is written until it is complete."""
    return path.with_name(f".{path.name}.partial")
