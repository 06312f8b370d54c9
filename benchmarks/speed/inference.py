"""`eval`, `reconstruct` and `embed` beside the bare network, and what memory they need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.speed import memory
from benchmarks.speed.pairs import Row, in_turn
from benchmarks.speed.workspace import drawn_ears
from earteach import checkpoint
from earteach.config import InferenceConfig, TrainConfig
from earteach.data.arrays import EarArray
from earteach.data.image_batches import image_batches
from earteach.inference.embed import embed
from earteach.inference.evaluate import evaluate
from earteach.inference.reconstruct import reconstruct
from earteach.metrics.eval_metrics import METRICS
from earteach.model.build import build_model
from earteach.model.vae import ConvVAE

TURNS = 3
_FORWARD = "bare loop of the same passes and batches; here without metrics and PNGs"
_WHOLE = "the same bare loop; here with metrics"


def rows(workspace: Path) -> Iterator[Row]:
    folder = workspace / "inference"
    folder.mkdir(exist_ok=True)
    ears = drawn_ears(workspace)
    yield from _beside_the_network(folder, ears, size=64, base=32, number=512, batch_size=32)
    large = drawn_ears(workspace, size=256, number=32)
    yield from _beside_the_network(folder, large, size=256, base=64, number=16, batch_size=8)
    yield from _memory(folder)


def _beside_the_network(
    folder: Path, ears: Path, *, size: int, base: int, number: int, batch_size: int
) -> Iterator[Row]:
    saved = _checkpoint(folder, ears, size, base)
    array = _repeated(folder, ears / "val_teacher.npy", number)
    opened = EarArray.open(array)
    (batch,) = image_batches(opened, size=size, channels=3, batch_size=number)
    config, out = InferenceConfig(batch_size=batch_size), folder / f"pictures-{size}"

    def bare(decodings: int) -> Callable[[], None]:
        """On images in memory; it loads the checkpoint, as the commands must."""
        return lambda: _passes(checkpoint.load(saved), batch.images, batch_size, decodings)

    def evaluated() -> object:
        return evaluate(saved, array, baselines=False, config=config)

    def reconstructed() -> object:
        return reconstruct(saved, [array], out, config=config)

    def embedded() -> object:
        return embed(saved, array, folder / f"codes-{size}.npz", config=config)

    what = f"{number} images, {size} px"
    with nothing_measured():
        pair = in_turn(evaluated, bare(2), TURNS)
        yield pair.row(f"`eval`, {what}: forward passes", "at most", 1.1, _FORWARD)
        pair = in_turn(reconstructed, bare(1), TURNS)
        yield pair.row(f"`reconstruct`, {what}: forward passes", "at most", 1.1, _FORWARD)
    pair = in_turn(evaluated, bare(2), TURNS)
    yield pair.row(f"`eval`, {what}", "at most", 1.25, _WHOLE)
    pair = in_turn(reconstructed, bare(1), TURNS)
    yield pair.row(f"`reconstruct`, {what}", "at most", 1.5, f"{_WHOLE} and PNGs")
    pair = in_turn(embedded, bare(0), TURNS)
    yield pair.row(f"`embed`, {what}", "at most", 1.1, "bare loop of the same passes and batches")


def _passes(network: ConvVAE, images: torch.Tensor, batch_size: int, decodings: int) -> None:
    """Encode, then decode mu, then decode a noisy code: as many decodings as the command needs."""
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        for batch in torch.split(images, batch_size):
            mu, logvar = network.encode(batch)
            if decodings > 0:
                network.decode(mu)
            if decodings > 1:
                network.decode(mu + torch.exp(0.5 * logvar) * torch.randn_like(mu))


@contextmanager
def nothing_measured() -> Iterator[None]:
    """Without metrics and PNGs; the commands do everything else."""

    def zeros(images: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(images))

    def nothing(*_: object) -> None:
        pass

    command = "earteach.inference.reconstruct"
    replaced: dict[str, Any] = {
        "earteach.metrics.eval_metrics.METRICS": {
            name: replace(metric, measure=zeros) for name, metric in METRICS.items()
        },
        f"{command}.psnr": zeros,
        f"{command}.ssim": zeros,
        **{f"{command}.{name}": nothing for name in ("side_by_side", "heat_map", "write_png")},
    }
    with ExitStack() as stack:
        for name, function in replaced.items():
            stack.enter_context(mock.patch(name, function))
        yield


def _memory(folder: Path) -> Iterator[Row]:
    """With a tiny network, so that memory kept per image is visible beside the network's."""
    ears = drawn_ears(folder, size=32, number=48)
    saved = _checkpoint(folder, ears, size=32, base=8)
    few, many = (_repeated(folder, ears / "val_teacher.npy", number) for number in (500, 10_000))
    calls: dict[str, tuple[object, ...]] = {
        "eval": (),
        "reconstruct": (folder / "many",),
        "embed": (folder / "codes.npz",),
    }
    for name, others in calls.items():
        most, least = (memory.peak(name, saved, array, *others) for array in (many, few))
        what = f"`{name}` of 10,000 images, 32 px: anonymous memory"
        yield Row(what, most, least, "MB", "at most", 1.1, "of 500 images")


def _checkpoint(folder: Path, ears: Path, size: int, base: int) -> Path:
    """The checkpoint of an untrained network whose training array does not exist."""
    path = folder / f"untrained-{size}.ckpt"
    config = TrainConfig().with_options(
        {
            "train_data": folder / "gone.npy",
            "val_data": ears / "val_teacher.npy",
            "image_size": size,
            "base_channels": base,
            "precision": "bf16",
        }
    )
    torch.manual_seed(0)
    state = build_model(config.model).state_dict()
    for value in state.values():
        if value.is_floating_point() and not value.any():
            value.normal_(0, 0.02)
    entry = checkpoint.about(config, {}, epochs_completed=0)
    weights = {f"model.{name}": value for name, value in state.items()}
    checkpoint.write({"state_dict": weights, "global_step": 0, checkpoint.KEY: entry}, path)
    return path


def _repeated(folder: Path, path: Path, number: int) -> Path:
    """An array of `number` images, which repeats those of the given one."""
    images = np.load(path, mmap_mode="r")
    repeated = folder / f"{images.shape[1]}px-{number}.npy"
    out = np.lib.format.open_memmap(repeated, "w+", images.dtype, (number, *images.shape[1:]))
    for start in range(0, number, len(images)):
        out[start : start + len(images)] = images[: number - start]
    return repeated
