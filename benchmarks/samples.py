"""How near new ears are to ears of people that the network has not seen, by sampler.

    python -m benchmarks.samples --checkpoint CKPT --train TRAIN.npy --val VAL.npy --save FILE.json

`VAL.npy` needs twice as many images as `--number`: half are what everything is compared with, the others
show what score other real ears get, and are reconstructed. Its rows should be ordered by person: then
the network that tells samples from real ears is tested on other people than it learned from. `CKPT`
should have been sharpened.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from benchmarks.quality.two_sample import accuracy
from benchmarks.tables import Cell, measured_now, processor, save
from earteach.config import InferenceConfig, Sampler
from earteach.data.arrays import EarArray
from earteach.data.image_batches import to_batch
from earteach.inference.loaded_model import LoadedModel, load_model
from earteach.inference.sample import decode
from earteach.inference.samplers import draw_codes, find_source
from earteach.inference.second_decoder import load_second_decoder
from earteach.metrics.gist import features, frechet_distance, similarity
from earteach.model.vae import ConvVAE

COLUMNS = {
    "ears": "", "Fréchet distance": ".3f", "kernel distance": ".5f", "precision": ".2f",
    "recall": ".2f", "Fréchet distance, own features": ".3f", "two-sample accuracy": ".2f",
    "nearest training ear": ".2f",
}  # fmt: skip
_BATCH, _THUMBNAIL = 64, 16


def main() -> None:
    add = (parser := argparse.ArgumentParser(prog="python -m benchmarks.samples")).add_argument
    add("--checkpoint", type=Path, required=True)
    add("--train", type=Path, required=True, help="the training images")
    add("--val", type=Path, required=True, help="images of other people")
    add("--number", type=int, default=1000)
    add("--seed", type=int, default=1)
    add("--save", type=Path, help="JSON file that keeps the table, for the docs")
    options = parser.parse_args()
    rows = []
    for row in measure(options):
        rows.append(row)
        cells = (format(cell, ".3f") if isinstance(cell, float) else str(cell) for cell in row)
        print(*cells, sep="\t", flush=True)
    if options.save:
        command = shlex.join(["python", "-m", "benchmarks.samples", *sys.argv[1:]])
        save(options.save, {"new-ears": measured_now(COLUMNS, rows, command, processor())})


def measure(options: argparse.Namespace) -> Iterator[list[Cell]]:
    model = load_model(options.checkpoint, InferenceConfig(precision="32"))
    model = _with_train_data(model, options.train)
    chosen = _chosen(options.val, 2 * options.number)
    real, other = (_images(model, options.val, np.sort(half)) for half in np.split(chosen, 2))
    thumbnails = _thumbnails(_images(model, options.train))
    thumbnails = torch.cat([thumbnails, thumbnails.flip(3)]).flatten(1)
    real_features, real_own = features(real), _own_features(model.network, real)

    def distance(images: torch.Tensor) -> float:
        nearest = torch.cdist(_thumbnails(images).flatten(1), thumbnails).min(dim=1).values
        return float(nearest.median())

    def row(name: str, images: torch.Tensor, *, near: bool = True) -> list[Cell]:
        likeness = similarity(features(images), real_features)
        own = frechet_distance(_own_features(model.network, images), real_own)
        told = float(np.mean([accuracy(images, real, seed) for seed in (0, 1)]))
        return [
            name, likeness.frechet, likeness.kernel, likeness.precision, likeness.recall, own, told,
            distance(images) / distance(other) if near else None,
        ]  # fmt: skip

    yield row("other ears", other)
    yield row("their reconstructions", _reconstructed(model, model.network, other), near=False)
    if second := load_second_decoder(model):
        sharp = _reconstructed(model, second.network, other)
        yield row("their reconstructions by the second decoder", sharp, near=False)
    trained_on = np.sort(_chosen(options.train, options.number))
    yield row("training ears", _images(model, options.train, trained_on), near=False)
    # Beside a checkpoint elsewhere there is no second decoder.
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = replace(model.checkpoint, path=Path(folder) / "plain.ckpt")
        plain = replace(model, checkpoint=checkpoint)
        yield row("`gmm`, not sharpened", _drawn(plain, "gmm", 1.0, options))
    if second:
        yield row("`gmm`, sharpened", _drawn(model, "gmm", 1.0, options))
        usual = _drawn(model, "gmm", 0.7, options)
        yield row("`gmm`, sharpened, `--temperature 0.7`", usual)
        yield row("`blend`, sharpened", _drawn(model, "blend", 1.0, options))
    yield row("`prior`", _drawn(model, "prior", 1.0, options))


def _drawn(
    model: LoadedModel, sampler: Sampler, temperature: float, options: argparse.Namespace
) -> torch.Tensor:
    source = find_source(model, sampler)
    codes = draw_codes(source, options.number, options.seed, _BATCH, temperature)
    return to_batch(np.concatenate(list(decode(model, codes, source.network))))


def _with_train_data(model: LoadedModel, path: Path) -> LoadedModel:
    config = model.checkpoint.config.with_options({"train_data": path})
    return replace(model, checkpoint=replace(model.checkpoint, config=config))


def _chosen(path: Path, number: int) -> np.ndarray:
    """So many rows of an array, at random."""
    return np.random.default_rng(0).permutation(len(EarArray.open(path)))[:number]


def _images(model: LoadedModel, path: Path, rows: np.ndarray | None = None) -> torch.Tensor:
    """The images of these rows, or all of them."""
    batches = model.batches(EarArray.open(path), _BATCH, rows)
    return torch.cat([batch.images for batch in batches])


@torch.no_grad()
def _own_features(network: ConvVAE, images: torch.Tensor) -> torch.Tensor:
    """The mean of each map of the network's pyramid, or of its encoder, `(N, F)`."""
    rows = []
    for part in torch.split(images, _BATCH):
        maps = network.features(part)
        maps = maps if network.pyramid is None else network.pyramid(maps)
        rows.append(torch.cat([level.mean(dim=(2, 3)) for level in maps], dim=1))
    return torch.cat(rows)


@torch.no_grad()
def _reconstructed(model: LoadedModel, network: ConvVAE, images: torch.Tensor) -> torch.Tensor:
    parts = (part.to(model.device) for part in torch.split(images, _BATCH))
    return torch.cat([network.decode(network.encode(part)[0]).cpu() for part in parts])


def _thumbnails(images: torch.Tensor) -> torch.Tensor:
    parts = [
        functional.adaptive_avg_pool2d(part, _THUMBNAIL) for part in torch.split(images, _BATCH)
    ]
    return torch.cat(parts)


if __name__ == "__main__":
    main()
