"""Photographs, or drawn ears, to the two arrays that training reads.

    >>> prepare(Path("photos"), Path("data/preprocessed"), group_by="folder")
    Prepared(train=PreparedArray(path=…, images=850), val=…, rejected=(), …)

Beside each array lies a manifest that says where each row came from and, if landmarks are known, an
array of them.
"""

from __future__ import annotations

import logging
import math
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal, TypeVar

from earteach.data import photographs
from earteach.data.annotations.annotation import Annotation, side_of
from earteach.data.annotations.boxes import read_boxes
from earteach.data.annotations.landmark_formats import read_landmarks
from earteach.data.array_writer import PreparedArray, Rejected, Row, array_writer
from earteach.data.crops import AnnotatedPhotograph, Crop, cut_ears
from earteach.data.manifest import ManifestRow
from earteach.data.patterns import first_group, search
from earteach.data.split import Split
from earteach.errors import EarTeachError
from earteach.files.disk_space import check_space
from earteach.files.search import Found
from earteach.hardware import at_most_cores
from earteach.synthetic.drawn_ear import draw_ear

DEFAULT_OUT = Path("data/preprocessed")
# Images that may wait for the disk, so that memory does not grow with their number.
_AHEAD = 64
_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # (done, total)
GroupBy = Literal["file", "folder", "column"]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Prepared:
    """What `prepare` wrote and what it left out.

    `rejected` are photographs and ears, and links, folders of the system and annotations that were
    passed over. `photographs` counts all that were found, and `without_ears` those without an annotated
    ear; `ears` and `people` (the groups) are those of the others. `mirrored` counts the images mirrored
    for `side`, and `side_unknown` the images that were not because their side is unknown.
    """

    train: PreparedArray
    val: PreparedArray
    rejected: tuple[Rejected, ...]
    photographs: int = 0
    ears: int = 0
    people: int = 0
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
    """Write the ears in the photographs below `source` to two arrays in `out`, split by group.

    `boxes` and `landmarks` are files or folders as `read_boxes` and `read_landmarks` take them.
    Photographs that they do not name are left out; with `crop.whole` they stay, with landmarks of NaN.
    A photograph's group is its own file, its folder or a column of the boxes (`group_by`), or the first
    group of the regular expression `group_pattern` in its file name. No group is in both arrays; names
    that differ in case or in Unicode normalization alone are one group.

    An interrupted call leaves the old arrays in `out` untouched. Raises `EarTeachError` if nothing can
    be read, if a group is unknown, or if `out` cannot be written.
    """
    crop = crop or Crop()
    found = _find(source, out)
    every, slips = _annotated_photographs(source, found.files, boxes, category, landmarks, crop)
    photos = [photo for photo in every if photo.ears]
    if not photos:
        raise EarTeachError(f"{source}: no photograph there has an ear in {boxes or landmarks}")
    _check_space(out, sum(len(photo.ears) for photo in photos), crop.shape)
    groups = _spelled_alike([_groups(photo, group_by, group_pattern) for photo in photos])

    def cut(index: int) -> list[Row | Rejected]:
        return cut_ears(photos[index], groups[index], crop)

    sides = [ear.side for photo in photos for ear in photo.ears]
    written = _write(out, crop.shape, groups, split, cut, progress)
    passed_over = tuple(Rejected(*each) for each in (*found.left_out, *slips))
    return replace(
        written,
        rejected=passed_over + written.rejected,
        photographs=len(every),
        ears=len(sides),
        people=len(set(chain.from_iterable(groups))),
        without_ears=len(every) - len(photos),
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
    shape = Crop(size, gray).shape
    _check_space(out, number, shape)
    names = [f"drawn-{seed}-{index:06d}" for index in range(number)]

    def draw(index: int) -> list[Row | Rejected]:
        ear = draw_ear(seed, index, size)
        image = photographs.square(ear.image, size, shape[2]).image
        name = names[index]
        manifest = ManifestRow(name, name, (0, 0, size, size), False, (size, size))
        return [Row(image, manifest, ear.landmarks)]

    return _write(out, shape, [[name] for name in names], split, draw, progress)


def _find(source: Path, out: Path) -> Found:
    """The photographs below a folder; what `inspect-data` wrote to `out`, if that is in it, are none."""
    found, own = photographs.find(source), out.resolve()
    if own == source.resolve() or not own.is_relative_to(source.resolve()):
        return found
    files = [path for path in found.files if not path.resolve().is_relative_to(own)]
    return replace(found, files=files)


def _annotated_photographs(
    source: Path,
    paths: Sequence[Path],
    boxes: Path | None,
    category: str | None,
    landmarks: Path | None,
    crop: Crop,
) -> tuple[list[AnnotatedPhotograph], Sequence[tuple[Path, str]]]:
    """The photographs, each with its ears if there are any, and the annotations that are left out."""
    if boxes is None and category is not None:
        raise EarTeachError(f"--category {category}: needs --boxes")
    if boxes is not None and crop.whole:
        raise EarTeachError("--whole: cannot be used with --boxes; leave one of them out")
    slips: Sequence[tuple[Path, str]] = ()
    names = [path.relative_to(source) for path in paths]
    points = _landmarks(landmarks, names, keep_all=crop.whole or boxes is not None)
    if boxes is not None:
        annotations = read_boxes(boxes, category)
        slips = annotations.slips
        ears = [its or () for its in annotations.of(names)]
    elif landmarks is None or crop.whole:
        ears = [(Annotation(),)] * len(names)
    else:
        ears = [() if annotation is None else (annotation,) for annotation in points]
    _check_point_counts(chain(points, *ears), boxes, landmarks)
    if crop.side_pattern is not None:
        pattern = crop.side_pattern
        ears = [_with_side(name, its, pattern) for name, its in zip(names, ears, strict=True)]
    photos = [AnnotatedPhotograph(*each) for each in zip(paths, names, ears, points, strict=True)]
    return photos, slips


def _landmarks(path: Path | None, names: Sequence[Path], keep_all: bool) -> list[Annotation | None]:
    """The landmarks of each photograph."""
    if path is None:
        return [None] * len(names)
    points = [its[0] if its else None for its in read_landmarks(path).of(names)]
    if None in points:
        _log.info(
            "%d of %d photographs have no landmarks in %s (the first: %s); %s",
            points.count(None), len(names), path, names[points.index(None)].as_posix(),
            "their rows are NaN" if keep_all else "they are left out",
        )  # fmt: skip
    return points


def _check_point_counts(
    ears: Iterable[Annotation | None], boxes: Path | None, landmarks: Path | None
) -> None:
    """Refuse ears with different numbers of landmarks: these have to fit into one array."""
    counts = {len(ear.points) for ear in ears if ear is not None and ear.points is not None}
    if len(counts) > 1:
        listed = " and ".join(map(str, sorted(counts)))
        if landmarks is None:
            raise EarTeachError(
                f"--boxes {boxes}: its ears have {listed} landmarks; choose one kind with --category"
            )
        raise EarTeachError(
            f"--boxes {boxes} and --landmarks {landmarks}: ears have {listed} landmarks; use one of "
            "the two files, or choose one kind with --category"
        )


def _with_side(name: Path, ears: Sequence[Annotation], pattern: str) -> tuple[Annotation, ...]:
    match = search("--side-pattern", pattern, name.as_posix())
    if match is None:
        return tuple(ears)
    text = match[1 if match.re.groups else 0] or ""
    side = side_of(text)
    if side is None:
        raise EarTeachError(
            f"--side-pattern {pattern}: finds {text!r} in {name.as_posix()}, which is neither left nor "
            "right; put the side in a group, as in '_(left|right)_'"
        )
    return tuple(replace(ear, side=ear.side or side) for ear in ears)


def _groups(photo: AnnotatedPhotograph, group_by: GroupBy, group_pattern: str | None) -> list[str]:
    """The group of each ear."""
    if group_pattern is None and group_by == "column":
        people = [ear.person for ear in photo.ears if ear.person is not None]
        if len(people) < len(photo.ears):
            raise EarTeachError(
                f"--group-by column: has no person for {photo.name.as_posix()}; it needs --boxes "
                "FILE.csv with a column `person`"
            )
        return people
    if group_pattern is not None:
        group = first_group("--group-pattern", group_pattern, photo.name.name)
    else:
        group = (photo.name.parent if group_by == "folder" else photo.name).as_posix()
    return [group] * len(photo.ears)


def _spelled_alike(groups: Sequence[Sequence[str]]) -> list[list[str]]:
    """The groups, each in the spelling in which it comes first.

    macOS decomposes accents in file names, and other systems do not; some file systems ignore case.
    """
    spelling: dict[str, str] = {}
    composed = ([unicodedata.normalize("NFC", group) for group in its] for its in groups)
    return [[spelling.setdefault(group.casefold(), group) for group in its] for its in composed]


def _check_space(out: Path, number: int, shape: tuple[int, int, int]) -> None:
    advice = "choose another --out or a smaller --image-size"
    check_space(out, number * math.prod(shape), f"an array of {number:,} images", advice)


def _write(
    out: Path,
    shape: tuple[int, int, int],
    groups: Sequence[Sequence[str]],
    split: Split | None,
    cut: Callable[[int], list[Row | Rejected]],
    progress: Progress | None,
) -> Prepared:
    """Write what `cut` gives for each index of `groups`, which has the group of each ear there."""
    each = [group for its in groups for group in its]
    validation = (split or Split()).validation(each)
    with array_writer(out, shape, validation) as writer:
        for done, ears in enumerate(_in_order(cut, len(groups)), start=1):
            writer.add(ears)
            if progress is not None:
                progress(done, len(groups))
        train, val = writer.publish()
    return Prepared(train, val, tuple(writer.rejected), mirrored=writer.mirrored)


def _in_order(load: Callable[[int], _T], number: int) -> Iterator[_T]:
    """Results in order, computed on all cores a few ahead (OpenCV releases Python's lock)."""
    with ThreadPoolExecutor(at_most_cores(max(1, number))) as pool:
        waiting: deque[Future[_T]] = deque()
        try:
            for index in range(number + _AHEAD):
                if index < number:
                    waiting.append(pool.submit(load, index))
                if index >= _AHEAD and waiting:
                    yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
