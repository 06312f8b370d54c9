"""The second decoder that follows training."""

import os
import signal
from pathlib import Path

import pytest
import torch

from earteach import runs
from earteach.config import (
    DataConfig,
    HardwareConfig,
    InferenceConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
)
from earteach.errors import EarTeachError
from earteach.inference import sharpen as module
from earteach.inference.loaded_model import load_model
from earteach.inference.sample import sample
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
    again = sharpen(best, steps=6, config=InferenceConfig(batch_size=8))
    assert again.path.read_bytes() == stored


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


def test_a_resumed_run_sharpens_its_new_best_and_removes_the_old_one(ears, tmp_path):
    first = train(ears, tmp_path, "--sharpen-steps", 2, "--epochs", 1)
    sample(first.json["best"]["loss"]["path"], tmp_path / "out", number=2)
    result = command("resume", first.json["last"], "--epochs", 4, "--json")
    assert result.code == 0, result.err
    best = Path(result.json["best"]["loss"]["path"])
    assert str(best) != first.json["best"]["loss"]["path"]
    assert load_second_decoder(load_model(best)) is not None
    assert {path.name for path in best.parent.glob("*.npz")} == {
        best.with_suffix(".sharp.npz").name, best.with_suffix(".mixture.npz").name
    }  # fmt: skip


def test_a_decoder_of_an_unchanged_best_is_kept(ears, tmp_path):
    first = train(ears, tmp_path, "--sharpen-steps", 2)
    best = first.json["best"]["loss"]["path"]
    stored = sharpen(best, steps=9).path.read_bytes()
    with pytest.MonkeyPatch.context() as patch:  # no later epoch is better
        patch.setattr("earteach.training.checkpoint_callback.measured", _worse)
        result = command("resume", first.json["last"], "--epochs", 3, "--json")
    assert result.json["best"]["loss"]["path"] == best
    assert Path(result.json["second_decoder"]).read_bytes() == stored


def _worse(_trainer) -> dict[str, float]:
    return {"val/loss": 99.0, "val/ssim": 0.0}


@pytest.mark.parametrize("options", [["--sharpen-steps", 0], ["--sharpen-steps", 4]])
@pytest.mark.parametrize("resume", [["resume"], ["train", "--resume"]])
def test_resuming_can_change_its_steps(ears, tmp_path, monkeypatch, resume, options):
    first = train(ears, tmp_path)
    asked: list[int] = []
    monkeypatch.setattr(runs, "sharpen", lambda _, *, steps, **__: asked.append(steps) or _Path)
    result = command(*resume, first.json["last"], "--epochs", 3, *options, "--json")
    assert result.code == 0, result.err
    assert asked == [steps for steps in options[1:] if steps]


class _Path:
    path = Path("anywhere")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("again", ["train", "resume"])
def test_interrupted_it_goes_on_where_it_was(ears, tmp_path, caplog, number, again):
    caplog.set_level("INFO")
    whole = runs.train(config(ears, tmp_path / "whole", 8)).second_decoder
    settings = config(ears, tmp_path, 8)
    watch = Watch(on_sharpen=lambda done, _: os.kill(os.getpid(), number) if done == 5 else None)
    result = runs.train(settings, watch=watch)
    assert (result.stopped_by, result.signal, result.second_decoder) == ("finished", number, None)
    assert f"`earteach resume {result.last}` goes on with the decoder" in caplog.text
    caplog.clear()
    rest = runs.train(settings) if again == "train" else runs.resume(result.last)
    assert "continuing after 6 of 8 steps" in caplog.text
    assert rest.second_decoder.read_bytes() == whole.read_bytes()
    assert (rest.epochs_completed, rest.global_step, rest.best) == (
        result.epochs_completed, result.global_step, result.best
    )  # fmt: skip
    with pytest.raises(EarTeachError, match="this run finished after 1 epochs"):
        runs.train(settings)


def test_a_signal_at_the_end_of_the_training_counts(ears, tmp_path):
    watch = Watch(on_epoch=lambda _: os.kill(os.getpid(), signal.SIGTERM))
    settings = config(ears, tmp_path, 8)
    result = runs.train(settings, watch=watch)
    assert (result.stopped_by, result.signal) == ("finished", signal.SIGTERM)
    assert runs.train(settings).second_decoder is not None


@pytest.mark.parametrize(
    "error",
    [
        EarTeachError("no room"), OSError("no room"),
        torch.OutOfMemoryError("no room"),
    ],
)  # fmt: skip
def test_its_failure_is_not_that_of_the_training(ears, tmp_path, monkeypatch, error):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(module, "train_second_decoder", fail)
    result = train(ears, tmp_path, "--sharpen-steps", 3)
    assert result.code == 0, result.err
    assert result.json["second_decoder"] is None
    assert f"`earteach sharpen {result.json['best']['loss']['path']}` failed: " in result.err


def test_the_command_shows_the_trained_network_and_says_that_it_was_interrupted(
    ears, tmp_path, monkeypatch
):
    def interrupted(_path, *, steps, progress, **_):
        os.kill(os.getpid(), signal.SIGTERM)
        progress(1, steps)

    monkeypatch.setattr(runs, "sharpen", interrupted)
    result = train(ears, tmp_path, "--sharpen-steps", 3)
    assert result.code == 143
    assert (result.json["stopped_by"], result.json["second_decoder"]) == ("finished", None)
    assert Path(result.json["best"]["loss"]["path"]).exists()
    assert "goes on with the decoder" in result.err


def test_several_devices_leave_it_out(ears, tmp_path):
    planned = train(ears, tmp_path, "--dry-run", "--sharpen-steps", 5, "--devices", 2)
    assert planned.json["sharpen_steps"] == 0
