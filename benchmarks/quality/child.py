"""One model in a process of its own: `python -m benchmarks.quality.child MODEL FOLDER`.

FOLDER holds `settings.json`; `row.json` and `sheet.npy` are written into it.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import earteach
from benchmarks.quality import command
from benchmarks.quality.sampling import (
    Sampler,
    from_command,
    from_mixture,
    from_prior,
    likeness,
)
from benchmarks.quality.scoring import (
    Codec,
    Point,
    open_arrays,
    real_ears,
    reconstructed,
    score_all,
    scores_to_dict,
    sheet_ears,
)
from benchmarks.quality.settings import ROW_FILE, SETTINGS_FILE, SHEET_FILE, Settings
from benchmarks.tables import processor
from earteach.data.arrays import EarArray
from earteach.errors import EarTeachError
from earteach.hardware import on_cpu

_log = logging.getLogger("benchmarks.quality")


@dataclass(frozen=True)
class Outcome:
    """A trained model.

    `parameters` counts values trained by gradient, `fitted` those from linear algebra or averages.
    """

    codec: Codec
    parameters: int
    fitted: int
    seconds: float
    images_per_second: float | None
    curve: Sequence[Point]
    samplers: Sequence[Sampler]
    facts: Mapping[str, Any] = field(default_factory=dict)


class Bench:
    """Settings, folder and validation arrays of a measurement."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.device = "cpu" if on_cpu(settings.accelerator) else "cuda"
        self.arrays = open_arrays(settings)

    def point(self, seconds: float, codec: Codec) -> Point:
        """A point of the curve."""
        most = self.settings.curve_images
        scores = score_all(codec, self.arrays, self.settings, most=most, device=self.device)
        shown = ", ".join(f"{name} {s.psnr:.2f} dB {s.ssim:.4f}" for name, s in scores.items())
        _log.info("%5.1f min: %s", seconds / 60, shown)
        return Point(seconds, scores)

    def prior(self, codec: Codec, latent_dim: int) -> Sampler:
        return from_prior(codec, latent_dim, self.settings.seed, self.device)


def run_pca(bench: Bench) -> Outcome:
    """PCA: a curve of one point, and the distance of real training ears as a reference."""
    from benchmarks.quality import linear

    fitted = linear.fit_eigenears(bench.settings)
    codec = fitted.codec
    bench.device = "cpu"
    train = {"train": EarArray.open(bench.settings.train)}
    return Outcome(
        codec=codec,
        parameters=0,
        fitted=codec.fitted,
        seconds=fitted.seconds,
        images_per_second=None,
        curve=[bench.point(fitted.seconds, codec)],
        samplers=[
            bench.prior(codec, codec.count),
            Sampler("training ears", lambda count: real_ears(train, bench.settings, count)),
        ],
        facts={"components": codec.count},
    )


def run_peer(bench: Bench, name: str) -> Outcome:
    """A peer, trained by the plain loop."""
    # Imports albumentations, which the other models do not need.
    from benchmarks.quality import peers

    curve: list[Point] = []
    settings = bench.settings
    start = peers.recipe(name, settings)
    trained = peers.train(
        start,
        settings,
        bench.device,
        lambda seconds, model: curve.append(bench.point(seconds, model)),
    )
    return Outcome(
        codec=trained.model,
        parameters=parameters(trained.model),
        fitted=buffers(trained.model),
        seconds=trained.seconds,
        images_per_second=trained.images / trained.seconds,
        curve=curve,
        samplers=[
            bench.prior(trained.model, settings.latent_dim),
            from_mixture(trained.model, settings, bench.device),
        ],
        facts={"steps": trained.steps, "learning_rate": start.learning_rate},
    )


def run_earteach(bench: Bench) -> Outcome:
    """earteach by its command; the last checkpoint is measured, because the peers choose no best."""
    settings = bench.settings
    run = command.run(settings, bench.folder)
    curve = []
    for kept in run.kept:
        curve.append(bench.point(kept.seconds, earteach.load(kept.path).to(bench.device)))
        kept.path.unlink()
    model = earteach.load(run.last).to(bench.device)
    return Outcome(
        codec=model,
        parameters=parameters(model),
        fitted=buffers(model),
        seconds=run.seconds,
        images_per_second=run.images_per_second,
        curve=curve,
        samplers=[
            bench.prior(model, settings.latent_dim),
            from_command(run.last, settings.seed, settings.accelerator),
        ],
        facts={
            "command": run.command,
            **{key: run.summary[key] for key in ("epochs_completed", "global_step", "stopped_by")},
        },
    )


RUNS: dict[str, Callable[[Bench], Outcome]] = {
    "pca": run_pca,
    "vae": lambda bench: run_peer(bench, "vae"),
    "autoencoderkl": lambda bench: run_peer(bench, "autoencoderkl"),
    "earteach": run_earteach,
}


def parameters(model: nn.Module) -> int:
    """Number of trained values."""
    return sum(parameter.numel() for parameter in model.parameters())


def buffers(model: nn.Module) -> int:
    """Number of stored values that are not trained."""
    return sum(buffer.numel() for buffer in model.buffers() if buffer.is_floating_point())


def measure(name: str, bench: Bench) -> dict[str, Any]:
    """Train and measure a model; returns its row of the results, in builtin values."""
    outcome = RUNS[name](bench)
    settings, arrays, device = bench.settings, bench.arrays, bench.device
    np.save(
        bench.folder / SHEET_FILE,
        reconstructed(outcome.codec, sheet_ears(arrays, settings), device),
    )
    _log.info("measuring on all validation images")
    scores = score_all(outcome.codec, arrays, settings, device=device)
    return {
        "model": name,
        "parameters": outcome.parameters,
        "fitted": outcome.fitted,
        "seconds": outcome.seconds,
        "images_per_second": outcome.images_per_second,
        "scores": scores_to_dict(scores),
        "samples": likenesses(outcome.samplers, bench),
        "curve": [
            {"seconds": p.seconds, "scores": scores_to_dict(p.scores)} for p in outcome.curve
        ],
        "facts": dict(outcome.facts),
        "machine": machine(device),
        "date": time.strftime("%Y-%m-%d"),
    }


def likenesses(samplers: Sequence[Sampler], bench: Bench) -> dict[str, dict[str, float]]:
    """How near each sampler's ears are to as many real ears of the validation arrays."""
    if not bench.settings.samples:
        return {}
    real = real_ears(bench.arrays, bench.settings, bench.settings.samples)
    measured = {}
    for sampler in samplers:
        _log.info("%d new ears: %s", len(real), sampler.name)
        try:
            measured[sampler.name] = likeness(sampler.draw(len(real)), real)
        except EarTeachError as error:  # keep the training's result
            _log.info("%s skipped: %s", sampler.name, error)
    return measured


def machine(device: str) -> dict[str, Any]:
    """The machine and the versions."""
    return {
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "earteach": earteach.__version__,
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The checkout's commit, marked if files differ; None outside a checkout."""
    root = Path(earteach.__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def main(arguments: Sequence[str]) -> int:
    """Exit code 0, or 1 after a one-line error."""
    name, folder = arguments[0], Path(arguments[1])
    logging.basicConfig(format=f"{name}: %(message)s", level=logging.INFO, stream=sys.stderr)
    settings = Settings.load(folder / SETTINGS_FILE)
    torch.set_num_threads(settings.threads)
    # A normal exit, so that `earteach train`, if it runs, ends too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        row = measure(name, Bench(settings, folder))
    except EarTeachError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    (folder / ROW_FILE).write_text(json.dumps(row), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
