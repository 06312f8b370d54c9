"""The ears of one `--input`: an image, a folder of images or an array, read one at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earteach.config import Fit, Layout
from earteach.data import photographs
from earteach.data.arrays import EarArray
from earteach.data.manifest import read_manifest
from earteach.data.photographs import Unreadable
from earteach.errors import EarTeachError
from earteach.model.vae import ConvVAE

# Files of arrays: those that are not read are refused with the line that converts them.
_ARRAYS = frozenset(
    {".npy", ".npz", ".pt", ".pth", ".h5", ".hdf5", ".mat", ".parquet", ".pkl", ".pickle", ".csv",
     ".zarr"}
)  # fmt: skip
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ear:
    """One ear: where it comes from, and its image, uint8 `(S, S, C)`.

    `name` is for output files. `label` identifies the ear within its source: its path below the folder,
    what the array's manifest calls it, or its row.
    """

    source: str
    name: str
    label: str
    image: np.ndarray


def ears(source: Path, network: ConvVAE, layout: Layout | None, fit: Fit) -> Iterator[Ear]:
    """Yield the ears of `source` at the network's size.

    Photographs become square as in `prepare`. An unreadable photograph in a folder is skipped with a
    note. Raises `EarTeachError` for a single one, and for a source that is none of the three.
    """
    if source.suffix.lower() in _ARRAYS:
        yield from _array_ears(source, network, layout)
    elif source.is_dir():
        yield from _folder_ears(source, network, fit)
    elif not source.exists():
        raise EarTeachError(f"--input {source}: no such file; name an image, a folder or an array")
    else:
        try:
            yield _photograph(source, source.parent, network, fit)
        except Unreadable as error:
            raise EarTeachError(
                f"--input {source}: {error}; name an image, a folder or an array (.npy)"
            ) from error


def _array_ears(source: Path, network: ConvVAE, layout: Layout | None) -> Iterator[Ear]:
    array = EarArray.open(source, layout)
    array.note_conversions(network.image_size, network.in_channels)
    try:
        manifest = read_manifest(source, len(array))
    except EarTeachError as error:
        _log.info("%s; until then rows are labelled with their numbers", error)
        manifest = None
    for row in range(len(array)):
        image = array.image(row, size=network.image_size, channels=network.in_channels)
        label = manifest[row].source if manifest else str(row)
        yield Ear(f"{source}[{row}]", f"{source.stem}-{row:05d}", label, image)


def _folder_ears(source: Path, network: ConvVAE, fit: Fit) -> Iterator[Ear]:
    try:
        found = photographs.find(source)
    except EarTeachError as error:
        if not any(source.glob("*.npy")):
            raise
        raise EarTeachError(
            f"--input {source}: holds arrays, not photographs; name one, or '{source}/*.npy'"
        ) from error
    for path in found.files:
        try:
            yield _photograph(path, source, network, fit)
        except Unreadable as error:
            _log.info("left out %s: %s", path, error)


def _photograph(path: Path, folder: Path, network: ConvVAE, fit: Fit) -> Ear:
    image = photographs.read_square(path, network.image_size, network.in_channels, fit).image
    relative = path.relative_to(folder)
    name = "-".join(relative.with_suffix("").parts)
    return Ear(str(path), name, relative.as_posix(), image)


def unique_name(name: str, names: set[str]) -> str:
    """`name`, numbered if an earlier input has it; the result joins `names`."""
    candidate, number = name, 2
    while candidate in names:
        candidate, number = f"{name}-{number}", number + 1
    names.add(candidate)
    return candidate


def check_inputs_kept(inputs: Sequence[Path], out: Path) -> None:
    """An input that earteach wrote, such as a sample, would pass the overwrite check."""
    for source in inputs:
        output = out if source.is_dir() else out / f"{source.stem}.png"
        if output.exists() and source.exists() and output.samefile(source):
            raise EarTeachError(
                f"--out {out}: its pictures may replace images of --input {source}; choose another "
                "--out"
            )
