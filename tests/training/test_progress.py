"""A run's time estimate and progress, by a clock that the test moves."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from earteach.cli.train import estimate_line
from earteach.config import ModelConfig, OptimConfig, TrainConfig
from earteach.runs import train
from earteach.training import progress
from earteach.training.fit import Watch
from earteach.training.progress import Progress, ProgressCallback, TimeEstimate, smaller_options
from tests.conftest import data_options

HOUR = 3600.0


@pytest.mark.slow
def test_the_estimate_and_the_progress_of_a_run(ears, tmp_path, monkeypatch):
    """Each step takes 3 s after two that take 100; nothing else takes any time."""
    now, steps, reports = 100.0, 0, []

    def batch_end(*args):
        nonlocal now, steps
        steps += 1
        now += 100 if steps <= 2 else 3
        return original(*args)

    original = ProgressCallback.on_train_batch_end
    monkeypatch.setattr(ProgressCallback, "on_train_batch_end", batch_end)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    _, train_data, _, val_data = data_options(ears)
    config = TrainConfig().with_options(
        {
            "train_data": Path(train_data), "val_data": Path(val_data), "image_size": 32,
            "base_channels": 2, "latent_dim": 4, "pca_init": False, "augmentation": "none",
            "batch_size": 2, "num_workers": 0, "checkpoint_dir": tmp_path / "checkpoints",
            "log_dir": tmp_path / "logs", "epochs": 2,
        }
    )  # fmt: skip
    add = reports.append
    train(config, watch=Watch(on_start=add, on_estimate=add, on_progress=add))
    plan = reports[0]
    images, unseen = plan.train_images, plan.val_images
    (estimate,) = (report for report in reports if isinstance(report, TimeEstimate))
    assert (estimate.steps, estimate.epochs, estimate.smaller) == (20, 2, {})
    assert estimate.images_per_second == pytest.approx(2 / 3)
    assert estimate.seconds == pytest.approx((2 * (images + unseen / 2) - 40) * 1.5)
    shown = [report for report in reports if isinstance(report, Progress)]
    training = [report for report in shown if report.phase == "training"]
    per_epoch = plan.steps_per_epoch
    assert [(report.epoch, report.step) for report in training] == [
        (epoch, step + 1) for epoch in (0, 1) for step in range(per_epoch)
    ]
    assert {report.steps for report in training} == {per_epoch}
    # After the last step only the last validation is left.
    rate = (2 * images - 4 + unseen / 2) / ((2 * per_epoch - 2) * 3)
    assert shown[-1].images_per_second == pytest.approx(rate)
    assert shown[-1].seconds_left == pytest.approx(unseen / 2 / rate)


@pytest.mark.parametrize(("encoder", "hours"), [("attention", 11.9), ("mobile", 100)])
def test_nothing_smaller_is_suggested(encoder, hours):
    config = TrainConfig(model=ModelConfig(encoder=encoder))
    assert smaller_options(config, hours * HOUR)[0] == {}


# Images a second in training on 2 cores in bf16, by image size and base channels; batches of 8.
MEASURED = {
    (256, 64): 5.19, (256, 32): 11.2, (128, 64): 18.9, (128, 32): 39.9, (64, 64): 53.9, (64, 32): 100.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("hours", "network"),
    [(20, (256, 32)), (30, (128, 64)), (60, (128, 32)), (100, (64, 64)), (200, (64, 32))],
)
def test_the_largest_network_that_ends_in_time_is_suggested(hours, network):
    options, seconds = smaller_options(TrainConfig(), hours * HOUR)
    model = ModelConfig(**options)
    assert (model.image_size, model.base_channels) == network
    # Only options that change are named.
    assert all(value != getattr(ModelConfig(), name) for name, value in options.items())
    measured = hours * HOUR * MEASURED[256, 64] / MEASURED[network]
    assert seconds == pytest.approx(measured, rel=0.25)


def test_fewer_epochs_are_suggested_if_no_network_is_small_enough():
    model = ModelConfig(image_size=64, base_channels=32)
    config = TrainConfig(model=model, optim=OptimConfig(epochs=100))
    assert smaller_options(config, 48 * HOUR) == ({"epochs": 25}, 12 * HOUR)


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (TimeEstimate(20, 9.61, 1, 3 * HOUR, {}, 3 * HOUR),
         "first 20 steps: 9.61 images/s; 1 epoch will take about 3 h 00 min, "
         "until 01:00 on 1 December"),
        (TimeEstimate(20, 2.0, 200, 100 * HOUR, {"image_size": 64, "epochs": 9}, 2 * HOUR),
         "first 20 steps: 2 images/s; 200 epochs will take about 4 days 4 h, "
         "until 02:00 on 5 December; with --image-size 64 --epochs 9 about 2 h 00 min"),
    ],
)  # fmt: skip
def test_the_estimate_is_one_line(estimate, text):
    assert estimate_line(estimate, datetime(2026, 11, 30, 22, 0)) == text
