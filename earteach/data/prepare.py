"""Photographs, or drawn ears, to the two arrays that training reads.

    >>> prepare(Path("photos"), Path("data/preprocessed"), group_by="folder")
    Prepared(train=PreparedArray(path=…, images=850), val=…, rejected=(), …)

Beside each array lies a manifest that says where each row came from, and, where landmarks are known,
an array of them.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from earteach._version import __version__
from earteach.data import photographs
from earteach.data.annotations.annotation import Annotation, side_of
from earteach.data.annotations.boxes import read_boxes
from earteach.data.annotations.landmarks import read_landmarks
from earteach.data.array_file import Row
from earteach.data.array_writer import ArrayWriter, Entry, PreparedArray, Rejected
from earteach.data.cores import at_most_cores
from earteach.data.crops import AnnotatedPhotograph, Crop, cut_ears
from earteach.data.manifest import ManifestRow
from earteach.data.patterns import compiled, found_in
from earteach.data.split import Split
from earteach.errors import EarTeachError
from earteach.files.disk_space import check_space
from earteach.synthetic.drawn_ear import draw_ear

DEFAULT_OUT = Path("data/preprocessed")
_AHEAD = 64
_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # done, in all
GroupBy = Literal["file", "folder", "column"]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Prepared:
    """What `prepare` wrote and what it left out.

    `without_ears` counts photographs in which no ear was annotated, `mirrored` and `side_unknown` the
    images that were mirrored for `side`, and those that could not be as nobody says which side they are.
    """

    train: PreparedArray
    val: PreparedArray
    rejected: tuple[Rejected, ...]
    without_ears: int = 0
    mirrored: int = 0
    side_unknown: int = 0


def prepare(
    source: Path,
    out: Path = DEFAULT_OUT,
    *,
    crop: Crop | None = None,
    boxes: Path | None = None,
    category: str | None = None,
    landmarks: Path | None = None,
    group_by: GroupBy = "file",
    group_pattern: str | None = None,
    split: Split | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Write the ears in the photographs below `source` to two arrays in `out`, people kept apart.

    `boxes` and `landmarks` are files or folders as `read_boxes` and `read_landmarks` take them;
    photographs that they do not name are left out, except that whole ones stay and have a row of NaN.
    A photograph's group is its own file, its folder or a column of the boxes (`group_by`), or what the
    first group of the regular expression `group_pattern` finds in its file name; no group is in both.

    A run that was stopped goes on where it is called again with the same values and photographs. Raises
    `EarTeachError` where nothing can be read, groups cannot be told or `out` cannot be written.
    """
    crop = crop or Crop()
    photos = _photos(source, boxes, category, landmarks, crop)
    kept = [photo for photo in photos if photo.ears]
    number = sum(len(photo.ears) for photo in kept)
    if not kept:
        raise EarTeachError(f"{source}: no photograph there has an ear in {boxes or landmarks}")
    _check_space(out, number, crop)
    groups = [_groups(photo, group_by, group_pattern) for photo in kept]
    validation = (split or Split()).validation([group for each in groups for group in each])

    def load(place: int) -> Entry:
        return cut_ears(kept[place], groups[place], crop)

    job = _digest(crop, sorted(validation), groups, [photo.stamp() for photo in kept])
    written, rows = _write(out, crop.shape, validation, job, load, len(kept), progress)
    sides = [ear.side for photo in kept for ear in photo.ears]
    return replace(
        written,
        without_ears=len(photos) - len(kept),
        mirrored=sum(row.mirrored for row in rows),
        side_unknown=sides.count(None) if crop.side else 0,
    )


def prepare_drawn(
    number: int,
    out: Path = DEFAULT_OUT,
    *,
    size: int = 256,
    gray: bool = False,
    seed: int = 42,
    split: Split | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Write `number` drawn ears in all to two arrays in `out`, with their landmarks."""
    if number < 2:
        raise EarTeachError(f"--synthetic {number}: must be at least 2, one for each array")
    crop = Crop(size, gray)
    _check_space(out, number, crop)
    names = [f"drawn-{seed}-{index:06d}" for index in range(number)]
    validation = (split or Split()).validation(names)

    def draw(index: int) -> Entry:
        ear = draw_ear(seed, index, size)
        image = photographs.square(ear.image, size, crop.shape[2]).image
        about = ManifestRow(names[index], names[index], (0, 0, size, size), False, (size, size))
        return Entry((Row(image, about, ear.landmarks),))

    job = _digest(crop, sorted(validation), [seed, number])
    return _write(out, crop.shape, validation, job, draw, number, progress)[0]


def _check_space(out: Path, number: int, crop: Crop) -> None:
    advice = "choose another --out or a smaller --image-size"
    there = sum(path.stat().st_size for path in out.glob(".*.partial"))  # of a run that was stopped
    needed = number * int(np.prod(crop.shape)) - there
    check_space(out, needed, f"an array of {number:,} images", advice)


def _photos(
    source: Path, boxes: Path | None, category: str | None, landmarks: Path | None, crop: Crop
) -> list[AnnotatedPhotograph]:
    """The photographs below a folder; of those with no ears nothing will be cut."""
    if boxes is None and category is not None:
        raise EarTeachError(f"--category {category}: is of --boxes; name these too")
    if boxes is not None and crop.whole:
        raise EarTeachError("--whole: takes no --boxes; leave one of the two out")
    paths = photographs.find(source)
    names = [path.relative_to(source) for path in paths]
    given = _given(landmarks, names, crop, boxes)
    if boxes is not None:
        ears = [found or () for found in read_boxes(boxes, category).of(names)]
    elif landmarks is None or crop.whole:
        ears = [(Annotation(),)] * len(names)
    else:
        ears = [() if points is None else (points,) for points in given]
    _check_points(ears, given, landmarks)
    if crop.side_pattern is not None:
        ears = [_sided(name, its, crop.side_pattern) for name, its in zip(names, ears, strict=True)]
    return [AnnotatedPhotograph(*each) for each in zip(paths, names, ears, given, strict=True)]


def _check_points(
    ears: Sequence[Sequence[Annotation]],
    given: Sequence[Annotation | None],
    landmarks: Path | None,
) -> None:
    """All landmarks stand in one array."""
    known = [ear for its in (*ears, [ear for ear in given if ear]) for ear in its]
    counts = {len(ear.points) for ear in known if ear.points is not None}
    if len(counts) > 1:
        raise EarTeachError(
            f"--landmarks {landmarks}: has another number of points than ears of --boxes have "
            f"({' and '.join(map(str, sorted(counts)))}); leave out one of the two"
        )


def _given(
    landmarks: Path | None, names: Sequence[Path], crop: Crop, boxes: Path | None
) -> list[Annotation | None]:
    """The landmarks of each photograph."""
    if landmarks is None:
        return [None] * len(names)
    found = read_landmarks(landmarks)
    given = [None if its is None else its[0] for its in found.of(names)]
    if None in given:
        then = "their rows are NaN" if crop.whole or boxes else "they are left out"
        first = names[given.index(None)].as_posix()
        _log.info(
            "%d of %d photographs have no landmarks in %s (the first: %s); %s",
            given.count(None), len(names), landmarks, first, then,
        )  # fmt: skip
    return given


def _sided(name: Path, ears: Sequence[Annotation], pattern: str) -> tuple[Annotation, ...]:
    match = compiled("--side-pattern", pattern).search(name.as_posix())
    if match is None:
        return tuple(ears)
    found = match[1 if match.re.groups else 0] or ""
    side = side_of(found)
    if side is None:
        raise EarTeachError(
            f"--side-pattern {pattern}: finds {found!r} in {name.as_posix()}, which is neither left nor "
            "right; put what is in a group, as in '_(left|right)_'"
        )
    return tuple(replace(ear, side=ear.side or side) for ear in ears)


def _groups(photo: AnnotatedPhotograph, group_by: GroupBy, group_pattern: str | None) -> list[str]:
    """The group of each ear."""
    if group_pattern is not None:
        pattern = compiled("--group-pattern", group_pattern)
        return [found_in("--group-pattern", pattern, photo.name.name)] * len(photo.ears)
    if group_by == "folder":
        return [photo.name.parent.as_posix()] * len(photo.ears)
    if group_by == "file":
        return [photo.name.as_posix()] * len(photo.ears)
    people = [ear.person for ear in photo.ears]
    if None in people:
        raise EarTeachError(
            f"--group-by column: says nothing of {photo.name.as_posix()}; it takes --boxes FILE.csv "
            "with a column `person`"
        )
    return [person for person in people if person is not None]


def _digest(*values: object) -> str:
    """What tells whether a stopped run was the same, by the same version."""
    told = repr((__version__, *values))
    return hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()


def _write(
    out: Path,
    shape: tuple[int, int, int],
    validation: set[str],
    job: str,
    load: Callable[[int], Entry],
    number: int,
    progress: Progress | None,
) -> tuple[Prepared, list[ManifestRow]]:
    with ArrayWriter(out, shape, validation, job) as writer:
        for entry in _in_order(load, range(writer.done, number)):
            writer.add(entry)
            if progress is not None:
                progress(writer.done, number)
        train, val = writer.publish()
    return Prepared(train, val, tuple(writer.rejected)), [*writer.train.rows, *writer.val.rows]


def _in_order(load: Callable[[int], _T], places: range) -> Iterator[_T]:
    """What is loaded, in order, on all cores (OpenCV leaves Python's lock), a few ahead."""
    with ThreadPoolExecutor(at_most_cores(max(1, len(places)))) as pool:
        left = iter(places)
        waiting: list[Future[_T]] = [pool.submit(load, place) for place in islice(left, _AHEAD)]
        try:
            while waiting:
                first = waiting.pop(0)
                waiting.extend(pool.submit(load, place) for place in islice(left, 1))
                yield first.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
