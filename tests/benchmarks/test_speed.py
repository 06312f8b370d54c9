"""The speed benchmark's arithmetic, and that its commands run; nothing here looks at a clock."""

from __future__ import annotations

import sys

import pytest

from benchmarks import gpu
from benchmarks.speed.__main__ import main as speed
from benchmarks.speed.pairs import Pair, Row, in_turn


def test_both_sides_are_called_in_turn():
    called: list[str] = []
    pair = in_turn(lambda: called.append("ours"), lambda: called.append("other"), turns=3)
    assert called == ["ours", "other"] * 4  # the first of each is not counted
    assert len(pair.ours) == len(pair.other) == 3


def test_a_ratio_is_of_medians_and_held_against_its_bound():
    pair = Pair((1.0, 9.0, 2.0), (4.0, 5.0, 0.1))
    row = pair.row("a step", "at most", 0.5, "another")
    assert (row.ours, row.other, row.ratio, row.met) == (2.0, 4.0, 0.5, True)
    assert not pair.row("a step", "at most", 0.49, "another").met
    fast = pair.throughput("loading", 8, 2, "another")
    assert (fast.ours, fast.other, fast.ratio, fast.met) == (4.0, 2.0, 2.0, True)
    assert not Row("loading", 4.0, 2.0, "images/s", "at least", 2.1, "another").met


def test_an_unknown_part_is_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["speed", "--only", "network,engine"])
    with pytest.raises(SystemExit, match="--only engine: parts are startup, loop, network"):
        speed()


def test_the_gpu_benchmark_runs_small_on_a_cpu(monkeypatch, capsys):
    options = "--sizes 32 --batches 2 3 --precisions 32 bf16 --base-channels 4 --seconds 0.05"
    monkeypatch.setattr(sys, "argv", ["gpu", *options.split(), "--workers", "0"])
    gpu.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == list(gpu._HEADING)
    settings = [tuple(line.split()[:3]) for line in lines[2:]]
    assert settings == [("32", b, p) for b in "23" for p in ("32", "bf16")]
    for line in lines[2:]:
        assert float(line.split()[3]) > 0
        assert float(line.split()[4].rstrip("%")) > 0  # of two times, so over 100 by chance
