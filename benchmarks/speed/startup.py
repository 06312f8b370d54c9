"""Run time of commands beside bare scripts with the same imports and work."""

from __future__ import annotations

import compileall
import sys
from collections.abc import Iterator
from pathlib import Path

import earteach
from benchmarks.speed.pairs import Row, processes_in_turn
from benchmarks.speed.workspace import drawn_ears, trained
from earteach import checkpoint


def rows(workspace: Path) -> Iterator[Row]:
    # pip compiles a package when it installs it; a checkout compiles it at its first start.
    compileall.compile_dir(Path(earteach.__file__).parent, quiet=1)
    yield processes_in_turn(
        [sys.executable, "-m", "earteach", "--help"],
        [sys.executable, "-c", "import typer, rich"],
        turns=15,
    ).row("`earteach --help`", "at most", 3, "import typer, rich")
    best = str(checkpoint.best(trained(workspace)))
    bare = [sys.executable, str(Path(__file__).with_name("bare.py"))]
    decode = [*bare, "decode", best, str(workspace / "bare.pt")]
    ears = str(drawn_ears(workspace) / "val_teacher.npy")
    commands = {
        "sample -n 8": ["sample", best, "-n", "8", "--out", str(workspace / "new")],
        "reconstruct -n 8": [
            "reconstruct", best, "-n", "8", "--input", ears, "--out", str(workspace / "pictures"),
        ],
        "export --format safetensors": [
            "export", best, "--format", "safetensors", "--out", str(workspace / "weights"),
        ],
    }  # fmt: skip
    for name, command in commands.items():
        ours = [sys.executable, "-m", "earteach", *command]
        pair = processes_in_turn(ours, decode, turns=3)
        yield pair.row(f"`earteach {name}`", "at most", 1.05, "bare script that decodes 8")
    onnx = ["export", best, "--format", "onnx", "--out", str(workspace / "ears.onnx")]
    exported = [*bare, "onnx", best, str(workspace / "bare.onnx")]
    pair = processes_in_turn([sys.executable, "-m", "earteach", *onnx], exported, turns=2)
    yield pair.row("`earteach export --format onnx`", "at most", 1.3, "bare export, run once")
