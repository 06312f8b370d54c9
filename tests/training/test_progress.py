"""A run's forecast and progress, told by a clock that the test moves."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from earteach.cli.train import forecast_line
from earteach.config import ModelConfig, OptimConfig, TrainConfig
from earteach.training import progress as pace
from earteach.training.fit import Watch
from earteach.training.plan import Plan
from earteach.training.progress import Forecast, Pace, Progress, Smaller, Tempo, smaller
from earteach.training.runs import train
from tests.conftest import data_options

HOUR = 3600.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_is_of_the_time_since_it_was_restarted() -> None:
    clock = Clock()
    tempo = Tempo(clock)
    tempo.add(50)
    clock.now += 10
    assert tempo.rate() == 5
    tempo.restart()
    tempo.add(6)
    clock.now += 2
    assert tempo.rate() == 3


def small(ears: Path, folder: Path, **options: object) -> TrainConfig:
    """40 training images in batches of 2: 20 steps an epoch."""
    _, train_data, _, val_data = data_options(ears)
    return TrainConfig().with_options(
        {
            "train_data": Path(train_data), "val_data": Path(val_data), "image_size": 32,
            "base_channels": 2, "latent_dim": 4, "pca_init": False, "augmentation": "none",
            "batch_size": 2, "num_workers": 0, "checkpoint_dir": folder / "checkpoints",
            "log_dir": folder / "logs", **options,
        }
    )  # fmt: skip


def test_a_run_is_forecast_from_its_first_steps(
    ears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step takes 3 s after two that take 100, and nothing else takes any time."""
    clock, told = Clock(), list[Forecast | Progress | Plan]()
    steps = 0

    def stepped(
        self: Pace, trainer: object, module: object, outputs: object, batch: object, *at: int
    ):
        nonlocal steps
        steps += 1
        clock.now += 100 if steps <= 2 else 3
        return original(self, trainer, module, outputs, batch, *at)  # type: ignore[arg-type]

    original = Pace.on_train_batch_end
    monkeypatch.setattr(Pace, "on_train_batch_end", stepped)
    monkeypatch.setattr(pace.Pace.__init__, "__kwdefaults__", {"clock": clock})
    watch = Watch(on_start=told.append, on_forecast=told.append, on_progress=told.append)
    config = small(ears, tmp_path, epochs=2)
    train(config, watch=watch)
    planned = told[0]
    assert isinstance(planned, Plan)
    images, unseen = planned.train_images, planned.val_images
    (forecast,) = (one for one in told if isinstance(one, Forecast))
    assert (forecast.steps, forecast.epochs, forecast.smaller) == (20, 2, None)
    assert forecast.images_per_second == pytest.approx(2 / 3)
    assert forecast.seconds == pytest.approx((2 * (images + unseen / 2) - 40) * 1.5)
    seen = [one for one in told if isinstance(one, Progress)]
    steps_of = [(one.epoch, one.step) for one in seen if one.phase == "training"]
    per_epoch = planned.steps_per_epoch
    assert steps_of == [(epoch, step + 1) for epoch in (0, 1) for step in range(per_epoch)]
    assert {one.steps for one in seen if one.phase == "training"} == {per_epoch}
    assert seen[0].ssim is None
    assert seen[-1].ssim is not None
    # The last step: only the last validation is left.
    assert seen[-1].seconds_left == pytest.approx(
        unseen / 2 / ((2 * images - 4 + unseen / 2) / ((2 * per_epoch - 2) * 3))
    )


def test_only_a_long_run_is_told_of_smaller_options() -> None:
    assert smaller(TrainConfig(), 11.9 * HOUR) is None


def test_a_student_is_not_told_of_options_that_it_has_not() -> None:
    student = TrainConfig(model=ModelConfig(encoder="mobile"))
    assert smaller(student, 100 * HOUR) is None


# Images a second in training on 2 cores in bf16, by image size and base channels; batches of 8.
MEASURED = {
    (256, 64): 5.19, (256, 32): 11.2, (128, 64): 18.9, (128, 32): 39.9, (64, 64): 53.9, (64, 32): 100.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("hours", "named"),
    [(20, (256, 32)), (30, (128, 64)), (60, (128, 32)), (100, (64, 64)), (200, (64, 32))],
)
def test_the_largest_network_that_ends_in_time_is_named(hours: int, named: tuple[int, int]) -> None:
    found = smaller(TrainConfig(), hours * HOUR)
    assert found is not None
    model = ModelConfig(**found.options)
    assert (model.image_size, model.base_channels) == named
    # What stays as it is goes without saying.
    assert all(value != getattr(ModelConfig(), name) for name, value in found.options.items())
    took = hours * HOUR * MEASURED[256, 64] / MEASURED[named]
    assert found.seconds == pytest.approx(took, rel=0.25)


def test_where_no_network_is_small_enough_fewer_epochs_are() -> None:
    config = TrainConfig(
        model=ModelConfig(image_size=64, base_channels=32), optim=OptimConfig(epochs=100)
    )
    assert smaller(config, 48 * HOUR) == Smaller({"epochs": 25}, 12 * HOUR)


@pytest.mark.parametrize(
    ("forecast", "wanted"),
    [
        (Forecast(20, 143.7, 5, 70.0, None),
         "first 20 steps: 144 images/s; 5 epochs would take about 1 min 10 s, until 22:01"),
        (Forecast(20, 9.61, 1, 3 * HOUR, None),
         "first 20 steps: 9.61 images/s; 1 epoch would take about 3 h 00 min, "
         "until 01:00 on 1 December"),
        (Forecast(20, 2.0, 200, 100 * HOUR, Smaller({"image_size": 64, "epochs": 9}, 2 * HOUR)),
         "first 20 steps: 2 images/s; 200 epochs would take about 4 days 4 h, "
         "until 02:00 on 5 December; with --image-size 64 --epochs 9 about 2 h 00 min"),
    ],
)  # fmt: skip
def test_a_forecast_is_one_line(forecast: Forecast, wanted: str) -> None:
    assert forecast_line(forecast, datetime(2026, 11, 30, 22, 0)) == wanted
