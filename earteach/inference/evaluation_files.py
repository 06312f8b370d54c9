"""What `eval --out` writes: the worst and the best images as pictures, and every image's values."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earteach.data.arrays import EarArray, to_channels
from earteach.data.image_batches import image_batches
from earteach.errors import EarTeachError
from earteach.files.atomic_write import write_atomically
from earteach.files.folders import make_folder
from earteach.files.overwrite_guard import foreign
from earteach.images import check_overwrite, grid, heat_map, to_uint8, write_png
from earteach.inference.baselines import PCAValues
from earteach.inference.loaded_model import LoadedModel
from earteach.metrics.image_quality import ImageQuality

WORST, BEST, PER_IMAGE = "worst.png", "best.png", "per_image.csv"
PICTURED = 8
COLUMNS = ("row", "psnr", "ssim", "kld")
PCA_COLUMNS = ("pca_psnr", "pca_ssim")


@dataclass(frozen=True)
class Picture:
    """A PNG and the rows of the array that it shows, from top to bottom."""

    path: Path
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Files:
    """What was written."""

    worst: Picture
    best: Picture
    per_image: Path


def prepare_folder(out: Path) -> None:
    """Make the folder, before the long work.

    Raises `EarTeachError` where it cannot be made or written, or where a file that is no output of
    `eval` has the name of one.
    """
    make_folder(out)
    check_overwrite(out / WORST)
    check_overwrite(out / BEST)
    table = out / PER_IMAGE
    if table.exists() and not _is_ours(table):
        raise foreign(table, "eval")
    try:
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise EarTeachError(
            f"{out}: cannot be written: {error.strerror}; choose another --out"
        ) from error


def write(
    out: Path,
    model: LoadedModel,
    array: EarArray,
    quality: ImageQuality,
    kld: np.ndarray,
    pca: PCAValues | None,
    batch_size: int,
) -> Files:
    """Write the pictures and the table of `quality` and `kld` `(N,)`, one value for each row.

    A picture has a row for each of the worst or best images by PSNR, from the most extreme down:
    input, reconstruction, PCA's reconstruction where there is one, and the error as `reconstruct`
    draws it.
    """
    order = np.argsort(quality.psnr, kind="stable")
    chosen = {WORST: order[:PICTURED].tolist(), BEST: order[::-1][:PICTURED].tolist()}
    sheets = {
        name: _sheet(model, array, rows, pca, batch_size) for name, rows in chosen.items()
    }  # both drawn before either is written
    for name, sheet in sheets.items():
        write_png(out / name, sheet, _facts(model, array, chosen[name], quality, pca))
    _write_table(out / PER_IMAGE, quality, kld, pca)
    worst, best = (Picture(out / name, tuple(rows)) for name, rows in chosen.items())
    return Files(worst, best, out / PER_IMAGE)


def _sheet(
    model: LoadedModel,
    array: EarArray,
    rows: Sequence[int],
    pca: PCAValues | None,
    batch_size: int,
) -> np.ndarray:
    squares = list(tiles(model, array, rows, pca, batch_size))
    return grid(squares, columns=len(squares) // len(rows))


def tiles(
    model: LoadedModel,
    array: EarArray,
    rows: Sequence[int],
    pca: PCAValues | None,
    batch_size: int,
) -> Iterator[np.ndarray]:
    """Of each row the squares that a picture shows, uint8 `(S, S, 3)`, one after the other."""
    network = model.network
    for batch in image_batches(
        array,
        size=network.image_size,
        channels=network.in_channels,
        batch_size=batch_size,
        indices=rows,
    ):
        with model.running():
            decoded = network.reconstruct(batch.images.to(model.device)).float().cpu()
        errors = (decoded - batch.images).abs().mean(dim=1).numpy()
        shown = [batch.images, decoded]
        if pca is not None:
            shown.append(pca.fitted.reconstruct(batch.images))
        for *ears, error in zip(*map(to_uint8, shown), errors, strict=True):
            yield from (to_channels(ear, 3) for ear in ears)
            yield heat_map(error)


def _facts(
    model: LoadedModel,
    array: EarArray,
    rows: Sequence[int],
    quality: ImageQuality,
    pca: PCAValues | None,
) -> dict[str, str]:
    return {
        "Checkpoint": model.checkpoint.path.name,
        "Data": array.path.name,
        "Columns": f"input, reconstruction, {'PCA, ' if pca else ''}error",
        "Rows": ", ".join(f"{row} ({quality.psnr[row]:.2f} dB)" for row in rows),
    }


def _write_table(path: Path, quality: ImageQuality, kld: np.ndarray, pca: PCAValues | None) -> None:
    names, columns = [*COLUMNS], [quality.psnr, quality.ssim, kld]
    if pca is not None:
        names += PCA_COLUMNS
        columns += [pca.quality.psnr, pca.quality.ssim]

    def write_to(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            values = zip(*(column.tolist() for column in columns), strict=True)
            writer.writerows((row, *entries) for row, entries in enumerate(values))

    write_atomically(path, write_to)


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            first = file.readline(200).decode(errors="replace").strip()
    except OSError:
        return False
    return first in (",".join(COLUMNS), ",".join(COLUMNS + PCA_COLUMNS))
