"""What a GPU makes of training: images a second, utilisation, the loader's headroom, memory.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --sizes 64 --batches 8 --precisions bf16 --base-channels 8   # on a CPU

Each line is one setting of the network: steps as `earteach train` takes them, on images that lie on
the device. Utilisation is the network's multiplications and additions, three times a forward pass's,
beside what the device reaches in a product of large matrices of the same type, measured here.
Headroom is the images a second that the loader gives, workers and augmentation included, divided by
those that the steps take: below 1 the device waits.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.network import descend, follow
from benchmarks.speed.pairs import peak_megabytes
from earteach.config import TrainConfig
from earteach.data.arrays import EarArray
from earteach.data.loaders import training_loader
from earteach.images import to_float
from earteach.model.loss import dissimilarity, vae_loss
from earteach.model.summary import summarise
from earteach.model.vae import EarVAE

TYPES = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
_HEADING = ("size", "batch", "precision", "images/s", "utilisation", "headroom", "memory")


@dataclass(frozen=True)
class Result:
    """One setting; `memory` in MB is the device's, or on a CPU this process's peak so far."""

    size: int
    batch: int
    precision: str
    images_per_second: float
    utilisation: float
    headroom: float
    memory: float

    def line(self) -> tuple[str, ...]:
        return (
            str(self.size), str(self.batch), self.precision, f"{self.images_per_second:.0f}",
            f"{self.utilisation:.0%}", f"{self.headroom:.1f}", f"{self.memory:.0f} MB",
        )  # fmt: skip


def main() -> None:
    arguments = _arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    results = []
    for size, batch in itertools.product(arguments.sizes, arguments.batches):
        loaded = _loader_speed(arguments, size, batch)
        for precision in arguments.precisions:
            try:
                results.append(_measure(arguments, device, size, batch, precision, loaded))
            except torch.OutOfMemoryError:
                print(f"{size} px, batches of {batch}, {precision}: out of memory", file=sys.stderr)
                continue
            print(" ".join(results[-1].line()), file=sys.stderr, flush=True)
    _show(results, device, arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    small = not torch.cuda.is_available()
    add = parser.add_argument
    add("--sizes", type=int, nargs="+", default=[64] if small else [64, 128, 256])
    add("--batches", type=int, nargs="+", default=[8] if small else [8, 32, 128])
    add("--precisions", nargs="+", choices=TYPES, default=["bf16"] if small else list(TYPES))
    add("--base-channels", type=int, default=16 if small else 64)
    add("--workers", type=int, default=4)
    add("--seconds", type=float, default=1 if small else 5, help="for each figure")
    return parser.parse_args()


def _measure(
    arguments: argparse.Namespace,
    device: torch.device,
    size: int,
    batch: int,
    precision: str,
    loaded: float,
) -> Result:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    model = EarVAE(base_channels=arguments.base_channels, image_size=size).to(device)
    step = _step(model, device, batch, precision)
    rate = batch * _per_second(step, device, arguments.seconds)
    work = 3 * 2 * summarise(model).multiply_adds
    on_gpu = device.type == "cuda"
    memory = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_megabytes()
    peak = _product_speed(device, precision, arguments.seconds)
    return Result(size, batch, precision, rate, rate * work / peak, loaded / rate, memory)


def _step(model: EarVAE, device: torch.device, batch: int, precision: str) -> Callable[[], None]:
    """A training step on images that lie on the device as bytes, as the loader's do once there."""
    averaged = EarVAE(base_channels=model.base_channels, image_size=model.image_size).to(device)
    if device.type == "cuda":
        model.to(memory_format=torch.channels_last)
        averaged.to(memory_format=torch.channels_last)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "16" and device.type == "cuda")
    optimizer = torch.optim.AdamW(model.parameters(), fused=not scaler.is_enabled())
    shape = (batch, model.in_channels, model.image_size, model.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    reduced = TYPES["bf16"] if device.type == "cpu" and precision == "16" else TYPES[precision]

    def step() -> None:
        given = to_float(images)
        with torch.autocast(device.type, dtype=reduced, enabled=precision != "32"):
            noise = torch.randn(batch, model.latent_dim, device=device)
            seen, mu, logvar = model(given, noise)
            terms = vae_loss(seen, given, mu, logvar, weight=0.00025, reduction="mean")
            loss = terms.total + 0.02 * dissimilarity(seen, given).mean()
        if scaler.is_enabled():
            optimizer.zero_grad()
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
        else:
            descend(model, optimizer, loss)
        follow(averaged, model)

    return step


def _per_second(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Calls a second, after three that are not counted."""
    for _ in range(3):
        call()
    _finish(device)
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(5):
            call()
        _finish(device)
        calls += 5
    return calls / (time.perf_counter() - began)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _product_speed(device: torch.device, precision: str, seconds: float) -> float:
    """Floating-point operations a second in a product of large matrices."""
    side = 8192 if device.type == "cuda" else 1024
    reduced = TYPES["bf16"] if device.type == "cpu" and precision == "16" else TYPES[precision]
    matrix = torch.randn(side, side, device=device, dtype=reduced)
    return 2.0 * side**3 * _per_second(lambda: matrix @ matrix, device, seconds)


def _loader_speed(arguments: argparse.Namespace, size: int, batch: int) -> float:
    """Images a second of the training loader with its default augmentation."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ears.npy"
        rng = np.random.default_rng(0)
        np.save(path, rng.integers(0, 256, (max(512, 8 * batch), size, size, 3), dtype=np.uint8))
        config = TrainConfig().with_options(
            {"image_size": size, "batch_size": batch, "num_workers": arguments.workers}
        )
        loader = training_loader(config, EarArray.open(path))
        _ = sum(1 for _ in loader)  # starts the workers
        began, images = time.perf_counter(), 0
        while time.perf_counter() - began < arguments.seconds:
            images += sum(len(seen["input"]) for seen in loader)
        return images / (time.perf_counter() - began)


def _show(results: list[Result], device: torch.device, arguments: argparse.Namespace) -> None:
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "CPU"
    print(
        f"{name}, torch {torch.__version__}, base channels {arguments.base_channels}, "
        f"{arguments.workers} workers"
    )
    lines = [_HEADING, *(result.line() for result in results)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(_HEADING))]
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


if __name__ == "__main__":
    main()
