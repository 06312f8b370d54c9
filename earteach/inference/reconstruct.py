"""PNGs of ears beside their reconstructions and errors, or of variations of ears."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from earteach.config import Fit, InferenceConfig, Layout
from earteach.data.image_batches import to_batch
from earteach.errors import EarTeachError
from earteach.files.folders import make_folder
from earteach.hardware import at_most_cores
from earteach.images import heat_map, side_by_side, to_uint8, write_png
from earteach.inference.inputs import check_inputs_kept, ears, unique_name
from earteach.inference.loaded_model import LoadedModel, load_model
from earteach.metrics.eval_metrics import psnr, ssim
from earteach.model.vae import reparameterise
from earteach.randomness import variation_noise


@dataclass(frozen=True)
class ReconstructedImage:
    """One input and its PNG: input, reconstruction and error side by side, or one variation.

    `psnr`, in dB, and `ssim` compare the reconstruction or variation with the input.
    """

    input: str
    output: Path
    psnr: float
    ssim: float


@dataclass(frozen=True)
class Reconstructions:
    """The PNGs written; `jitter` and `seed` are None unless they are variations."""

    checkpoint: Path
    images: tuple[ReconstructedImage, ...]
    jitter: float | None
    seed: int | None


def reconstruct(
    path: str | Path,
    inputs: Sequence[Path],
    out: Path,
    *,
    number: int | None = None,
    layout: Layout | None = None,
    fit: Fit = "stretch",
    jitter: float | None = None,
    variations: int = 1,
    seed: int = 42,
    config: InferenceConfig = InferenceConfig(),
) -> Reconstructions:
    """Reconstruct the ears in images, folders and arrays from mu, and write PNGs.

    Reads up to `number` ears from each input. Photographs become square as in `prepare`. An unreadable
    photograph in a folder is skipped with a note.

    With `jitter` S, writes `variations` of each ear instead, decoded from mu + S · sigma · noise: sigma
    is the posterior's standard deviation and the noise is standard normal. At 1 these are samples of
    the posterior, which the code cannot tell from the input; larger values move away from it. The side
    of the ear stays. The noise depends only on the seed, the ear's position among all inputs and the
    number of the variation.

    Raises `EarTeachError` for an input that cannot be read, for existing files that earteach did not
    write, and for an `out` where the PNGs would replace inputs.
    """
    for option, value in (("--number", number), ("--variations", variations)):
        if value is not None and value < 1:
            raise EarTeachError(f"{option} {value}: must be at least 1")
    if jitter is not None and not 0 <= jitter < math.inf:
        raise EarTeachError(f"--jitter {jitter}: must be a finite number, 0 or more")
    check_inputs_kept(inputs, out)
    model = load_model(path, config)
    all_ears = (
        ear for source in inputs for ear in islice(ears(source, model.network, layout, fit), number)
    )
    written: list[ReconstructedImage] = []
    names = set[str]()
    position = 0
    with model.running():  # entered once: leaving it discards the weights in reduced precision
        while batch := list(islice(all_ears, config.batch_size)):
            make_folder(out)
            images = to_batch(np.stack([ear.image for ear in batch]))
            stems = [unique_name(ear.name, names) for ear in batch]
            positions = range(position, position + len(batch))
            for suffix, output in _decode(model, images, jitter, variations, seed, positions):
                paths = [out / f"{stem}{suffix}.png" for stem in stems]
                sources = [ear.source for ear in batch]
                written += _write(model, sources, paths, images, output.float().cpu(), jitter)
            position += len(batch)
    if not written:
        raise EarTeachError("--input: none of the photographs could be read; try others")
    return Reconstructions(
        model.checkpoint.path, tuple(written), jitter, None if jitter is None else seed
    )


def _decode(
    model: LoadedModel,
    images: torch.Tensor,
    jitter: float | None,
    variations: int,
    seed: int,
    positions: Sequence[int],
) -> Iterator[tuple[str, torch.Tensor]]:
    """Decode images `(B, C, S, S)` once or in variations, each with its suffix for file names."""
    network = model.network
    mu, logvar = network.encode(images.to(model.device))
    if jitter is None:
        yield "", network.decode(mu)
        return
    digits = len(str(variations - 1))
    for variation in range(variations):
        noise = variation_noise(seed, positions, variation, network.latent_dim)
        if network.side_dimension is not None:
            noise[:, network.side_dimension] = 0
        codes = reparameterise(mu, logvar, jitter * noise.to(model.device))
        yield f"-variation-{variation:0{digits}d}", network.decode(codes)


def _write(
    model: LoadedModel,
    sources: Sequence[str],
    paths: Sequence[Path],
    images: torch.Tensor,
    decoded: torch.Tensor,
    jitter: float | None,
) -> list[ReconstructedImage]:
    """Measure decoded images `(B, C, S, S)` against the inputs, and write a PNG of each."""
    quality = psnr(decoded, images).tolist(), ssim(decoded, images).tolist()
    entries = list(map(ReconstructedImage, sources, paths, *quality))
    metadata = {} if jitter is None else {"Jitter": f"{jitter:g}"}
    metadata["Checkpoint"] = model.checkpoint.path.name
    errors = (decoded - images).abs().mean(dim=1).numpy()

    def write(entry: ReconstructedImage, image: np.ndarray, output: np.ndarray, error: Any) -> None:
        picture = output if jitter is not None else side_by_side([image, output, heat_map(error)])
        quality = {"PSNR": f"{entry.psnr:.2f} dB", "SSIM": f"{entry.ssim:.4f}"}
        write_png(entry.output, picture, {**metadata, "Input": entry.input, **quality})

    with ThreadPoolExecutor(at_most_cores(len(entries))) as pool:  # drawing releases the GIL
        list(pool.map(write, entries, to_uint8(images), to_uint8(decoded), errors))
    return entries
