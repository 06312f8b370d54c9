"""earteach through its own command, as a user would type it.

Its clock is the wall-clock of the whole process: imports, eigenears, validation and checkpoints are
in it. It sees the training array through a link in a folder of its own, so that what an earlier run
fitted and left beside the array saves it nothing. The curve comes from its checkpoints, which are kept
aside as they appear and measured when the run is over.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quality.settings import Settings, due_times
from earteach.config import HardwareConfig, ModelConfig, OptimConfig, RunConfig
from earteach.errors import EarTeachError

_POLL_SECONDS = 0.2
_TRAIN = "train.npy"
_METRICS = Path("logs/ear_vae/metrics.jsonl")


@dataclass(frozen=True)
class Kept:
    """A checkpoint of the running training, and when it was written, in seconds from the start."""

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


def train_command(settings: Settings, folder: Path) -> list[str]:
    """The arguments of `earteach`; options that have their default are left out."""
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
        ("--max-minutes", f"{settings.minutes:g}", None),
        ("--checkpoint-dir", folder / "checkpoints", None),
        ("--log-dir", folder / "logs", None),
    ]
    words = [
        word
        for flag, value, default in options
        if value is not None and value != default
        for word in (flag, str(value))
    ]
    return ["train", *words, *settings.earteach_options, "--json"]


def run(settings: Settings, folder: Path) -> Run:
    """Train in a process of its own and keep checkpoints of the curve's moments.

    Raises `EarTeachError` with the command's last line where it fails.
    """
    (folder / _TRAIN).symlink_to(settings.train.resolve())
    arguments = train_command(settings, folder)
    keeper = Keeper(folder / "checkpoints" / "last.ckpt", folder / "curve", due_times(settings))
    with (folder / "train.json").open("w") as out, (folder / "train.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "earteach", *arguments], stdout=out, stderr=log
        )
        try:
            while process.poll() is None:
                keeper.look()
                time.sleep(_POLL_SECONDS)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    keeper.look(final=True)
    if process.returncode:
        lines = (folder / "train.log").read_text(encoding="utf-8").strip().splitlines()
        raise EarTeachError(f"earteach train: {lines[-1] if lines else process.returncode}")
    return Run(
        command=shlex.join(["earteach", *arguments]),
        seconds=keeper.elapsed(),
        last=keeper.source,
        kept=tuple(keeper.kept),
        summary=json.loads((folder / "train.json").read_text(encoding="utf-8")),
        images_per_second=_images_per_second(folder / _METRICS),
    )


class Keeper:
    """Keeps a link to `last.ckpt` once for each due time, when the first checkpoint after it appears.

    The trainer replaces the file and never writes into it, so a link to it stays as it is.
    """

    def __init__(self, source: Path, folder: Path, due: Sequence[float]) -> None:
        self.source = source
        self.kept: list[Kept] = []
        self._folder = folder
        self._due = list(due)
        self.started = time.time()
        self._seen = 0.0
        folder.mkdir(parents=True, exist_ok=True)

    def elapsed(self) -> float:
        return time.time() - self.started

    def look(self, *, final: bool = False) -> None:
        """Keep the file if it is new and due; the final one is kept in any case."""
        try:
            written = self.source.stat().st_mtime
        except FileNotFoundError:
            return
        seconds = written - self.started
        is_due = any(moment <= seconds for moment in self._due)
        if written == self._seen or not (is_due or final):
            return
        self._seen = written
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
    """Mean over the epochs, validation not counted, from the run's own records."""
    if not path.exists():
        return None
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rates = [record["images_per_second"] for record in records]
    return sum(rates) / len(rates) if rates else None
