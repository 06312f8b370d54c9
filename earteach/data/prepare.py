"""Photographs, or drawn ears, to the two arrays that training reads.

    >>> prepare(Path("photos"), Path("data/preprocessed"), group_by="folder")
    Prepared(train=PreparedArray(path=…, images=850), val=…, rejected=())

Beside each array lies a manifest that says where each row came from, and, where landmarks are known,
an array of them. Files are written under other names first and moved into place at the end.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from earteach.config import Fit
from earteach.data import photographs
from earteach.data.cores import at_most_cores
from earteach.data.drawn import draw_ear
from earteach.data.landmarks import Landmarks, read_landmarks
from earteach.data.photographs import Unreadable
from earteach.data.randomness import Purpose, derive
from earteach.disk_space import check_space
from earteach.errors import EarTeachError
from earteach.images import make_folder

DEFAULT_OUT = Path("data/preprocessed")
MANIFEST_COLUMNS = ("row", "source", "group", "left", "top", "width", "height", "mirrored")
_AHEAD = 64

Progress = Callable[[int, int], None]  # done, in all
GroupBy = Literal["file", "folder"]


@dataclass(frozen=True)
class PreparedArray:
    """An array that was written."""

    path: Path
    images: int


@dataclass(frozen=True)
class Rejected:
    """A photograph that could not be read, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Prepared:
    """What `prepare` wrote and what it left out."""

    train: PreparedArray
    val: PreparedArray
    rejected: tuple[Rejected, ...]


@dataclass(frozen=True)
class Row:
    """One image on its way into an array."""

    image: np.ndarray
    source: str
    group: str
    box: tuple[int, int, int, int]
    landmarks: np.ndarray | None = None


@dataclass(frozen=True)
class Split:
    """Which groups are for validation: those that match `val_groups`, or a random share of all."""

    val_fraction: float = 0.15
    val_groups: str | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1:
            raise EarTeachError(f"--val-fraction {self.val_fraction}: must lie between 0 and 1")

    def validation(self, groups: Sequence[str]) -> set[str]:
        """The groups for validation, given the group of each image.

        Raises `EarTeachError` where one of the two arrays would be empty.
        """
        counts = dict.fromkeys(sorted(groups), 0)
        for group in groups:
            counts[group] += 1
        if self.val_groups is not None:
            pattern = compiled("--val-groups", self.val_groups)
            chosen = {group for group in counts if pattern.search(group)}
        else:
            chosen = self._random_share(counts)
        if not chosen or len(chosen) == len(counts):
            share = "none" if not chosen else "all"
            how = f"--val-groups {self.val_groups}" if self.val_groups else "the split"
            raise EarTeachError(
                f"{how}: takes {share} of the {len(counts)} groups for validation; there must be some "
                f"for each array (a few of the groups: {', '.join(list(counts)[:5])})"
            )
        return chosen

    def _random_share(self, counts: dict[str, int]) -> set[str]:
        """Whole groups in random order until they hold the share of images that was asked for."""
        order = np.random.default_rng(derive(self.seed, Purpose.SPLIT)).permutation(len(counts))
        names, wanted = list(counts), self.val_fraction * sum(counts.values())
        chosen: set[str] = set()
        taken = 0
        for place in order[:-1]:  # the last one stays for training, whatever the share
            # Stop where another group would lead further away from the share than it is now;
            # before there is any, look for one that does not.
            if taken + counts[names[place]] / 2 > wanted:
                if chosen:
                    break
                continue
            chosen.add(names[place])
            taken += counts[names[place]]
        return chosen or {min(names, key=lambda name: counts[name])}


def prepare(
    source: Path,
    out: Path = DEFAULT_OUT,
    *,
    size: int = 256,
    gray: bool = False,
    fit: Fit = "stretch",
    group_by: GroupBy = "file",
    group_pattern: str | None = None,
    landmarks: Path | None = None,
    split: Split | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Write the photographs below `source` to two arrays in `out`, people kept apart.

    A photograph's group is its own file, its folder (`group_by`), or what the first group of the
    regular expression `group_pattern` finds in its file name; no group is in both arrays.
    `landmarks` is a .csv or a folder of .pts files; photographs without any have a row of NaN.

    Raises `EarTeachError` where nothing can be read, groups cannot be told or `out` cannot be written.
    """
    paths = photographs.find(source)
    _check_space(out, len(paths), size, gray)
    groups = _groups(source, paths, group_by, group_pattern)
    chosen = (split or Split()).validation(groups)
    known = _known_landmarks(source, paths, landmarks)

    def load(place: int) -> Row | Rejected:
        path = paths[place]
        try:
            squared = photographs.read_square(path, size, 1 if gray else 3, fit)
        except Unreadable as error:
            return Rejected(path, str(error))
        points = known(place, squared.photograph, squared.box)
        return Row(squared.image, str(path), groups[place], squared.box, points)

    return _write(out, size, gray, len(paths), load, chosen, progress)


def prepare_drawn(
    number: int,
    out: Path = DEFAULT_OUT,
    *,
    size: int = 256,
    gray: bool = False,
    seed: int = 0,
    split: Split | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Write `number` drawn ears in all to two arrays in `out`, with their landmarks."""
    if number < 2:
        raise EarTeachError(f"--synthetic {number}: must be at least 2, one for each array")
    _check_space(out, number, size, gray)
    names = [f"drawn-{seed}-{index:06d}" for index in range(number)]
    chosen = (split or Split()).validation(names)

    def draw(index: int) -> Row:
        ear = draw_ear(seed, index, size)
        image = photographs.square(ear.image, size, 1 if gray else 3).image
        return Row(image, names[index], names[index], (0, 0, size, size), ear.landmarks)

    return _write(out, size, gray, number, draw, chosen, progress)


def _check_space(out: Path, number: int, size: int, gray: bool) -> None:
    needed = number * size * size * (1 if gray else 3)
    advice = "choose another --out or a smaller --image-size"
    check_space(out, needed, f"an array of {number:,} images", advice)


def compiled(flag: str, pattern: str) -> re.Pattern[str]:
    """The regular expression, or an `EarTeachError` that names the flag it came from."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise EarTeachError(f"{flag} {pattern}: not a regular expression: {error}") from error


_InBox = Callable[[int, tuple[int, int], tuple[int, int, int, int]], np.ndarray | None]


def _known_landmarks(source: Path, paths: Sequence[Path], origin: Path | None) -> _InBox:
    """Gives the points of a photograph by its place, its size and its box; None where none are known."""
    if origin is None:
        return lambda place, size, box: None
    found: Landmarks = read_landmarks(origin)
    keys = found.keys([path.relative_to(source) for path in paths])
    return lambda place, size, box: found.in_box(keys[place], size, box)


def _groups(
    source: Path, paths: Sequence[Path], group_by: GroupBy, group_pattern: str | None
) -> list[str]:
    if group_pattern is not None:
        pattern = compiled("--group-pattern", group_pattern)
        return [_group_in_name(pattern, path) for path in paths]
    if group_by == "folder":
        return [path.parent.relative_to(source).as_posix() for path in paths]
    return [path.relative_to(source).as_posix() for path in paths]


def _group_in_name(pattern: re.Pattern[str], path: Path) -> str:
    match = pattern.search(path.name)
    group = match and match[1 if pattern.groups else 0]
    if not group:
        raise EarTeachError(
            f"--group-pattern {pattern.pattern}: finds no one in {path.name}; it must in every name"
        )
    return group


def _write(
    out: Path,
    size: int,
    gray: bool,
    number: int,
    load: Callable[[int], Row | Rejected],
    validation: set[str],
    progress: Progress | None,
) -> Prepared:
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    shape = (size, size, 1 if gray else 3)
    rejected = []
    with ExitStack() as stack:
        stack.callback(_remove_empty, made)
        make_folder(out)
        both = [stack.enter_context(ArraySet(out, name, shape)) for name in ("train", "val")]
        train, val = both
        for done, row in enumerate(_in_order(load, number), start=1):
            if isinstance(row, Rejected):
                rejected.append(row)
            else:
                (val if row.group in validation else train).add(row)
            if progress is not None:
                progress(done, number)
        for array in both:
            if not array.rows:
                raise EarTeachError(
                    f"{out}: no photograph for the {array.name} array could be read "
                    f"({rejected[0].path}: {rejected[0].reason})"
                )
            array.finish()
        for array in both:
            array.publish()
    return Prepared(
        PreparedArray(train.path, len(train.rows)),
        PreparedArray(val.path, len(val.rows)),
        tuple(rejected),
    )


def _remove_empty(folders: Sequence[Path]) -> None:
    """Folders, innermost first, that were made for nothing."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _in_order(load: Callable[[int], Row | Rejected], number: int) -> Iterator[Row | Rejected]:
    """The rows in order, loaded on all cores (OpenCV leaves Python's lock), a few ahead."""
    with ThreadPoolExecutor(at_most_cores(number)) as pool:
        places = iter(range(number))
        waiting: list[Future[Row | Rejected]] = [
            pool.submit(load, place) for place in islice(places, _AHEAD)
        ]
        while waiting:
            first = waiting.pop(0)
            waiting.extend(pool.submit(load, place) for place in islice(places, 1))
            yield first.result()


@dataclass
class ArraySet:
    """One of the two arrays with its manifest and landmarks, while it is being written.

    Rows go to a partial file at once; leaving without `publish` leaves nothing behind.
    """

    folder: Path
    name: str
    shape: tuple[int, int, int]
    rows: list[tuple[str, str, tuple[int, int, int, int]]] = field(default_factory=list)
    landmarks: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.path = self.folder / f"{self.name}_teacher.npy"
        self.manifest = self.folder / f"{self.name}_manifest.csv"
        self.landmarks_path = self.folder / f"{self.name}_landmarks.npy"

    def __enter__(self) -> ArraySet:
        for path in (self.path, self.manifest, self.landmarks_path):
            if path.exists() and not _is_manifest(self.manifest):
                raise EarTeachError(
                    f"{path}: exists and `earteach prepare` did not write it (its manifest is not "
                    "there); move it away or choose another --out"
                )
        try:
            self._file: BinaryIO = _partial(self.path).open("wb")
        except OSError as error:
            raise EarTeachError(f"{self.folder}: cannot be written: {error.strerror}") from error
        self._header = _write_header(self._file, (0, *self.shape))
        return self

    def add(self, row: Row) -> None:
        self._guarded(lambda: self._file.write(np.ascontiguousarray(row.image).tobytes()))
        self.rows.append((row.source, row.group, row.box))
        if row.landmarks is not None:
            self.landmarks.append(row.landmarks)

    def finish(self) -> None:
        """Write the true length into the header, and the manifest and landmarks beside it."""
        self._guarded(self._finish)

    def publish(self) -> None:
        """Move the finished files into place; the manifest first, as it says whose the others are."""
        self._guarded(self._publish)

    def _finish(self) -> None:
        self._file.seek(0)
        length = _write_header(self._file, (len(self.rows), *self.shape))
        assert length == self._header, "numpy pads headers so that the first axis can grow"
        self._file.close()
        self._write_manifest()
        if self.landmarks:
            with _partial(self.landmarks_path).open("wb") as file:
                np.save(file, np.stack(self.landmarks).astype(np.float32))

    def _publish(self) -> None:
        _partial(self.manifest).replace(self.manifest)
        if self.landmarks:
            _partial(self.landmarks_path).replace(self.landmarks_path)
        else:
            self.landmarks_path.unlink(missing_ok=True)
        _partial(self.path).replace(self.path)

    def _write_manifest(self) -> None:
        # A file name may hold any bytes: those that are no UTF-8 go through as they are.
        with _partial(self.manifest).open(
            "w", newline="", encoding="utf-8", errors="surrogateescape"
        ) as file:
            writer = csv.writer(file)
            writer.writerow(MANIFEST_COLUMNS)
            for number, (source, group, box) in enumerate(self.rows):
                writer.writerow([number, source, group, *box, 0])

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            raise EarTeachError(f"{self.path}: cannot be written: {error.strerror}") from error

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a full disk: what was buffered cannot be written, and need not be
            self._file.close()
        for path in (self.path, self.manifest, self.landmarks_path):
            _partial(path).unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _is_manifest(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.readline().decode(errors="replace").strip() == ",".join(MANIFEST_COLUMNS)
    except OSError:
        return False


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> int:
    """Write the .npy header of a uint8 array of this shape; gives its length in bytes."""
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return file.tell()
