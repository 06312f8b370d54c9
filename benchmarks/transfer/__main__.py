"""How much a trained encoder helps a landmarker or detector that has few labels.

    python -m benchmarks.transfer --checkpoint CKPT --without CKPT \\
        --landmarks ami=TRAIN.npy,TEST.npy --labels 10,50
    python -m benchmarks.transfer --checkpoint CKPT --without CKPT \\
        --scenes PHOTOGRAPHS,BOXES --photographs 50,250,600

The same head, steps and augmentation begin from the same architecture with random weights, from the
checkpoint (frozen, and fine-tuned), and from one trained with `--teach-weight 0`. Each takes the best of
the same three learning rates for its backbone. The detector is that of docs/examples/detector.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.tables import Table, measured_now, processor, save
from benchmarks.transfer.landmarks import STEPS, LabelledEars, choices, error, learn
from docs.examples import detector
from earteach import EarBackbone

RATES = (1e-4, 3e-4, 1e-3)
STARTS = ("from noise", "frozen", "fine-tuned", "without teaching")
LANDMARKS = {"landmarks": "", "labels": ".0f", **dict.fromkeys(STARTS, ".2f")}
DETECTION = {"photographs": ".0f", "steps": ".0f", **dict.fromkeys(STARTS, "")}
# A backbone, given the strides.
Backbone = Callable[..., EarBackbone]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="a network trained with teaching")
    add("--without", type=Path, help="one trained with --teach-weight 0")
    add(
        "--landmarks", action="append", default=[], metavar="NAME=TRAIN,TEST",
        help="arrays of labelled ears, to learn from and of other people; repeatable",
    )  # fmt: skip
    add("--labels", default="10,50", help="numbers of labelled ears (%(default)s)")
    add("--scenes", metavar="FOLDER,BOXES", help="photographs, and the boxes of the ears in them")
    add("--photographs", default="50", help="numbers to train a detector on (%(default)s)")
    add("--starts", nargs="+", choices=STARTS, default=STARTS)
    add("--rates", nargs="+", type=float, default=RATES, help="learning rates of the backbone")
    add("--seeds", type=int, default=3, help="choices of the labels (%(default)s)")
    add("--steps", type=int, default=STEPS, help="steps of each training (%(default)s)")
    add("--save", type=Path, help="JSON file that keeps the tables, for the docs")
    return parser.parse_args(arguments)


def backbones(options: argparse.Namespace) -> dict[str, Backbone]:
    """By column, of those chosen: how its backbone is made."""

    def of(path: Path, **how: Any) -> Backbone:
        return lambda seed, **more: _seeded(seed, path, **how, **more)

    made = {
        "from noise": of(options.checkpoint, fpn="trained", weights=False, frozen=False),
        "frozen": of(options.checkpoint, fpn="trained", frozen=True),
        "fine-tuned": of(options.checkpoint, fpn="trained", frozen=False),
    }
    if options.without:
        made["without teaching"] = of(options.without, fpn=32, frozen=False)
    return {name: make for name, make in made.items() if name in options.starts}


def _seeded(seed: int, path: Path, **how: Any) -> EarBackbone:
    torch.manual_seed(seed)  # for random weights
    return EarBackbone.from_checkpoint(path, **how)


def rates_of(name: str, options: argparse.Namespace) -> Sequence[float]:
    return options.rates[:1] if name == "frozen" else options.rates


def landmark_rows(options: argparse.Namespace) -> Iterator[list[str | float | None]]:
    made = backbones(options)
    for named in options.landmarks:
        name, _, arrays = named.partition("=")
        train, test = (LabelledEars.read(Path(path)) for path in arrays.split(","))
        for labels in map(int, options.labels.split(",")):
            row: list[str | float | None] = [name, labels]
            for start in STARTS:
                errors = [
                    mean_error(made[start], train, test, labels, rate, options)
                    for rate in rates_of(start, options) if start in made
                ]  # fmt: skip
                row.append(min(errors, default=None))
                note(f"{name}, {labels} labels, {start}: {errors}")
            yield row


def mean_error(
    make: Backbone, train: LabelledEars, test: LabelledEars, labels: int, rate: float,
    options: argparse.Namespace,
) -> float:  # fmt: skip
    """The mean over choices of the labelled ears."""
    errors = []
    for seed, rows in choices(len(train), labels, options.seeds):
        model = learn(
            make(seed), train.rows(rows), backbone_rate=rate, seed=seed, steps=options.steps
        )
        errors.append(error(model, test))
    note("  " + ", ".join(f"{value:.2f}" for value in errors))
    return fmean(errors)


def detection_rows(options: argparse.Namespace) -> Iterator[list[str | float | None]]:
    """AP50 and AP by step, the mean over seeds, of the rate with the best last AP50."""
    made = backbones(options)
    folder, boxes = map(Path, options.scenes.split(","))
    train, test = detector.divided(detector.read_scenes(folder, boxes))
    for number in map(int, options.photographs.split(",")):
        curves: dict[str, dict[int, tuple[float, float]]] = {}
        for start, make in made.items():
            tried = [
                mean_precision(make, train[:number], test, rate, options)
                for rate in rates_of(start, options)
            ]
            curves[start] = max(tried, key=lambda curve: curve[options.steps][0])
            note(f"{number} photographs, {start}: {tried}")
        for step in next(iter(curves.values())):
            cells = [curves[start][step] if start in curves else None for start in STARTS]
            shown = [cell and f"{cell[0]:.1f} / {cell[1]:.1f}" for cell in cells]
            yield [number, step, *shown]


def mean_precision(
    make: Backbone, train: Sequence[detector.Scene], test: Sequence[detector.Scene], rate: float,
    options: argparse.Namespace,
) -> dict[int, tuple[float, float]]:  # fmt: skip
    """By step, AP50 and AP in %."""
    curves: dict[int, list[tuple[float, float]]] = {}
    for seed in range(options.seeds):
        model = detector.ear_detector(make(seed, strides=detector.STRIDES))
        for step, ap50, ap in detector.tested(
            model, train, test, steps=options.steps, every=max(1, options.steps // 3), rate=rate,
            seed=seed,
        ):  # fmt: skip
            curves.setdefault(step, []).append((ap50, ap))
            note(f"  step {step}: AP50 {ap50:.1f}, AP {ap:.1f}")
    return {
        step: (fmean(ap50 for ap50, _ in values), fmean(ap for _, ap in values))
        for step, values in curves.items()
    }


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    machine = f"{torch.get_num_threads()} threads of {processor()}"
    command = "python -m benchmarks.transfer"
    tables: dict[str, Table] = {}
    if options.landmarks:
        rows = list(landmark_rows(options))
        tables["transfer-landmarks"] = measured_now(LANDMARKS, rows, command, machine)
    if options.scenes:
        rows = list(detection_rows(options))
        tables["transfer-detection"] = measured_now(DETECTION, rows, command, machine)
    for table in tables.values():
        print(table.markdown())
    if options.save:
        save(options.save, tables)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
