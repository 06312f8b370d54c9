"""What a probe reads: the landmarks of an array's rows, and who is on them."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earteach.data.annotations.annotation import Annotation, mostly_inside
from earteach.data.annotations.landmarks import read_landmarks
from earteach.data.arrays import EarArray
from earteach.data.manifest import ManifestRow, beside, read_manifest
from earteach.data.patterns import compiled, first_group
from earteach.errors import EarTeachError

# People for each of five folds, and again for folds within these.
_FEWEST = 10
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labels:
    """Of each row of an array its person, `(N,)`, and its landmarks, `(N, K, 2)` or None."""

    groups: np.ndarray
    landmarks: np.ndarray | None


def read_labels(
    array: EarArray, landmarks: Path | None, groups: str | None, *, identities: bool
) -> Labels:
    """From the files that are named, or else from those that `prepare` wrote beside the array.

    Raises `EarTeachError` where something does not fit the array or nothing can be probed.
    """
    manifest = read_manifest(array.path, len(array))
    points = _landmarks(array, landmarks, manifest, needed=not identities)
    people = np.array(_groups(array, groups, manifest), dtype=str)
    if points is not None:
        few = _too_few(people[known(points)], array.path)
        if few and (landmarks is not None or not identities):
            raise EarTeachError(few)
        if few:
            _log.info("landmarks are not probed: %s", few)
            points = None
    if identities and len(set(people)) in (1, len(people)):
        raise EarTeachError(
            f"{array.path}: has {len(people)} images of {len(set(people))} people; --identities needs "
            "two images of a person and two people: say who is who with --groups"
        )
    return Labels(people, points)


def known(points: np.ndarray) -> np.ndarray:
    """The rows that have landmarks."""
    return np.flatnonzero(np.isfinite(points).all(axis=(1, 2)))


def _too_few(people: np.ndarray, path: Path) -> str | None:
    count = len(set(people))
    if count >= _FEWEST:
        return None
    return (
        f"{path}: has landmarks of {count} people; it takes {_FEWEST} to keep them apart: say who is "
        "who with --groups, or add people"
    )


def _landmarks(
    array: EarArray,
    path: Path | None,
    manifest: Sequence[ManifestRow] | None,
    *,
    needed: bool,
) -> np.ndarray | None:
    if path is None:
        path = beside(array.path, "landmarks.npy")
        if not path.exists():
            if needed:
                raise EarTeachError(
                    f"{array.path}: nothing to probe, {path.name} is not beside it; name landmarks with "
                    "--landmarks, or ask for --identities"
                )
            return None
    if path.suffix == ".npy":
        return _from_array(array, path)
    return _from_photographs(array, path, manifest)


def _from_array(array: EarArray, path: Path) -> np.ndarray:
    try:
        points = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise EarTeachError(f"--landmarks {path}: no such file; name a .npy or a .csv") from error
    except (OSError, ValueError, EOFError) as error:
        raise EarTeachError(f"--landmarks {path}: is not a .npy file; save it again") from error
    if not isinstance(points, np.ndarray):
        raise EarTeachError(
            f"--landmarks {path}: is an .npz archive; save the one array with numpy.save"
        )
    count = points.shape[1] if points.ndim == 3 else 0
    if count < 2 or points.shape != (len(array), count, 2) or points.dtype.kind != "f":
        raise EarTeachError(
            f"--landmarks {path}: holds {points.dtype} of shape {points.shape}; the array needs floats "
            f"of shape ({len(array)}, K, 2)"
        )
    return points.astype(np.float64)


def _from_photographs(
    array: EarArray, path: Path, manifest: Sequence[ManifestRow] | None
) -> np.ndarray:
    if manifest is None:
        raise EarTeachError(
            f"--landmarks {path}: {beside(array.path, 'manifest.csv')}, which says which row is which "
            f"photograph, is not there; save the landmarks as a .npy of shape ({len(array)}, K, 2)"
        )
    rows = Counter(row.source for row in manifest)
    found = zip(rows, read_landmarks(path).of([Path(source) for source in rows]), strict=True)
    given = {source: ears[0] for source, ears in found if ears}
    count = next(len(ear.points) for ear in given.values() if ear.points is not None)
    unseen = Annotation(points=np.full((count, 2), np.nan))
    points = [_in_row(path, row, given.get(row.source, unseen)) for row in manifest]
    for place, row in enumerate(manifest):
        # Of several ears in a photograph they are those of the one around them.
        if rows[row.source] > 1 and not mostly_inside(points[place]):
            points[place][:] = np.nan
    return np.stack(points)


def _in_row(path: Path, row: ManifestRow, ear: Annotation) -> np.ndarray:
    """The points of a photograph, float64 `(K, 2)`, as fractions of the crop that is the row."""
    size = row.photograph or (row.box[2:] if row.box[:2] == (0, 0) else None)
    if size is None:
        raise EarTeachError(
            f"--landmarks {path}: the manifest does not say how large {row.source} is, of which the row "
            "is a part; run `earteach prepare` again"
        )
    points = ear.in_pixels(size).points_in(row.box)
    assert points is not None
    points = points.astype(np.float64)
    if row.mirrored:
        points[:, 0] = 1 - points[:, 0]
    return points


def _groups(
    array: EarArray, wanted: str | None, manifest: Sequence[ManifestRow] | None
) -> list[str]:
    if wanted is not None and wanted.endswith(".csv"):
        return _groups_in_table(Path(wanted), len(array))
    if manifest is None:
        raise EarTeachError(
            f"{array.path}: {beside(array.path, 'manifest.csv').name} is not beside it; say who is who "
            "with --groups FILE.csv, which has a column `group` and a row for each image"
        )
    if wanted is None:
        return [row.group for row in manifest]
    pattern = compiled("--groups", wanted)
    return [first_group("--groups", pattern, Path(row.source).name) for row in manifest]


def _groups_in_table(path: Path, length: int) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            people = [entry.get("group") for entry in csv.DictReader(file)]
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise EarTeachError(f"--groups {path}: {reason}; name a .csv") from error
    named = [person for person in people if person]
    if len(named) != length:
        raise EarTeachError(
            f"--groups {path}: names a group for {len(named)} rows in its column `group`; the array has "
            f"{length} images"
        )
    return named
