"""The labels for probes: the landmarks on each image of an array, and its person."""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earteach.data.annotations.annotation import Annotation, mostly_inside
from earteach.data.annotations.landmark_formats import read_landmarks
from earteach.data.annotations.tables import read_rows
from earteach.data.arrays import EarArray
from earteach.data.manifest import ManifestRow, beside, read_manifest, read_points
from earteach.data.patterns import first_group
from earteach.errors import EarTeachError

# Two people for each of five folds, for the inner folds need people as well.
_MIN_PEOPLE = 10
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labels:
    """Each row's person, `(N,)`, and landmarks, `(N, K, 2)` in fractions, NaN where unknown."""

    groups: np.ndarray
    landmarks: np.ndarray | None


def read_labels(
    array: EarArray, landmarks: str | Path | None, groups: str | None, *, identities: bool
) -> Labels:
    """From the given files, or from those that `prepare` wrote beside the array.

    Raises `EarTeachError` where labels do not fit the array or allow no probe.
    """
    manifest = read_manifest(array.path, len(array))
    path = None if landmarks is None else Path(landmarks)
    points = _read_landmarks(array, path, manifest, required=not identities)
    names = _read_groups(array, groups, manifest)
    # As `prepare` compares them: accents may be composed or not, and case does not count.
    people = np.array([unicodedata.normalize("NFC", name).casefold() for name in names], dtype=str)
    if points is not None and (count := len(set(people[labelled_rows(points)]))) < _MIN_PEOPLE:
        problem = (
            f"{array.path}: has landmarks of {count} people; separate folds need {_MIN_PEOPLE}: name "
            "each image's person with --groups, or add people"
        )
        if landmarks is not None or not identities:
            raise EarTeachError(problem)
        _log.info("landmarks are not probed: %s", problem)
        points = None
    if identities and len(set(people)) in (1, len(people)):
        raise EarTeachError(
            f"{array.path}: has {len(people)} images of {len(set(people))} people; --identities needs "
            "at least two people and two images of one: name each image's person with --groups"
        )
    return Labels(people, points)


def labelled_rows(points: np.ndarray) -> np.ndarray:
    """The rows with landmarks."""
    return np.flatnonzero(np.isfinite(points).all(axis=(1, 2)))


def _read_landmarks(
    array: EarArray, path: Path | None, manifest: Sequence[ManifestRow] | None, *, required: bool
) -> np.ndarray | None:
    stored = beside(array.path, "landmarks.npy")
    if path is None and not stored.exists():
        if not required:
            return None
        raise EarTeachError(
            f"{array.path}: nothing to probe: {stored.name} is not beside it; name landmarks with "
            "--landmarks, or add --identities"
        )
    if (path or stored).suffix == ".npy":
        return read_points(path or stored, len(array)).astype(np.float64)
    return _landmarks_of_photographs(array, path or stored, manifest)


def _landmarks_of_photographs(
    array: EarArray, path: Path, manifest: Sequence[ManifestRow] | None
) -> np.ndarray:
    if manifest is None:
        raise EarTeachError(
            f"--landmarks {path}: needs {beside(array.path, 'manifest.csv')}, which lists the "
            f"photograph of each row; save the landmarks as a .npy of shape ({len(array)}, K, 2)"
        )
    crops = Counter(row.source for row in manifest)
    annotated = read_landmarks(path).of([Path(source) for source in crops])
    ears = {source: listed[0] for source, listed in zip(crops, annotated, strict=True) if listed}
    count = next(len(ear.points) for ear in ears.values() if ear.points is not None)
    unknown = Annotation(points=np.full((count, 2), np.nan))
    points = np.stack(
        [_points_in_crop(path, row, ears.get(row.source, unknown)) for row in manifest]
    )
    for row, row_points in zip(manifest, points, strict=True):
        # The landmarks of a photograph with several ears belong to the crop around them.
        if crops[row.source] > 1 and not mostly_inside(row_points):
            row_points[:] = np.nan
    return points


def _points_in_crop(path: Path, row: ManifestRow, ear: Annotation) -> np.ndarray:
    """A photograph's landmarks as fractions of the row's crop, float64 `(K, 2)`."""
    size = row.photograph or (row.box[2:] if row.box[:2] == (0, 0) else None)
    if size is None:
        raise EarTeachError(
            f"--landmarks {path}: the manifest does not give the size of the photograph "
            f"{row.source}; run `earteach prepare` again"
        )
    points = ear.in_pixels(size).points_in(row.box)
    assert points is not None
    points = points.astype(np.float64)
    if row.mirrored:
        points[:, 0] = 1 - points[:, 0]
    return points


def _read_groups(
    array: EarArray, groups: str | None, manifest: Sequence[ManifestRow] | None
) -> list[str]:
    if groups is not None and groups.endswith(".csv"):
        return _groups_in_table(Path(groups), len(array))
    if manifest is None:
        raise EarTeachError(
            f"{array.path}: {beside(array.path, 'manifest.csv').name} is not beside it; name each "
            "image's person with --groups FILE.csv, in the columns `row` and `group`"
        )
    if groups is None:
        return [row.group for row in manifest]
    return [first_group("--groups", groups, Path(row.source).name) for row in manifest]


def _groups_in_table(path: Path, length: int) -> list[str]:
    """Each row's person, from the columns `row` and `group` of a table such as a manifest."""
    (_, first), *lines = read_rows(path, "--groups", "row,group")
    header = [cell.strip().lower() for cell in first]
    try:
        row, group = header.index("row"), header.index("group")
        people = {int(cells[row]): cells[group].strip() for _, cells in lines}
        groups = [people[number] for number in range(length)]
    except (ValueError, IndexError, KeyError):
        groups = []
    if len(lines) != length or not groups or not all(groups):
        raise EarTeachError(
            f"--groups {path}: must name a group for each of the array's {length} images, in the "
            "columns `row` (from 0) and `group`"
        )
    return groups
