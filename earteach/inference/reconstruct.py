"""Pictures of ears beside their reconstructions and errors."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from earteach.config import Fit, InferenceConfig, Layout
from earteach.data import photographs
from earteach.data.arrays import EarArray
from earteach.data.batches import to_batch
from earteach.data.cores import at_most_cores
from earteach.data.photographs import Unreadable
from earteach.errors import EarTeachError
from earteach.images import beside, heat, make_folder, to_uint8, write_png
from earteach.inference.running import RunningModel, open_model
from earteach.metrics.quality import psnr, ssim
from earteach.model.vae import EarVAE

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReconstructedImage:
    """One input and the PNG of input, reconstruction and error; `psnr` is in dB."""

    input: str
    output: Path
    psnr: float
    ssim: float


@dataclass(frozen=True)
class Reconstructions:
    """What was written, and the photographs that could not be read."""

    checkpoint: Path
    images: tuple[ReconstructedImage, ...]


@dataclass(frozen=True)
class _Ear:
    """An input: its name in reports, the name of its PNG, uint8 `(S, S, C)`."""

    source: str
    name: str
    image: np.ndarray


def reconstruct(
    path: str | Path,
    inputs: Sequence[Path],
    out: Path,
    *,
    number: int | None = None,
    layout: Layout | None = None,
    fit: Fit = "stretch",
    config: InferenceConfig | None = None,
) -> Reconstructions:
    """Reconstruct images, folders of images and arrays, each ear from mu, and write PNGs.

    At most `number` ears are taken from each input. Photographs are made square as `prepare` makes
    them. A photograph in a folder that cannot be read is left out with a note; named itself, or
    where there is no other, it is an `EarTeachError`, as is a file in the way that earteach did not
    write.
    """
    if number is not None and number < 1:
        raise EarTeachError(f"--number {number}: must be at least 1")
    config = config or InferenceConfig()
    model = open_model(Path(path), config)
    ears = (
        ear
        for source in inputs
        for ear in islice(_ears(source, model.network, layout, fit), number)
    )
    taken: set[str] = set()
    written: list[ReconstructedImage] = []
    with model.running():  # once: leaving it forgets the weights in reduced precision
        while batch := list(islice(ears, config.batch_size)):
            make_folder(out)
            written.extend(_write(model, batch, out, taken))
    if not written:
        raise EarTeachError("--input: none of the photographs could be read; name other ones")
    return Reconstructions(model.checkpoint.path, tuple(written))


def _ears(source: Path, network: EarVAE, layout: Layout | None, fit: Fit) -> Iterator[_Ear]:
    if source.suffix.lower() == ".npy":
        yield from _ears_of_array(source, network, layout)
    elif source.is_dir():
        yield from _ears_of_folder(source, network, fit)
    elif not source.exists():
        raise EarTeachError(f"--input {source}: no such file; name an image, a folder or an array")
    else:
        try:
            image = _squared(source, network, fit)
        except Unreadable as error:
            raise EarTeachError(
                f"--input {source}: {error}; name an image, a folder or an array (.npy)"
            ) from error
        yield _Ear(str(source), source.stem, image)


def _ears_of_array(source: Path, network: EarVAE, layout: Layout | None) -> Iterator[_Ear]:
    array = EarArray.open(source, layout)
    array.note_conversions(network.image_size, network.in_channels)
    for row in range(len(array)):
        image = array.image(row, size=network.image_size, channels=network.in_channels)
        yield _Ear(f"{source}[{row}]", f"{source.stem}-{row:05d}", image)


def _ears_of_folder(source: Path, network: EarVAE, fit: Fit) -> Iterator[_Ear]:
    for path in photographs.find(source):
        try:
            image = _squared(path, network, fit)
        except Unreadable as error:
            _log.info("left out %s: %s", path, error)
            continue
        yield _Ear(str(path), "-".join(path.relative_to(source).with_suffix("").parts), image)


def _squared(path: Path, network: EarVAE, fit: Fit) -> np.ndarray:
    return photographs.read_square(path, network.image_size, network.in_channels, fit).image


def _write(
    model: RunningModel, ears: Sequence[_Ear], out: Path, taken: set[str]
) -> Iterator[ReconstructedImage]:
    images = to_batch(np.stack([ear.image for ear in ears]))
    decoded = model.network.reconstruct(images.to(model.device)).float().cpu()
    errors = (decoded - images).abs().mean(dim=1).numpy()
    written = [
        ReconstructedImage(ear.source, out / f"{_unique(ear.name, taken)}.png", *quality)
        for ear, *quality in zip(
            ears, psnr(decoded, images).tolist(), ssim(decoded, images).tolist(), strict=True
        )
    ]

    _write_pictures(written, ears, decoded, errors, model.checkpoint.path.name)
    yield from written


def _write_pictures(
    entries: Sequence[ReconstructedImage],
    ears: Sequence[_Ear],
    decoded: torch.Tensor,
    errors: np.ndarray,
    checkpoint: str,
) -> None:
    def write(entry: ReconstructedImage, ear: _Ear, seen: np.ndarray, error: np.ndarray) -> None:
        facts = {
            "Checkpoint": checkpoint,
            "Input": ear.source,
            "PSNR": f"{entry.psnr:.2f} dB",
            "SSIM": f"{entry.ssim:.4f}",
        }
        write_png(entry.output, beside([ear.image, seen, heat(error)]), facts)

    with ThreadPoolExecutor(at_most_cores(len(ears))) as pool:  # compression leaves Python's lock
        list(pool.map(write, entries, ears, to_uint8(decoded), errors))


def _unique(name: str, taken: set[str]) -> str:
    """`name`, or with a number where an input of the same name was written before."""
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}-{number}", number + 1
    taken.add(candidate)
    return candidate
