"""Pictures of ears beside their reconstructions and errors, or variations of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from earteach.config import Fit, InferenceConfig, Layout
from earteach.data.image_batches import to_batch
from earteach.errors import EarTeachError
from earteach.files.folders import make_folder
from earteach.hardware import at_most_cores
from earteach.images import beside, heat, to_uint8, write_png
from earteach.inference.inputs import Ear, ears
from earteach.inference.loaded_model import LoadedModel, load_model
from earteach.metrics.image_quality import psnr, ssim
from earteach.model.vae import EarVAE, reparameterise
from earteach.randomness import variation_noise


@dataclass(frozen=True)
class ReconstructedImage:
    """One input and the PNG of input, reconstruction and error, or of one variation.

    `psnr`, in dB, and `ssim` are those of the reconstruction or variation beside the input.
    """

    input: str
    output: Path
    psnr: float
    ssim: float


@dataclass(frozen=True)
class Reconstructions:
    """What was written; `jitter` and `seed` are those of variations, else None."""

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
    config: InferenceConfig | None = None,
) -> Reconstructions:
    """Reconstruct images, folders of images and arrays, each ear from mu, and write PNGs.

    At most `number` ears are taken from each input. Photographs are made square as `prepare` makes
    them. A photograph in a folder that cannot be read is left out with a note; named itself, or
    where there is no other, it is an `EarTeachError`, as is a file in the way that earteach did not
    write, and an `out` whose pictures would replace the images.

    With `jitter` S the PNGs are variations of the ears instead, so many of each: decoded from
    mu + S · sigma · noise, with sigma the posterior's own width and standard normal noise. At 1 they
    are draws from the posterior, ears that the code does not tell from the one given; above, they
    leave it. The number that says which side an ear looks to stays. Noise depends on the seed, the
    ear's place among the inputs and the variation alone.
    """
    for option, value, good in (
        ("--number", number, number is None or number >= 1),
        ("--variations", variations, variations >= 1),
    ):
        if not good:
            raise EarTeachError(f"{option} {value}: must be at least 1")
    if jitter is not None and not 0 <= jitter < math.inf:
        raise EarTeachError(f"--jitter {jitter}: must be a number from 0 on")
    _refuse_inputs(inputs, out)
    config = config or InferenceConfig()
    model = load_model(Path(path), config)
    named = (
        ear for source in inputs for ear in islice(ears(source, model.network, layout, fit), number)
    )
    writer = _Writer(model, out)
    written: list[ReconstructedImage] = []
    done = 0
    with model.running():  # once: leaving it forgets the weights in reduced precision
        while batch := list(islice(named, config.batch_size)):
            make_folder(out)
            if jitter is None:
                written.extend(writer.reconstructions(batch))
            else:
                draw = partial(_noise, seed, range(done, done + len(batch)), model.network)
                written.extend(writer.variations(batch, jitter, variations, draw))
            done += len(batch)
    if not written:
        raise EarTeachError("--input: none of the photographs could be read; name other ones")
    return Reconstructions(
        model.checkpoint.path, tuple(written), jitter, None if jitter is None else seed
    )


def _refuse_inputs(inputs: Sequence[Path], out: Path) -> None:
    """A picture that earteach wrote, as of `sample`, could be replaced by one of itself."""
    for source in inputs:
        written = out if source.is_dir() else out / f"{source.stem}.png"
        if written.exists() and source.exists() and written.samefile(source):
            raise EarTeachError(
                f"--out {out}: its pictures may replace images of --input {source}; choose another "
                "--out"
            )


def _noise(seed: int, places: Sequence[int], network: EarVAE, variation: int) -> torch.Tensor:
    """Noise of one variation of the ears at these places; none on the side."""
    noise = variation_noise(seed, places, variation, network.latent_dim)
    if network.side_dimension is not None:
        noise[:, network.side_dimension] = 0
    return noise


class _Writer:
    """Decodes ears and writes them, each under a name of its own."""

    def __init__(self, model: LoadedModel, out: Path) -> None:
        self._model = model
        self._out = out
        self._taken: set[str] = set()

    def reconstructions(self, batch: Sequence[Ear]) -> list[ReconstructedImage]:
        images = _images(batch)
        decoded = self._model.network.reconstruct(images.to(self._model.device)).float().cpu()

        def picture(place: int) -> np.ndarray:
            error = (decoded[place] - images[place]).abs().mean(dim=0).numpy()
            return beside([batch[place].image, _pixels(decoded, place), heat(error)])

        names = [self._unique(ear.name) for ear in batch]
        return self._written(batch, names, images, decoded, picture)

    def variations(
        self,
        batch: Sequence[Ear],
        jitter: float,
        number: int,
        draw: Callable[[int], torch.Tensor],
    ) -> Iterator[ReconstructedImage]:
        network, device = self._model.network, self._model.device
        images = _images(batch)
        mu, logvar = network.encode(images.to(device))
        names = [self._unique(ear.name) for ear in batch]
        digits = len(str(number - 1))
        for variation in range(number):
            codes = reparameterise(mu, logvar, jitter * draw(variation).to(device))
            decoded = network.decode(codes).float().cpu()
            numbered = [f"{name}-variation-{variation:0{digits}d}" for name in names]
            picture = partial(_pixels, decoded)
            yield from self._written(
                batch, numbered, images, decoded, picture, Jitter=f"{jitter:g}"
            )

    def _written(
        self,
        batch: Sequence[Ear],
        names: Sequence[str],
        images: torch.Tensor,
        decoded: torch.Tensor,
        picture: Callable[[int], np.ndarray],
        **facts: str,
    ) -> list[ReconstructedImage]:
        entries = [
            ReconstructedImage(ear.source, self._out / f"{name}.png", *quality)
            for ear, name, *quality in zip(
                batch,
                names,
                psnr(decoded, images).tolist(),
                ssim(decoded, images).tolist(),
                strict=True,
            )
        ]

        facts["Checkpoint"] = self._model.checkpoint.path.name
        _write_pictures(entries, picture, facts)
        return entries

    def _unique(self, name: str) -> str:
        """`name`, or with a number where an input of the same name was written before."""
        candidate, number = name, 2
        while candidate in self._taken:
            candidate, number = f"{name}-{number}", number + 1
        self._taken.add(candidate)
        return candidate


def _write_pictures(
    entries: Sequence[ReconstructedImage],
    picture: Callable[[int], np.ndarray],
    facts: Mapping[str, str],
) -> None:
    """Compose and write a PNG for each entry; composing and compression leave Python's lock."""

    def write(place: int, entry: ReconstructedImage) -> None:
        about = {
            "Input": entry.input,
            "PSNR": f"{entry.psnr:.2f} dB",
            "SSIM": f"{entry.ssim:.4f}",
        }
        write_png(entry.output, picture(place), {**facts, **about})

    with ThreadPoolExecutor(at_most_cores(len(entries))) as pool:
        list(pool.map(write, range(len(entries)), entries))


def _pixels(decoded: torch.Tensor, place: int) -> np.ndarray:
    return to_uint8(decoded[place : place + 1])[0]


def _images(batch: Sequence[Ear]) -> torch.Tensor:
    return to_batch(np.stack([ear.image for ear in batch]))
