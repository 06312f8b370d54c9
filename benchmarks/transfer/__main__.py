"""How much a trained encoder helps a landmarker that has few labels.

    python -m benchmarks.transfer --checkpoint CKPT --without CKPT \\
        --landmarks ami=TRAIN.npy,TEST.npy --labels 10,50

The same head, steps and augmentation begin from the same architecture with random weights, from the
checkpoint (frozen, and fine-tuned), and from one trained with `--teach-weight 0`. Each takes the best of
the same three learning rates for its backbone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.tables import Table, measured_now, processor, save
from benchmarks.transfer.landmarks import STEPS, LabelledEars, choices, error, learn
from earteach import EarBackbone

RATES = (1e-4, 3e-4, 1e-3)
COLUMNS = {
    "landmarks": "", "labels": ".0f", "from noise": ".2f", "frozen": ".2f", "fine-tuned": ".2f",
    "without teaching": ".2f",
}  # fmt: skip


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="a network trained with teaching")
    add("--without", type=Path, help="one trained with --teach-weight 0")
    add(
        "--landmarks", action="append", required=True, metavar="NAME=TRAIN,TEST",
        help="arrays of labelled ears, to learn from and of other people; repeatable",
    )  # fmt: skip
    add("--labels", default="10,50", help="numbers of labelled ears (%(default)s)")
    add("--seeds", type=int, default=3, help="choices of the labelled ears (%(default)s)")
    add("--steps", type=int, default=STEPS, help="steps of each landmarker (%(default)s)")
    add("--save", type=Path, help="JSON file that keeps the table, for the docs")
    return parser.parse_args(arguments)


def starts(options: argparse.Namespace) -> dict[str, tuple[Path, dict[str, object]]]:
    """By column: the checkpoint, and how its backbone is made."""
    taught: dict[str, object] = {"fpn": "trained"}
    found = {
        "from noise": (options.checkpoint, {**taught, "weights": False, "frozen": False}),
        "frozen": (options.checkpoint, {**taught, "frozen": True}),
        "fine-tuned": (options.checkpoint, {**taught, "frozen": False}),
    }
    if options.without:
        found["without teaching"] = (options.without, {"fpn": 32, "frozen": False})
    return found


def mean_error(
    start: tuple[Path, dict[str, object]],
    train: LabelledEars,
    test: LabelledEars,
    labels: int,
    options: argparse.Namespace,
) -> float:
    """The mean over seeds, at the best learning rate of the backbone."""
    path, how = start
    means = []
    for rate in RATES[:1] if how["frozen"] else RATES:
        errors = []
        for seed, rows in choices(len(train), labels, options.seeds):
            torch.manual_seed(seed)  # for random weights
            backbone = EarBackbone.from_checkpoint(path, **how)  # type: ignore[arg-type]
            model = learn(
                backbone, train.rows(rows), backbone_rate=rate, seed=seed, steps=options.steps
            )
            errors.append(error(model, test))
        means.append(fmean(errors))
        spread = ", ".join(f"{value:.2f}" for value in errors)
        print(f"  backbone rate {rate:g}: {spread}", file=sys.stderr, flush=True)
    return min(means)


def rows(options: argparse.Namespace) -> Iterator[list[str | float | None]]:
    columns = starts(options)
    for named in options.landmarks:
        name, _, arrays = named.partition("=")
        train, test = (LabelledEars.read(Path(path)) for path in arrays.split(","))
        for labels in map(int, options.labels.split(",")):
            row: list[str | float | None] = [name, labels]
            for column in list(COLUMNS)[2:]:
                print(f"{name}, {labels} labels, {column}", file=sys.stderr, flush=True)
                start = columns.get(column)
                row.append(start and mean_error(start, train, test, labels, options))
            yield row


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    machine = f"{torch.get_num_threads()} threads of {processor()}"
    command = "python -m benchmarks.transfer"
    table: Table = measured_now(COLUMNS, list(rows(options)), command, machine)
    print(table.markdown())
    if options.save:
        save(options.save, {"transfer-landmarks": table})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
