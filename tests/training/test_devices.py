"""Two processes train together, and validate as one would."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from earteach import checkpoint
from tests.conftest import TINY_RUN, data_options, earteach, earteach_process, run_options

OPTIONS = [*TINY_RUN, "--epochs", 2]
TWO = ["--accelerator", "cpu", "--devices", 2, "--strategy", "ddp"]


@pytest.fixture(scope="module")
def two(ears: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    process = earteach_process(
        "train", *data_options(ears), *run_options(folder), *OPTIONS, *TWO, "--json", cwd=folder
    )
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    result = json.loads(out)  # one object: the second process is silent
    assert result["epochs_completed"] == 2
    return folder


def test_each_process_takes_half_of_the_steps(ears: Path, two: Path) -> None:
    # 41 images: 21 for each of the two, in batches of 8.
    assert checkpoint.read(two / "checkpoints" / "last.ckpt").global_step == 2 * math.ceil(21 / 8)


def test_validation_counts_every_image_once(ears: Path, two: Path) -> None:
    """Seven images over two processes: padding one of them twice would change the means."""
    last = two / "checkpoints" / "last.ckpt"
    logged = checkpoint.read(last).about["metrics"]
    alone = earteach("eval", last, "--no-baselines", "--json").json["metrics"]
    for name in ("loss", "recon_loss", "kld", "ssim", "psnr"):
        assert logged[f"val/{name}"] == pytest.approx(alone[name], rel=1e-6), name


def test_one_record_for_each_epoch(two: Path) -> None:
    lines = (two / "logs" / "ear_vae" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1]
