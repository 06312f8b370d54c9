"""A run survives what happens to it: signals, a full disk, a requeued job; or says what was wrong."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earteach import checkpoint
from earteach.training.lightning_module import EarVAELightning
from tests.conftest import TINY_RUN, data_options, earteach, files_of_at_most, run_options

SEND = {name: getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1")}


def command(ears: Path, folder: Path, *more: object) -> list[object]:
    return ["train", *data_options(ears), *run_options(folder), *TINY_RUN, "--epochs", 2, *more]


def signalled(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """The first training step receives these signals, one after the other."""
    original, calls = EarVAELightning.training_step, []

    def step(self: EarVAELightning, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            for name in names:
                os.kill(os.getpid(), SEND[name])
        return original(self, *args)

    monkeypatch.setattr(EarVAELightning, "training_step", step)


@pytest.mark.parametrize("names", [["SIGINT", "SIGINT"], ["SIGINT", "SIGTERM"]])
def test_a_second_signal_ends_the_process_at_once(ears, tmp_path, names):
    child = os.fork()
    if child == 0:
        signalled(pytest.MonkeyPatch(), *names)
        earteach(*command(ears, tmp_path))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + SEND[names[1]]
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_after_an_interrupted_run_signals_do_what_they_did(ears, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    signalled(monkeypatch, "SIGINT")
    assert earteach(*command(ears, tmp_path)).code == 130
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize(
    ("job", "requeued"),
    [
        ({"SLURM_JOB_ID": "77"}, "requeue 77"),
        (
            {"SLURM_JOB_ID": "79", "SLURM_ARRAY_JOB_ID": "78", "SLURM_ARRAY_TASK_ID": "3"},
            "requeue 78_3",
        ),
    ],
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
    with pytest.MonkeyPatch.context() as patch:
        signalled(patch, "SIGUSR1")
        stopped = earteach(*command(ears, tmp_path), "--json")
    assert stopped.json["global_step"] == 1
    assert (tmp_path / "called").read_text().strip() == requeued
    assert earteach(*command(ears, tmp_path), "--json").json["epochs_completed"] == 2


def test_a_full_disk_is_one_line_and_leaves_the_checkpoint_before(ears, tmp_path, trained):
    """The limit lets the logs through and stops the checkpoint, as a full disk would."""
    assert earteach(*command(ears, tmp_path)).code == 0
    last = tmp_path / "checkpoints" / "last.ckpt"
    kept = last.read_bytes()
    with files_of_at_most(len(kept) // 2):
        result = earteach("resume", last, "--epochs", 3)
    assert result.code == 1
    assert "the disk is full" in result.err.splitlines()[-1]
    assert "Traceback" not in result.err
    assert last.read_bytes() == kept
    assert checkpoint.read(last).epochs_completed == 2
    assert not list(last.parent.glob(".*"))
    assert earteach("resume", last, "--epochs", 3, "--json").json["epochs_completed"] == 3


def test_few_images_are_said_before_training(ears, tmp_path):
    for name in ("train", "val"):
        images = np.load(ears / f"{name}_teacher.npy")
        np.save(tmp_path / f"{name}_teacher.npy", images[:1])
    result = earteach(*command(tmp_path, tmp_path), "--json")
    assert result.code == 0
    assert result.json["global_step"] == 2
    notes = [line for line in result.err.splitlines() if line.startswith("note:")]
    assert any("--batch-size 8" in note and "1 training image" in note for note in notes)


def test_no_validation_images_are_an_error(ears, tmp_path):
    images = np.load(ears / "train_teacher.npy")
    np.save(tmp_path / "train_teacher.npy", images)
    np.save(tmp_path / "val_teacher.npy", images[:0])
    result = earteach(*command(tmp_path, tmp_path))
    assert result.code == 1
    assert "val_teacher.npy" in result.err
    assert not (tmp_path / "checkpoints").exists()
