"""Speed and memory of training on a GPU: images per second, loader headroom, peak memory.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --sizes 64 --batches 8 --precisions bf16 --base-channels 8   # on a CPU

Each row is one setting. The steps are those of `earteach train`, on images that are already on the
device. Headroom is the loader's images per second divided by the steps': below 1, the device waits.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.network import descend, follow, training_loss
from benchmarks.speed.pairs import peak_megabytes
from benchmarks.tables import Cell, measured_now, processor
from earteach.config import ModelConfig, TrainConfig
from earteach.data.arrays import EarArray
from earteach.data.loaders import training_loader
from earteach.images import to_float
from earteach.model.build import build_model

TYPES = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
COLUMNS = {
    "image size": "", "batch size": "", "precision": "", "images/s": ".0f", "headroom": ".1f",
    "memory, MB": ".0f",
}  # fmt: skip


def main() -> None:
    arguments = _arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    rows = []
    for size, batch in itertools.product(arguments.sizes, arguments.batches):
        loaded = _loader_speed(arguments, size, batch)
        for precision in arguments.precisions:
            try:
                rows.append(_measure(arguments, device, size, batch, precision, loaded))
                print(*rows[-1], file=sys.stderr, flush=True)
            except torch.OutOfMemoryError:
                print(f"{size} px, batch size {batch}, {precision}: out of memory", file=sys.stderr)
    name = torch.cuda.get_device_name() if device.type == "cuda" else processor()
    machine = f"{name}, Python {platform.python_version()}, torch {torch.__version__}"
    command = shlex.join(["python", "-m", "benchmarks.gpu", *sys.argv[1:]])
    print(measured_now(COLUMNS, rows, command, machine).markdown())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    small = not torch.cuda.is_available()
    add = parser.add_argument
    add("--sizes", type=int, nargs="+", default=[64] if small else [64, 128, 256])
    add("--batches", type=int, nargs="+", default=[8] if small else [8, 32, 128])
    add("--precisions", nargs="+", choices=TYPES, default=["bf16"] if small else list(TYPES))
    add("--base-channels", type=int, default=16 if small else 64)
    add("--workers", type=int, default=4)
    add("--seconds", type=float, default=1 if small else 5, help="time per figure")
    return parser.parse_args()


def _measure(
    arguments: argparse.Namespace,
    device: torch.device,
    size: int,
    batch: int,
    precision: str,
    loaded: float,
) -> list[Cell]:
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    step = _step(arguments.base_channels, size, device, batch, precision)
    rate = batch * _per_second(step, on_gpu, arguments.seconds)
    memory = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_megabytes()
    return [str(size), str(batch), precision, rate, loaded / rate, memory]


def _step(
    base: int, size: int, device: torch.device, batch: int, precision: str
) -> Callable[[], None]:
    """A training step on uint8 images on the device."""
    config = ModelConfig(base_channels=base, image_size=size)
    models = [build_model(config).to(device) for _ in range(2)]
    if device.type == "cuda":
        models = [model.to(memory_format=torch.channels_last) for model in models]
    model, averaged = models
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "16" and device.type == "cuda")
    optimizer = torch.optim.AdamW(model.parameters(), fused=not scaler.is_enabled())
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
    reduced = TYPES["bf16"] if device.type == "cpu" and precision == "16" else TYPES[precision]

    def step() -> None:
        with torch.autocast(device.type, dtype=reduced, enabled=precision != "32"):
            loss = training_loss(model, to_float(images))
        descend(model, optimizer, loss, scaler)
        follow(averaged, model)

    return step


def _per_second(call: Callable[[], object], on_gpu: bool, seconds: float) -> float:
    """Calls per second, after three that are not counted."""
    finish: Callable[[], None] = torch.cuda.synchronize if on_gpu else lambda: None
    for _ in range(3):
        call()
    finish()
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(5):
            call()
        finish()
        calls += 5
    return calls / (time.perf_counter() - began)


def _loader_speed(arguments: argparse.Namespace, size: int, batch: int) -> float:
    """Images per second of the training loader with its default augmentation."""
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
            images += sum(len(batch["input"]) for batch in loader)
        return images / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
