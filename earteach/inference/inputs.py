"""Ears that are handed to a command: an image, a folder of images or an array, one at a time."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earteach.config import Fit, Layout
from earteach.data import photographs
from earteach.data.arrays import EarArray
from earteach.data.manifest import read_manifest
from earteach.data.photographs import Unreadable
from earteach.errors import EarTeachError
from earteach.model.vae import EarVAE

# In bytes: 255 is the most, and what is made of a name adds to it.
_LONGEST_NAME = 200
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ear:
    """One ear: where it is from, and uint8 `(S, S, C)`.

    `name` is for a file that is made of it; `label` tells it within its source: its path below the
    folder, or its row or what the array's manifest says of that.
    """

    source: str
    name: str
    label: str
    image: np.ndarray


def ears(source: Path, network: EarVAE, layout: Layout | None, fit: Fit) -> Iterator[Ear]:
    """The ears of one `--input`, as the network takes them.

    Photographs are made square as `prepare` makes them. One in a folder that cannot be read is left out
    with a note; named itself it is an `EarTeachError`, as is a source that is none of the three.
    """
    if source.suffix.lower() == ".npy":
        yield from _of_array(source, network, layout)
    elif source.is_dir():
        yield from _of_folder(source, network, fit)
    elif not source.exists():
        raise EarTeachError(f"--input {source}: no such file; name an image, a folder or an array")
    else:
        try:
            image = _squared(source, network, fit)
        except Unreadable as error:
            raise EarTeachError(
                f"--input {source}: {error}; name an image, a folder or an array (.npy)"
            ) from error
        yield Ear(str(source), _file_name(source.stem), source.name, image)


def _of_array(source: Path, network: EarVAE, layout: Layout | None) -> Iterator[Ear]:
    array = EarArray.open(source, layout)
    array.note_conversions(network.image_size, network.in_channels)
    labels = _manifest_labels(source, len(array))
    for row in range(len(array)):
        image = array.image(row, size=network.image_size, channels=network.in_channels)
        label = labels[row] if labels else str(row)
        yield Ear(f"{source}[{row}]", _file_name(f"{source.stem}-{row:05d}"), label, image)


def _of_folder(source: Path, network: EarVAE, fit: Fit) -> Iterator[Ear]:
    for path in photographs.find(source):
        try:
            image = _squared(path, network, fit)
        except Unreadable as error:
            _log.info("left out %s: %s", path, error)
            continue
        below = path.relative_to(source)
        yield Ear(
            str(path), _file_name("-".join(below.with_suffix("").parts)), below.as_posix(), image
        )


def _file_name(name: str) -> str:
    """The name; of a long one its end, and a sum that tells it from others that end so."""
    if len(os.fsencode(name)) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    return f"{digest}-{os.fsdecode(os.fsencode(name)[-_LONGEST_NAME + 9 :])}"


def _squared(path: Path, network: EarVAE, fit: Fit) -> np.ndarray:
    return photographs.read_square(path, network.image_size, network.in_channels, fit).image


def _manifest_labels(source: Path, length: int) -> list[str] | None:
    """What the manifest beside the array calls the rows; None without one that fits."""
    try:
        rows = read_manifest(source, length)
    except EarTeachError as error:
        _log.info("%s; until then rows are called by their numbers", error)
        return None
    return None if rows is None else [row.source for row in rows]
