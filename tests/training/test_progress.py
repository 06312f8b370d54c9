"""A run's time estimate and progress, by a clock that the test moves."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from earteach.cli.train import estimate_line
from earteach.config import TrainConfig
from earteach.runs import train
from earteach.training import progress
from earteach.training.fit import Watch
from earteach.training.progress import Progress, ProgressCallback, TimeEstimate
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
    assert (estimate.steps, estimate.epochs) == (20, 2)
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


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (TimeEstimate(20, 9.61, 1, 3 * HOUR),
         "first 20 steps: 9.61 images/s; 1 epoch will take about 3 h 00 min, "
         "until 01:00 on 1 December"),
        (TimeEstimate(20, 2.0, 200, 100 * HOUR),
         "first 20 steps: 2 images/s; 200 epochs will take about 4 days 4 h, "
         "until 02:00 on 5 December"),
    ],
)  # fmt: skip
def test_the_estimate_is_one_line(estimate, text):
    assert estimate_line(estimate, datetime(2026, 11, 30, 22, 0)) == text
