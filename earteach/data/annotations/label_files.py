"""Folders with one label file per photograph, as Pascal VOC and YOLO have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from earteach.data.annotations.annotation import Annotation
from earteach.errors import EarTeachError

_MOST_BYTES = 2**24


def read_label_files(
    folder: Path,
    paths: Iterable[Path],
    parse: Callable[[bytes], list[Annotation]],
    *,
    standard: str,
    label_folder: str,
) -> dict[str, list[Annotation]]:
    """The annotations in each file, by its path in `folder` without suffix.

    A leading `label_folder` is dropped from the names: the photograph of `labels/train/1.txt` is
    `images/train/1.jpg`, which ends in `train/1`. `parse` raises `ValueError`, `LookupError` or
    `ArithmeticError` for content that does not follow the `standard`, and this an `EarTeachError`.
    """
    by_name = {}
    for path in sorted(paths):
        parts = path.relative_to(folder).with_suffix("").parts
        if parts[0] == label_folder and len(parts) > 1:
            parts = parts[1:]
        try:
            by_name["/".join(parts)] = parse(small_file(path))
        except (OSError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
            raise EarTeachError(
                f"--boxes {path}: is not as {standard} has it ({error}); write it again"
            ) from error
    return by_name


def small_file(path: Path) -> bytes:
    """The content of a file; raises `ValueError` for one that is too large for labels."""
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError("too large")
    return path.read_bytes()
