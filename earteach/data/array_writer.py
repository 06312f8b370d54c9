"""The two arrays that `prepare` writes, with what lies beside them, so that a stopped run can go on.

Rows go to partial files at once, and a journal says what they are. A run that is stopped leaves these
behind, and the same run goes on from there; one that fails or ends leaves only what it should.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from earteach.data.array_file import ArrayFile, Row
from earteach.data.manifest import ManifestRow
from earteach.errors import EarTeachError
from earteach.files.atomic_write import unwritten
from earteach.files.file_lock import hold
from earteach.files.folders import make_folder, missing_folders, remove_empty

# Photographs between two entries in the journal: what a kill costs at most.
_ENTRIES = 64
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rejected:
    """A photograph, or an ear in it, that was left out, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Entry:
    """What a photograph came to."""

    rows: tuple[Row, ...] = ()
    rejected: tuple[Rejected, ...] = ()


@dataclass(frozen=True)
class PreparedArray:
    """An array that was written."""

    path: Path
    images: int


class ArrayWriter:
    """Writes entries in order to `train_teacher.npy` and `val_teacher.npy` in a folder.

    `job` tells what is being done: a run that was stopped goes on where it has the same one. `done` is
    how many entries are written already. Within `with`; leaving it without `publish` leaves what goes
    on later where the process was told to stop, and nothing after an error.

    Raises `EarTeachError` where something cannot be written, or another process writes there.
    """

    def __init__(
        self, out: Path, shape: tuple[int, int, int], validation: set[str], job: str
    ) -> None:
        self._out, self._validation, self._job = out, validation, job
        self.train, self.val = (
            ArrayFile(out / f"{n}_teacher.npy", shape) for n in ("train", "val")
        )
        self._both = (self.train, self.val)
        self._journal_path = out / ".prepare.journal"
        self._waiting: list[str] = []
        self.rejected: list[Rejected] = []
        self.done = 0

    def __enter__(self) -> ArrayWriter:
        self._made = missing_folders(self._out)
        try:
            make_folder(self._out)
            for array in self._both:
                array.refuse_foreign()
            self._guarded(self._lock)
        except BaseException:
            remove_empty(self._made)
            raise
        try:
            self._guarded(self._open)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def _lock(self) -> None:
        """The journal is the lock, which the system drops with the process."""
        self._journal = self._journal_path.open("a+", encoding="utf-8")
        if hold(self._journal, self._journal_path):
            return
        self._journal.close()
        raise EarTeachError(
            f"{self._out}: another `earteach prepare` writes there; wait for it, or choose another "
            "--out"
        )

    def _open(self) -> None:
        for array in self._both:
            array.open()
        self._take_up()

    def _take_up(self) -> None:
        """Go on after what the journal of the same job has and the files hold."""
        self._journal.seek(0)
        header = json.dumps({"job": self._job}) + "\n"
        kept = len(header)
        if self._journal.readline() == header:
            while (line := self._journal.readline()).endswith("\n") and self._restored(line):
                kept += len(line)
                self.done += 1
        self._journal.truncate(kept if self.done else 0)
        self._journal.seek(0, os.SEEK_END)
        if self.done:
            _log.info(
                "going on after the first %d, which a run that was stopped had done",
                self.done,
            )
        else:
            self._journal.write(header)
        for array in self._both:
            array.end_here()

    def _restored(self, line: str) -> bool:
        """Take a line of the journal for true, if the arrays hold its rows."""
        try:
            entry = json.loads(line)
            rows = [_restored_row(saved) for saved in entry["rows"]]
            rejected = [Rejected(Path(path), reason) for path, reason in entry["rejected"]]
        except (ValueError, KeyError, TypeError):
            return False
        places = {id(array): len(array.rows) for array in self._both}
        for about, _, checksum in rows:
            array = self._array(about)
            if not array.holds(places[id(array)], checksum):
                return False
            places[id(array)] += 1
        for about, landmarks, _ in rows:
            self._array(about).note(about, landmarks)
        self.rejected.extend(rejected)
        return True

    def _array(self, about: ManifestRow) -> ArrayFile:
        return self.val if about.group in self._validation else self.train

    def add(self, entry: Entry) -> None:
        """Write the rows of the next photograph."""
        self._guarded(lambda: self._add(entry))

    def _add(self, entry: Entry) -> None:
        for row in entry.rows:
            self._array(row.about).add(row)
        self.rejected.extend(entry.rejected)
        self._waiting.append(_journal_line(entry))
        self.done += 1
        if len(self._waiting) >= _ENTRIES:
            self._flush()

    def _flush(self) -> None:
        """The rows first: the journal never names one that was not written."""
        for array in self._both:
            array.flush()
        self._journal.write("".join(self._waiting))
        self._journal.flush()
        self._waiting.clear()

    def publish(self) -> tuple[PreparedArray, PreparedArray]:
        """Move both arrays into place; raises `EarTeachError` where one of them is empty."""
        for array in self._both:
            if not array.rows:
                first = self.rejected[0] if self.rejected else None
                raise EarTeachError(
                    f"{self._out}: no ear for {array.path.name} could be read"
                    + (f" ({first.path}: {first.reason})" if first else "; name others")
                )
        for array in self._both:
            self._guarded(array.finish)
        for array in self._both:
            self._guarded(array.publish)
        return tuple(PreparedArray(a.path, len(a.rows)) for a in self._both)  # type: ignore[return-value]

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            raise unwritten(self._out, error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        told_to_stop = kind is not None and not issubclass(kind, Exception)
        if told_to_stop:
            with suppress(OSError):
                self._flush()
            _log.info(
                "stopped after %d; the same command goes on from there",
                self.done,
            )
        for array in self._both:
            array.close()
            if not told_to_stop:
                array.remove_partial()
        with suppress(OSError):
            # Removed before it is unlocked: another process never locks a file that is gone.
            if not told_to_stop:
                self._journal_path.unlink(missing_ok=True)
            self._journal.close()
        remove_empty(self._made)


def _journal_line(entry: Entry) -> str:
    rows = [
        (
            astuple(row.about),
            _numbers(row.landmarks),
            zlib.crc32(np.ascontiguousarray(row.image).data),
        )
        for row in entry.rows
    ]
    rejected = [(str(each.path), each.reason) for each in entry.rejected]
    return json.dumps({"rows": rows, "rejected": rejected}) + "\n"


def _numbers(landmarks: np.ndarray | None) -> list[Any] | None:
    return None if landmarks is None else landmarks.tolist()


def _restored_row(saved: Sequence[Any]) -> tuple[ManifestRow, np.ndarray | None, int]:
    (source, group, box, mirrored, size), points, checksum = saved
    about = ManifestRow(source, group, tuple(box), mirrored, None if size is None else tuple(size))
    return about, None if points is None else np.array(points, np.float32), checksum
