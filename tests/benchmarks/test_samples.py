"""The benchmark of new ears, from end to end on a few drawn ones."""

import json
import shutil
import sys

import numpy as np

from benchmarks import samples
from earteach.inference.sharpen import sharpen


def test_every_kind_of_ears_gets_a_row(trained, ears, tmp_path, monkeypatch):
    checkpoint = shutil.copy(trained.last, tmp_path / "ear.ckpt")
    sharpen(checkpoint, steps=2)
    saved = tmp_path / "table.json"
    typed = ["--checkpoint", str(checkpoint), "--number", "12"]
    # The larger array is compared with, so that there are two times twelve others.
    typed += ["--train", str(ears / "val_teacher.npy"), "--val", str(ears / "train_teacher.npy")]
    monkeypatch.setattr(sys, "argv", ["samples", *typed, "--save", str(saved)])
    samples.main()
    rows = {row[0]: row[1:] for row in json.loads(saved.read_text())["new-ears"]["rows"]}
    assert list(rows) == [
        "other ears", "their reconstructions", "their reconstructions by the second decoder",
        "training ears", "`gmm`, not sharpened", "`gmm`, sharpened",
        "`gmm`, sharpened, `--temperature 0.7`", "`blend`, sharpened", "`prior`",
    ]  # fmt: skip
    assert rows["`gmm`, sharpened"] != rows["`gmm`, not sharpened"]
    assert all(np.isfinite(row[:6]).all() for row in rows.values())
    assert rows["other ears"][-1] == 1
