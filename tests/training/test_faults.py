"""A run survives signals, a full disk and a requeued job, or reports in a line what is wrong."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earteach import checkpoint
from earteach.training.lightning_module import EarVAELightning
from tests.conftest import TINY_RUN, data_options, earteach, files_of_at_most, run_options, slow


def command(ears: Path, folder: Path, *more: object) -> list[object]:
    return ["train", *data_options(ears), *run_options(folder), *TINY_RUN, "--epochs", 2, *more]


def signalled(monkeypatch: pytest.MonkeyPatch, *signals: int) -> None:
    """The first training step receives these signals, one after the other."""
    original, calls = EarVAELightning.training_step, []

    def step(self: EarVAELightning, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            for number in signals:
                os.kill(os.getpid(), number)
        return original(self, *args)

    monkeypatch.setattr(EarVAELightning, "training_step", step)


@pytest.mark.parametrize("second", [signal.SIGINT, slow(signal.SIGTERM)])
def test_a_second_signal_ends_the_process_at_once(ears, tmp_path, second):
    child = os.fork()
    if child == 0:
        signalled(pytest.MonkeyPatch(), signal.SIGINT, second)
        earteach(*command(ears, tmp_path))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + second
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


ARRAY_JOB = {"SLURM_JOB_ID": "79", "SLURM_ARRAY_JOB_ID": "78", "SLURM_ARRAY_TASK_ID": "3"}


@pytest.mark.parametrize(
    ("job", "requeued"), [slow({"SLURM_JOB_ID": "77"}, "requeue 77"), (ARRAY_JOB, "requeue 78_3")]
)
def test_slurms_signal_keeps_the_step_and_requeues_the_job(
    ears, tmp_path, monkeypatch, job, requeued
):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n')
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    signalled(monkeypatch, signal.SIGUSR1)
    stopped = earteach(*command(ears, tmp_path), "--json")
    assert stopped.json["global_step"] == 1
    assert checkpoint.read(tmp_path / "checkpoints" / "last.ckpt").global_step == 1
    assert (tmp_path / "called").read_text().strip() == requeued
    # After the run, signals do what they did before.
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_the_checkpoint_before(ears, tmp_path):
    """The limit lets the logs through and stops the checkpoint, as a full disk would."""
    assert earteach(*command(ears, tmp_path), "--epochs", 1).code == 0
    last = tmp_path / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    with files_of_at_most(len(before) // 2):
        result = earteach("resume", last, "--epochs", 2)
    assert result.code == 1
    assert "the disk is full" in result.err.splitlines()[-1]
    assert "Traceback" not in result.err
    assert last.read_bytes() == before
    assert checkpoint.read(last).epochs_completed == 1
    assert not list(last.parent.glob(".*"))
    assert earteach("resume", last, "--epochs", 2, "--json").json["epochs_completed"] == 2


@pytest.mark.parametrize("name", ["train", "val"])
def test_a_run_that_fails_in_its_first_epoch_leaves_nothing(ears, tmp_path, name):
    """The bad image is not among those that are looked at before training."""
    for which in ("train", "val"):
        images = np.load(ears / f"{which}_teacher.npy").astype(np.float32) / 255
        images = np.tile(images, (20, 1, 1, 1))
        if which == name:
            images[1] = np.nan
        np.save(tmp_path / f"{which}_teacher.npy", images)
    before = sorted(tmp_path.iterdir())
    result = earteach(*command(tmp_path, tmp_path), "--no-pca-init")
    assert result.code == 1
    assert "image 1 holds NaN" in result.err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("log", "file"), [("file", "file"), ("file/logs", "file"), ("a", "a/ear_vae")]
)
def test_a_log_folder_that_cannot_be_one_is_refused_before_training(ears, tmp_path, log, file):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.touch()
    result = earteach(*command(ears, tmp_path, "--log-dir", tmp_path / log))
    assert (result.code, result.out.count("epoch 1")) == (1, 0)
    assert str(path) in result.err.splitlines()[-1]
    assert "name a folder" in result.err
    assert not (tmp_path / "checkpoints").exists()


def test_a_log_that_vanishes_is_one_line(ears, tmp_path, monkeypatch):
    from earteach.training import recorder

    record = recorder.Recorder._record

    def gone(self: Any, *args: Any) -> Any:
        shutil.rmtree(tmp_path / "logs")
        return record(self, *args)

    monkeypatch.setattr(recorder.Recorder, "_record", gone)
    result = earteach(*command(ears, tmp_path))
    assert result.code == 1
    assert (
        "logs/ear_vae: cannot be written: No such file or directory; put"
        in result.err.splitlines()[-1]
    )


def test_equal_arrays_for_training_and_validation_are_noted(ears, tmp_path):
    path = ears / "val_teacher.npy"
    result = earteach(*command(ears, tmp_path, "--train-data", path, "--epochs", 1))
    assert result.code == 0
    assert f"note: --val-data {path}: holds the training images" in result.err


def test_logs_among_the_checkpoints_are_moved_aside_with_them(ears, tmp_path):
    inside = ["--log-dir", tmp_path / "checkpoints" / "logs", "--epochs", 1]
    for _ in range(2):
        result = earteach(*command(ears, tmp_path, *inside), "--fresh")
        assert result.code == 0, result.err
    for folder in ("checkpoints", "checkpoints-old-1"):
        assert (tmp_path / folder / "logs" / "ear_vae" / "metrics.jsonl").exists()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_trial_run_that_is_interrupted_says_so(ears, tmp_path, monkeypatch):
    from earteach.training.lightning_module import EarVAELightning

    step = EarVAELightning.training_step

    def interrupted(self: Any, *args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args)

    monkeypatch.setattr(EarVAELightning, "training_step", interrupted)
    result = earteach(*command(ears, tmp_path, "--fast-dev-run"))
    assert result.code == 130
    assert "interrupted; nothing was written (--fast-dev-run)" in result.err
    assert not (tmp_path / "checkpoints").exists()
