"""The second decoder that follows training."""

import os
import signal
from pathlib import Path

import pytest

from earteach import runs
from earteach.config import (
    DataConfig,
    HardwareConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
)
from earteach.inference import sharpen as module
from earteach.inference.loaded_model import load_model
from earteach.inference.second_decoder import load_second_decoder
from earteach.inference.sharpen import sharpen
from earteach.training.fit import Watch
from tests.conftest import TINY_RUN, data_options, run_options
from tests.conftest import earteach as command


def train(ears, folder, *options):
    """Of 6 steps per epoch."""
    arguments = [*data_options(ears), *run_options(folder), *TINY_RUN, "--epochs", 2, *options]
    return command("train", *arguments, "--json")


def config(ears: Path, folder: Path, steps: int) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(train_data=ears / "train_teacher.npy", val_data=ears / "val_teacher.npy"),
        model=ModelConfig(image_size=32, base_channels=8, latent_dim=16),
        optim=OptimConfig(epochs=1, batch_size=8, teach_weight=0),
        hardware=HardwareConfig(accelerator="cpu", num_workers=0),
        run=RunConfig(
            checkpoint_dir=folder / "checkpoints", log_dir=folder / "logs", sharpen_steps=steps
        ),
    )


def test_training_ends_with_what_sharpen_does(ears, tmp_path):
    result = train(ears, tmp_path, "--sharpen-steps", 6)
    assert result.code == 0, result.err
    best, path = result.json["best"]["loss"]["path"], Path(result.json["second_decoder"])
    assert result.json["stopped_by"] == "finished"
    assert load_second_decoder(load_model(best)) is not None
    stored = path.read_bytes()
    path.unlink()
    assert sharpen(best, steps=6).path.read_bytes() == stored


def test_the_plan_names_its_steps(ears, tmp_path):
    planned = [
        train(ears, tmp_path, "--dry-run", *options).json["sharpen_steps"]
        for options in (
            ["--epochs", 400],
            ["--epochs", 399],
            ["--sharpen-steps", 7],
            ["--epochs", 400, "--sharpen-steps", 0],
        )
    ]
    assert planned == [2400, 0, 7, 0]


@pytest.mark.parametrize("options", [[], ["--fast-dev-run", "--sharpen-steps", 5]])
def test_it_can_be_left_out(ears, tmp_path, options):
    result = train(ears, tmp_path, *options)
    assert result.code == 0, result.err
    assert result.json["second_decoder"] is None
    assert not list(tmp_path.rglob("*.npz"))


def test_a_resumed_run_sharpens_its_new_best(ears, tmp_path):
    first = train(ears, tmp_path, "--sharpen-steps", 2)
    result = command("resume", first.json["last"], "--epochs", 4, "--json")
    assert result.code == 0, result.err
    best = Path(result.json["best"]["loss"]["path"])
    assert result.json["second_decoder"] == str(best.with_suffix(".sharp.npz"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_the_trained_network(ears, tmp_path, monkeypatch, caplog, number):
    caplog.set_level("INFO")
    monkeypatch.setattr(module, "_SAVE_INTERVAL", 2)
    watch = Watch(on_sharpen=lambda done, _: os.kill(os.getpid(), number) if done == 5 else None)
    result = runs.train(config(ears, tmp_path, 8), watch=watch)
    assert (result.stopped_by, result.signal, result.second_decoder) == ("finished", number, None)
    best = result.best["loss"].path
    assert f"go on with `earteach sharpen {best} --steps 8`" in caplog.text
    caplog.clear()
    sharpened = sharpen(best, steps=8).path.read_bytes()
    assert "continuing after 4 of 8 steps" in caplog.text
    assert sharpened == sharpen(best, steps=8).path.read_bytes()


def test_its_failure_is_not_that_of_the_training(ears, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_DECODER_RATE", float("nan"))
    result = train(ears, tmp_path, "--sharpen-steps", 3)
    assert result.code == 0, result.err
    assert result.json["second_decoder"] is None
    assert "the network is trained, without a second decoder: " in result.err


def test_the_command_shows_the_trained_network_and_says_that_it_was_interrupted(
    ears, tmp_path, monkeypatch
):
    def interrupted(_path, *, steps, progress, **_):
        os.kill(os.getpid(), signal.SIGTERM)
        progress(1, steps)

    monkeypatch.setattr(runs, "sharpen", interrupted)
    result = train(ears, tmp_path, "--sharpen-steps", 3)
    assert result.code == 143
    assert result.json["stopped_by"] == "finished"
    assert Path(result.json["best"]["loss"]["path"]).exists()
