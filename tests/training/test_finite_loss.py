"""A loss that is no number ends the run in one line and leaves its last good checkpoint."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from earteach import checkpoint
from earteach.training.lightning_module import EarVAELightning
from tests.conftest import TINY, Result, data_options, earteach, run_options, slow

STEPS = 6  # of 8 images each, with 41 in all


def train(ears: Path, folder: Path, *more: object) -> Result:
    return earteach(
        "train", *data_options(ears), *run_options(folder), *TINY, "--batch-size", 8,
        "--num-workers", 0, "--epochs", 3, "--accelerator", "cpu", *more,
    )  # fmt: skip


@pytest.fixture
def spoil(monkeypatch):
    """Make the loss of one step (from 1, over the whole run) a given value; gives all batches."""

    def at(step: int, value: float) -> list[list[int]]:
        original, batches = EarVAELightning.training_step, []

        def spoiled(module: EarVAELightning, batch: Any, batch_idx: int) -> torch.Tensor:
            batches.append(batch["index"].tolist())
            loss = original(module, batch, batch_idx)
            return loss * value if len(batches) == step else loss

        monkeypatch.setattr(EarVAELightning, "training_step", spoiled)
        return batches

    return at


@pytest.mark.parametrize(
    ("step", "value"),
    [(1, math.nan), slow(STEPS, math.inf), slow(STEPS + 3, math.nan)],
)
def test_the_run_stops_at_that_step(ears, tmp_path, spoil, step, value):
    batches = spoil(step, value)
    result = train(ears, tmp_path)
    epoch = (step - 1) // STEPS + 1
    assert result.code == 1
    assert len(batches) == step
    (line,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    listed = ", ".join(map(str, batches[-1]))
    assert f"the loss is {value} in epoch {epoch}, step {step} (images {listed})" in line
    assert "earteach inspect-data" in line


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_last_good_checkpoint_stays(ears, tmp_path, spoil, monkeypatch, device):
    """Though a GPU is not asked for the loss of each step."""
    if device == "gpu":
        monkeypatch.setattr(EarVAELightning, "on_train_batch_end", lambda *_: None)
    spoil(STEPS + 3, math.nan)
    assert train(ears, tmp_path, "--checkpoint-every-n-steps", 1).code == 1
    last = checkpoint.read(checkpoint.last(tmp_path / "checkpoints"))
    assert (last.epochs_completed, last.global_step) == (1, STEPS + 2)
    assert all(weight.isfinite().all() for weight in last.model().parameters())


def test_a_gpu_stops_before_validation(ears, tmp_path, spoil, monkeypatch):
    monkeypatch.setattr(EarVAELightning, "on_train_batch_end", lambda *_: None)
    batches = spoil(2, math.nan)
    result = train(ears, tmp_path)
    assert result.code == 1
    assert len(batches) == STEPS
    assert f"error: the loss is nan in epoch 1, step {STEPS}; the last" in result.err
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (["--learning-rate", 0.5], "try --learning-rate 0.05"),
        slow(["--precision", "16"], "try --precision bf16 or 32"),
        ([], "look at the images with `earteach inspect-data`"),
    ],
)
def test_the_advice_fits_the_run(ears, tmp_path, spoil, options, advice):
    spoil(1, float("nan"))
    result = train(ears, tmp_path, *options)
    assert result.code == 1
    assert advice in result.err
