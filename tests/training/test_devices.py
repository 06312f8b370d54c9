"""Two processes train together, and validate as one would."""

from __future__ import annotations

import json
import math
import signal

import pytest
import torch

from earteach import checkpoint
from tests.conftest import TINY_RUN, data_options, earteach, earteach_process, run_options

EPOCHS = 6
OPTIONS = [*TINY_RUN, "--epochs", EPOCHS]
TWO = ["--accelerator", "cpu", "--devices", 2, "--strategy", "ddp"]


@pytest.fixture(scope="module")
def two(ears, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    process = earteach_process(
        "train", *data_options(ears), *run_options(folder), *OPTIONS, *TWO, "--json", cwd=folder
    )
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    # One object: the second process is silent. (What torch 2.10 prints of Gloo is not ours.)
    (line,) = (line for line in out.splitlines() if not line.startswith("[Gloo]"))
    result = json.loads(line)
    assert result["epochs_completed"] == EPOCHS
    return folder


def test_each_process_takes_half_of_the_steps(ears, two):
    # 41 images: 21 for each of the two, in batches of 8.
    assert checkpoint.read(two / "checkpoints" / "last.ckpt").global_step == EPOCHS * math.ceil(
        21 / 8
    )


def test_validation_counts_every_image_once(ears, two):
    """Seven images over two processes: padding one of them twice would change the means.

    SSIM is torchmetrics' in training, which rounds more than that of `eval`.
    """
    last = two / "checkpoints" / "last.ckpt"
    logged = checkpoint.read(last).about["metrics"]
    alone = earteach("eval", last, "--no-baselines", "--json").json["metrics"]
    for name in ("loss", "recon_loss", "kld", "ssim", "psnr"):
        assert logged[f"val/{name}"] == pytest.approx(alone[name], rel=1e-5), name


def test_one_record_for_each_epoch(two):
    lines = (two / "logs" / "ear_vae" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(EPOCHS))


def test_stopped_together_they_go_on_as_if_nothing_had_happened(ears, two, tmp_path):
    """SIGTERM reaches the first process alone; both keep the same step and end."""
    process = earteach_process(
        "train", *data_options(ears), *run_options(tmp_path), *OPTIONS, *TWO, cwd=tmp_path
    )
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("epoch 1"))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    last = tmp_path / "checkpoints" / "last.ckpt"
    stopped = checkpoint.read(last)
    assert process.returncode == 128 + signal.SIGTERM
    assert 1 <= stopped.epochs_completed < EPOCHS
    resumed = earteach_process("resume", last, cwd=tmp_path)
    _, err = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, err
    whole, pieces = (
        checkpoint.read(path).state for path in (two / "checkpoints" / "last.ckpt", last)
    )
    assert whole["global_step"] == pieces["global_step"] > stopped.global_step
    assert whole["train_sums"] == pieces["train_sums"]
    for name, weight in whole["state_dict"].items():
        assert torch.equal(weight, pieces["state_dict"][name]), name


def test_shares_of_unequal_numbers_of_batches_are_validated(ears, tmp_path):
    """Seven images in batches of three: two of the first process and one of the second."""
    process = earteach_process(
        "train", *data_options(ears), *run_options(tmp_path), *OPTIONS, *TWO,
        "--batch-size", 3, "--epochs", 1, cwd=tmp_path,
    )  # fmt: skip
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert checkpoint.read(tmp_path / "checkpoints" / "last.ckpt").epochs_completed == 1


def test_the_plan_counts_the_steps_of_each_device(ears):
    for more, each in (([], 6), (TWO, 3), ([*TWO, "--num-nodes", 2], 2)):
        planned = earteach("train", *data_options(ears), *TINY_RUN, *more, "--dry-run", "--json")
        assert planned.json["steps_per_epoch"] == each
