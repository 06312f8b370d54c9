"""earteach as a user runs it, through its command.

The clock covers the whole process: imports, PCA, validation and checkpoints. The training array is
reached through a link in a folder of its own, so that no cached PCA saves time. Checkpoints are linked
as they appear and measured after the run, for the curve.

A short run on a few images shows how long an epoch takes, and so how many epochs fit into the time.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.settings import Settings, due_times
from earteach.config import HardwareConfig, ModelConfig, OptimConfig, RunConfig
from earteach.errors import EarTeachError

_POLL_SECONDS = 0.2
_PROBE_IMAGES = {"train": 2048, "val": 256}
_TRAIN = "train.npy"
_METRICS = Path("logs/ear_vae/metrics.jsonl")


@dataclass(frozen=True)
class Kept:
    """A checkpoint, and when it was written, in seconds from the start."""

    seconds: float
    path: Path


@dataclass(frozen=True)
class Run:
    """A finished training. `summary` is what the command printed as JSON."""

    command: str
    seconds: float
    last: Path
    kept: tuple[Kept, ...]
    summary: dict[str, Any]
    images_per_second: float | None


def train_command(settings: Settings, folder: Path, epochs: int) -> list[str]:
    """The arguments of `earteach`, without options that have their defaults."""
    hardware, optim, model = HardwareConfig(), OptimConfig(), ModelConfig()
    options: list[tuple[str, Any, Any]] = [
        ("--train-data", folder / _TRAIN, None),
        ("--val-data", next(iter(settings.val.values())), None),
        ("--image-size", settings.image_size, model.image_size),
        ("--latent-dim", settings.latent_dim, model.latent_dim),
        ("--base-channels", settings.base_channels, model.base_channels),
        ("--batch-size", settings.batch_size, optim.batch_size),
        ("--precision", settings.precision, hardware.precision),
        ("--accelerator", settings.accelerator, "auto"),
        ("--num-workers", settings.workers, None),
        ("--seed", settings.seed, RunConfig().seed),
        ("--epochs", epochs, None),
        ("--checkpoint-dir", folder / "checkpoints", None),
        ("--log-dir", folder / "logs", None),
        ("--sharpen-steps", 0, None),  # the peers' minutes are for reconstructing alone
    ]
    words = [
        word
        for flag, value, default in options
        if value is not None and value != default
        for word in (flag, str(value))
    ]
    return ["train", *words, *settings.earteach_options, "--json"]


def run(settings: Settings, folder: Path) -> Run:
    """Train in a process of its own and keep checkpoints for the curve.

    Raises `EarTeachError` with the command's last line if it fails.
    """
    (folder / _TRAIN).symlink_to(settings.train.resolve())
    arguments = train_command(settings, folder, epochs_within(settings, folder / "probe"))
    keeper = Keeper(folder / "checkpoints" / "last.ckpt", folder / "curve", due_times(settings))
    summary = _run_json(arguments, folder, keeper.look)
    keeper.look(final=True)
    return Run(
        command=shlex.join(["earteach", *arguments]),
        seconds=keeper.elapsed(),
        last=keeper.source,
        kept=tuple(keeper.kept),
        summary=summary,
        images_per_second=_images_per_second(folder / _METRICS),
    )


def _run_json(arguments: Sequence[str], folder: Path, look: Callable[[], None]) -> dict[str, Any]:
    """Run `earteach` and return its JSON; `look` is called while it runs."""
    with (folder / "train.json").open("w") as out, (folder / "train.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "earteach", *arguments], stdout=out, stderr=log
        )
        try:
            while process.poll() is None:
                look()
                time.sleep(_POLL_SECONDS)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode:
        lines = (folder / "train.log").read_text(encoding="utf-8").strip().splitlines()
        raise EarTeachError(f"earteach train: {lines[-1] if lines else process.returncode}")
    printed: dict[str, Any] = json.loads((folder / "train.json").read_text(encoding="utf-8"))
    return printed


def epochs_within(settings: Settings, folder: Path) -> int:
    """How many epochs fit into the time, estimated from one epoch on a few images."""
    images = {"train": settings.train, "val": next(iter(settings.val.values()))}
    counts = {name: len(np.load(path, mmap_mode="r")) for name, path in images.items()}
    folder.mkdir(parents=True)
    for name, path in images.items():
        few = np.load(path, mmap_mode="r")[: _PROBE_IMAGES[name]]
        np.save(folder / f"{name}.npy", few)
    few_settings = replace(settings, train=folder / "train.npy", val={"probe": folder / "val.npy"})
    began = time.time()
    _run_json(train_command(few_settings, folder, epochs=1), folder, lambda: None)
    took = time.time() - began
    record = json.loads((folder / _METRICS).read_text(encoding="utf-8"))
    rate = record["images_per_second"]
    trained, validated = (min(counts[name], _PROBE_IMAGES[name]) for name in ("train", "val"))
    validation = max(0.0, record["seconds"] - trained / rate) / validated
    start = (took - record["seconds"]) * max(1.0, counts["train"] / trained)
    epoch = counts["train"] / rate + counts["val"] * validation
    return max(1, int((settings.seconds - start) / epoch))


class Keeper:
    """Links the first `last.ckpt` after each due time.

    The trainer replaces the file and never writes into it, so the link keeps its content.
    """

    def __init__(self, source: Path, folder: Path, due: Sequence[float]) -> None:
        self.source = source
        self.kept: list[Kept] = []
        self._folder = folder
        self._due = list(due)
        self.started = time.time()
        self._latest = 0.0
        folder.mkdir(parents=True, exist_ok=True)

    def elapsed(self) -> float:
        return time.time() - self.started

    def look(self, *, final: bool = False) -> None:
        """Keep the file if it is new and due, or new and final."""
        try:
            written = self.source.stat().st_mtime
        except FileNotFoundError:
            return
        seconds = written - self.started
        is_due = any(moment <= seconds for moment in self._due)
        if written == self._latest or not (is_due or final):
            return
        self._latest = written
        self._due = [moment for moment in self._due if moment > seconds]
        self.kept.append(Kept(seconds, self._link()))

    def _link(self) -> Path:
        target = self._folder / f"{len(self.kept):03d}.ckpt"
        try:
            os.link(self.source, target)
        except OSError:  # a file system without links
            shutil.copyfile(self.source, target)
        return target


def _images_per_second(path: Path) -> float | None:
    """Mean over the epochs without validation, from `metrics.jsonl`."""
    if not path.exists():
        return None
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rates = [record["images_per_second"] for record in records]
    return sum(rates) / len(rates) if rates else None
