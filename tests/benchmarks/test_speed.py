"""The arithmetic of the speed benchmark and of its tables; nothing here depends on a clock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu
from benchmarks.speed.__main__ import main as speed
from benchmarks.speed.__main__ import table
from benchmarks.speed.inference import nothing_measured
from benchmarks.speed.pairs import Pair, in_turn
from benchmarks.tables import load, rendered, save
from earteach import checkpoint
from earteach.inference.reconstruct import reconstruct


def test_both_sides_are_called_in_turn():
    calls: list[str] = []
    pair = in_turn(lambda: calls.append("ours"), lambda: calls.append("other"), turns=3)
    assert calls == ["ours", "other"] * 4  # the first of each is not counted
    assert len(pair.ours) == len(pair.other) == 3


def test_a_saved_table_is_shown_in_a_page(tmp_path: Path):
    """Ratios are of medians, and are compared with their targets."""
    pair = Pair((1.0, 9.0, 2.0), (4.0, 5.0, 0.1))
    rows = [
        pair.row("a step", "at most", 0.49, "another"),
        pair.throughput("loading", 8000, 2, "another"),
    ]
    save(tmp_path / "speed.json", {"speed": table(rows, threads=1)})
    page = "before\n<!-- table: speed -->\nold\n<!-- end of table -->\nafter\n"
    text = rendered(page, load(tmp_path))
    assert "| a step | 2 | 4 | s | 0.50 | at most 0.49 | missed | another |" in text
    assert "| loading | 4,000 | 2,000 | images/s | 2.00 | at least 2 | met | another |" in text
    assert "old" not in text
    assert rendered(text, load(tmp_path)) == text


def test_commands_run_without_metrics_and_pictures(trained, ears, tmp_path):
    with nothing_measured():
        result = reconstruct(trained.last, [ears / "val_teacher.npy"], tmp_path / "out")
    assert {image.psnr for image in result.images} == {0.0}
    assert not list((tmp_path / "out").glob("*.png"))


def test_an_unknown_part_is_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["speed", "--only", "network,engine"])
    with pytest.raises(SystemExit, match="--only engine: parts are startup, loop, network"):
        speed()


@pytest.mark.slow
def test_the_gpu_benchmark_runs_small_on_a_cpu(monkeypatch, capsys):
    options = "--sizes 32 --batches 2 3 --precisions 32 bf16 --base-channels 4 --seconds 0.05"
    monkeypatch.setattr(sys, "argv", ["gpu", *options.split(), "--workers", "0"])
    gpu.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "| 32 |" in line]
    assert [row[1:3] for row in rows] == [[b, p] for b in "23" for p in ("32", "bf16")]
    assert all(float(cell.strip("| ")) > 0 for row in rows for cell in row[3:])


@pytest.mark.slow
def test_a_run_of_few_steps_stops_after_them(tmp_path: Path):
    for name, count in (("train", 256), ("val", 8)):
        np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", np.uint8, (count, 32, 32, 3))
    arguments = [str(tmp_path / name) for name in ("train.npy", "val.npy", "out")]
    command = [sys.executable, "-m", "benchmarks.speed.few_steps", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert float(ran.stdout) > 0  # when the first step began
    last = checkpoint.last(tmp_path / "out" / "checkpoints")
    assert checkpoint.find(last).global_step < 256 // 8
