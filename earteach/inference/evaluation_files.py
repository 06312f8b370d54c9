"""What `eval --out` writes: pictures of the worst and best images, and a table of all of them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earteach.data.arrays import EarArray, to_channels
from earteach.files.atomic_write import write_atomically
from earteach.files.folders import make_writable_folder
from earteach.files.overwrite_guard import carries, refuse_foreign
from earteach.images import check_overwrite, grid, heat_map, to_uint8, write_png
from earteach.inference.baselines import BaselineQuality
from earteach.inference.loaded_model import LoadedModel
from earteach.metrics.eval_metrics import ImageQuality

WORST, BEST, PER_IMAGE = "worst.png", "best.png", "per_image.csv"
PICTURED = 8
COLUMNS = "row,psnr,ssim,kld"


@dataclass(frozen=True)
class Picture:
    """A PNG and the rows of the array that it shows, from top to bottom."""

    path: Path
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Files:
    """The files that were written."""

    worst: Picture
    best: Picture
    per_image: Path


def prepare_folder(out: Path) -> None:
    """Make the folder, before the long work.

    Raises `EarTeachError` if it cannot be written, or if a file in it that `eval` did not write has
    the name of an output.
    """
    make_writable_folder(out, str(out), "choose another --out")
    check_overwrite(out / WORST)
    check_overwrite(out / BEST)
    refuse_foreign(out / PER_IMAGE, lambda path: carries(path, COLUMNS), "eval")


def write(
    out: Path,
    model: LoadedModel,
    array: EarArray,
    quality: ImageQuality,
    kld: np.ndarray,
    baselines: BaselineQuality | None,
    batch_size: int,
) -> Files:
    """Write the pictures and the table of `quality` and `kld` `(N,)`, a value for each row.

    A row of a picture is one of the images with the lowest or the highest PSNR, the most extreme
    first: input, reconstruction, PCA's reconstruction if there are baselines, and error.
    """
    order = np.argsort(quality.psnr, kind="stable")
    rows = {WORST: order[:PICTURED].tolist(), BEST: order[::-1][:PICTURED].tolist()}
    sheets = {}  # both are drawn before either is written
    for name, chosen in rows.items():
        strips = list(comparison_strips(model, array, chosen, baselines, batch_size))
        sheets[name] = grid([tile for strip in strips for tile in strip], columns=len(strips[0]))
    for name, sheet in sheets.items():
        facts = {
            "Checkpoint": model.checkpoint.path.name,
            "Data": array.path.name,
            "Columns": f"input, reconstruction, {'PCA, ' if baselines else ''}error",
            "Rows": ", ".join(f"{row} ({quality.psnr[row]:.2f} dB)" for row in rows[name]),
        }
        write_png(out / name, sheet, facts)
    columns = {"row": np.arange(len(kld)), "psnr": quality.psnr, "ssim": quality.ssim, "kld": kld}
    if baselines is not None:
        columns |= {"pca_psnr": baselines.pca.psnr, "pca_ssim": baselines.pca.ssim}

    def write_table(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))

    write_atomically(out / PER_IMAGE, write_table)
    worst, best = (Picture(out / name, tuple(chosen)) for name, chosen in rows.items())
    return Files(worst, best, out / PER_IMAGE)


def comparison_strips(
    model: LoadedModel,
    array: EarArray,
    rows: Sequence[int],
    baselines: BaselineQuality | None,
    batch_size: int,
) -> Iterator[list[np.ndarray]]:
    """For each row, the tiles of a picture from left to right, uint8 `(S, S, 3)`."""
    for batch in model.batches(array, batch_size, rows):
        with model.running():
            decoded = model.network.reconstruct(batch.images.to(model.device)).float().cpu()
        errors = (decoded - batch.images).abs().mean(dim=1).numpy()
        columns = [batch.images, decoded]
        if baselines is not None:
            columns.append(baselines.eigenears.reconstruct(batch.images))
        for *ears, error in zip(*map(to_uint8, columns), errors, strict=True):
            yield [*(to_channels(ear, 3) for ear in ears), heat_map(error)]
