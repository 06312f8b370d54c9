"""Two processes train together, and validate as one would."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import pytest

from earteach import checkpoint
from tests.conftest import TINY_RUN, data_options, earteach, earteach_process, run_options
from tests.training.test_exact_resume import equal

EPOCHS = 3
OPTIONS = [*TINY_RUN, "--epochs", EPOCHS]
TWO = ["--accelerator", "cpu", "--devices", 2, "--strategy", "ddp"]


def completed(folder: Path, *args: object) -> str:
    process = earteach_process(*args, cwd=folder)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out


def train_options(ears: Path, folder: Path) -> list[object]:
    return ["train", *data_options(ears), *run_options(folder), *OPTIONS, *TWO]


@pytest.fixture(scope="module")
def two(ears: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Batches of 3: of the seven validation images one process has two batches, the other one."""
    folder = tmp_path_factory.mktemp("two")
    out = completed(folder, *train_options(ears, folder), "--batch-size", 3, "--json")
    # One object: the second process is silent. (torch 2.10 itself prints lines about Gloo.)
    (line,) = (line for line in out.splitlines() if not line.startswith("[Gloo]"))
    assert json.loads(line)["epochs_completed"] == EPOCHS
    return folder


@pytest.mark.slow
def test_validation_counts_every_image_once(two):
    """Seven images over two processes: padded with one that is there twice, means would differ.

    SSIM is torchmetrics' in training, which rounds more than that of `eval`.
    """
    last = checkpoint.read(two / "checkpoints" / "last.ckpt")
    # 41 training images are 21 for each of the two.
    assert last.global_step == EPOCHS * math.ceil(21 / 3)
    alone = earteach("eval", last.path, "--no-baselines", "--json").json["metrics"]
    for name in ("loss", "recon_loss", "kld", "psnr", "ssim"):
        logged, rel = last.about["metrics"][f"val/{name}"], 1e-4 if name == "ssim" else 1e-5
        assert logged == pytest.approx(alone[name], rel=rel), name
    lines = (two / "logs" / "ear_vae" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(EPOCHS))


@pytest.mark.slow
def test_stopped_together_they_resume_exactly(ears, two, tmp_path):
    """SIGTERM reaches the first process alone; both save the same step and end."""
    process = earteach_process(*train_options(ears, tmp_path), "--batch-size", 3, cwd=tmp_path)
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("epoch 1"))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    last = tmp_path / "checkpoints" / "last.ckpt"
    stopped = checkpoint.read(last)
    assert process.returncode == 128 + signal.SIGTERM
    assert 1 <= stopped.epochs_completed < EPOCHS
    completed(tmp_path, "resume", last)
    whole, pieces = (
        checkpoint.read(path).state for path in (two / "checkpoints" / "last.ckpt", last)
    )
    assert pieces["global_step"] > stopped.global_step
    for key in ("global_step", "train_sums", "state_dict", "optimizer_states"):
        assert equal(whole[key], pieces[key]), key


def test_the_plan_counts_the_steps_of_each_device(ears):
    for more, each in (([], 6), (TWO, 3), ([*TWO, "--num-nodes", 2], 2)):
        planned = earteach("train", *data_options(ears), *TINY_RUN, *more, "--dry-run", "--json")
        assert planned.json["steps_per_epoch"] == each
