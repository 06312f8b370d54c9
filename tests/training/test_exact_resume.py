"""A run that is interrupted and resumed equals one that is not, bit for bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import pkgutil
import signal
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from earteach import checkpoint
from earteach.training.lightning_module import EarVAELightning
from tests.conftest import (
    TINY,
    Result,
    Run,
    data_options,
    earteach,
    earteach_process,
    run_options,
    slow,
)

EPOCHS = 4
STEPS_PER_EPOCH = 11
MODULE = "earteach.training.lightning_module:EarVAELightning"


def options(ears: Path, folder: Path, workers: int, *more: object) -> list[object]:
    return [
        *data_options(ears), *run_options(folder), *TINY, "--batch-size", 4, "--learning-rate", 2e-2,
        "--epochs", EPOCHS, "--num-workers", workers, *more,
    ]  # fmt: skip


def finished(*args: object) -> None:
    result = earteach(*args)
    assert result.code == 0, result.err


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def without_paths(best: dict[str, Any]) -> dict[str, Any]:
    return {name: {**entry, "path": Path(entry["path"]).name} for name, entry in best.items()}


def tensorboard_scalars(logs: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(logs), size_guidance={"scalars": 0})
    read.Reload()
    return {
        tag: [(event.step, event.value) for event in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
    }


def recorded(logs: Path) -> list[tuple[int, int, dict[str, float]]]:
    lines = (logs / "metrics.jsonl").read_text().splitlines()
    return [(r["epoch"], r["step"], r["metrics"]) for r in map(json.loads, lines)]


def assert_same_state(path: Path, other: Path) -> None:
    a, b = checkpoint.read(path), checkpoint.read(other)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "train_sums"):
        assert equal(a.state[key], b.state[key]), key
    (early,) = (key for key in a.state["callbacks"] if key.startswith("EarlyStopping"))
    assert equal(a.state["callbacks"][early], b.state["callbacks"][early])
    assert without_paths(a.about["best"]) == without_paths(b.about["best"])


def assert_same_run(run: Run, other: Run) -> None:
    assert_same_state(run.last, other.last)
    names = [sorted(path.name for path in r.checkpoints.iterdir()) for r in (run, other)]
    assert names[0] == names[1]
    for name in names[0]:
        states = [checkpoint.read(r.checkpoints / name).state["state_dict"] for r in (run, other)]
        assert equal(*states), name
    assert tensorboard_scalars(run.logs) == tensorboard_scalars(other.logs)
    assert recorded(run.logs) == recorded(other.logs)


@pytest.fixture(scope="module")
def uninterrupted(ears, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    finished("train", *options(ears, folder, 0))
    run = Run(folder, None)
    for tag, values in tensorboard_scalars(run.logs).items():
        steps = [step for step, _ in values]
        assert len(steps) == len(set(steps)) == EPOCHS, tag
    weights = checkpoint.read(run.last).state["state_dict"]
    # All that is trained has an average of its own, so that comparing states compares both.
    trained = [name for name in weights if name.startswith("model.") and ".pca." not in name]
    assert len(trained) > 50
    assert not any(equal(weights[n], weights[n.replace("model.", "averaged.")]) for n in trained)
    return run


def at_call(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int, act: Callable[[], object]
) -> None:
    """Call `act` at the start of the `number`th call (from 1) of a function."""
    original, calls = getattr(owner, name), []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            act()
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)


def signalled_at(name: str, number: int, sent: int, *args: object) -> Result:
    """The command, which gets a signal at a call of a method of the Lightning module."""
    with pytest.MonkeyPatch.context() as patch:
        at_call(patch, EarVAELightning, name, number, lambda: os.kill(os.getpid(), sent))
        stopped = earteach(*args)
    assert stopped.code == 128 + sent
    next_second()
    return stopped


def next_second() -> None:
    """TensorBoard orders its files by the second in their names; real restarts are further apart."""
    time.sleep(1.05 - time.time() % 1)


@pytest.mark.slow
def test_workers_do_not_matter(ears, uninterrupted, tmp_path):
    finished("train", *options(ears, tmp_path, 2))
    assert_same_run(uninterrupted, Run(tmp_path, None))


SIGNALS = {
    "a step": slow("training_step", 5, 5, signal.SIGINT),
    "the first step": slow("training_step", 1, 1, signal.SIGTERM),
    "an epoch's last step": slow("training_step", STEPS_PER_EPOCH, STEPS_PER_EPOCH, signal.SIGTERM),
    "validation": slow("validation_step", 2, STEPS_PER_EPOCH, signal.SIGTERM),
    "the first validation batch": slow("validation_step", 1, STEPS_PER_EPOCH, signal.SIGTERM),
    "the second validation": slow("validation_step", 3, 2 * STEPS_PER_EPOCH, signal.SIGTERM),
}


@pytest.mark.parametrize(("method", "call", "steps", "sent"), SIGNALS.values(), ids=SIGNALS)
def test_a_signal_loses_no_step(ears, uninterrupted, tmp_path, method, call, steps, sent):
    run, command = Run(tmp_path, None), ["train", *options(ears, tmp_path, 0), "--json"]
    stopped = signalled_at(method, call, sent, *command)
    assert stopped.json["stopped_by"] == "interrupted"
    assert stopped.json["global_step"] == steps == checkpoint.read(run.last).global_step
    assert "earteach resume" in stopped.err
    # Repeating the command does the same as resuming.
    finished(*(["resume", run.last] if sent == signal.SIGINT else command))
    assert_same_run(uninterrupted, run)


@pytest.mark.slow
def test_the_other_schedule_and_network_resume_exactly_too(ears, tmp_path):
    """The plateau, a network that starts from noise, no average, no SSIM."""
    more = ["--no-pca-init", "--lr-schedule", "plateau", "--ema-decay", 0, "--ssim-weight", 0]
    whole, pieces = Run(tmp_path / "whole", None), Run(tmp_path / "pieces", None)
    finished("train", *options(ears, whole.folder, 0, *more))
    command = ["train", *options(ears, pieces.folder, 0, *more)]
    signalled_at("training_step", STEPS_PER_EPOCH + 3, signal.SIGTERM, *command)
    finished("resume", pieces.last)
    assert_same_state(whole.last, pieces.last)
    assert recorded(whole.logs) == recorded(pieces.logs)


def killed_in(owner: str, name: str, number: int, *args: object) -> None:
    """Run the command in a process of its own, which gets SIGKILL at a call of a function.

    It is forked from a server without threads: other tests leave some in this process, whose locks
    would stay held in a child.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["earteach.runs", __name__])
    process = server.Process(target=_run_until_killed, args=(owner, name, number, *args))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"the run ended before call {number} of {name}"
    next_second()


def _run_until_killed(owner: str, name: str, number: int, *args: object) -> None:
    die = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    at_call(pytest.MonkeyPatch(), pkgutil.resolve_name(owner), name, number, die)
    earteach(*args)


CALLBACK = "earteach.training.checkpoint_callback:Checkpoints"
MOMENTS = {
    "start-up": slow(MODULE, "configure_optimizers", 1),
    "first step": slow(MODULE, "training_step", 1),
    "second epoch": slow(MODULE, "training_step", STEPS_PER_EPOCH + 4),
    "validation": slow(MODULE, "validation_step", 4),
    "record before the checkpoint": slow("earteach.training.recorder:Recorder", "_write", 2),
    "best written, not in place": slow("earteach.files.atomic_write", "_sync", 1),
    "best in place, last not written": slow("earteach.checkpoint", "name_again", 4),
    "last written, old bests there": slow(CALLBACK, "_remove_superseded", 2),
}


@pytest.mark.parametrize(("owner", "name", "number"), MOMENTS.values(), ids=MOMENTS)
def test_killed_at_a_moment(ears, uninterrupted, tmp_path, owner, name, number):
    command = ["train", *options(ears, tmp_path, 0)]
    killed_in(owner, name, number, *command)
    finished(*command)
    assert_same_run(uninterrupted, Run(tmp_path, None))


@pytest.mark.slow
def test_killed_inside_an_epoch_it_resumes_from_the_last_saved_step(ears, uninterrupted, tmp_path):
    command = ["train", *options(ears, tmp_path, 0), "--checkpoint-every-n-steps", 3]
    killed_in(MODULE, "training_step", STEPS_PER_EPOCH + 6, *command)
    run = Run(tmp_path, None)
    assert checkpoint.read(run.last).global_step == 15
    finished("resume", run.last)
    assert_same_run(uninterrupted, run)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_four_times_at_any_time(ears, uninterrupted, tmp_path, workers):
    """SIGKILL to real processes at moments spread over start-up, steps, validation and writing."""
    began = time.monotonic()
    earteach_process("train", *options(ears, tmp_path / "timed", workers)).communicate()
    whole, killed, attempts = time.monotonic() - began, 0, count()
    while killed < 4:
        run = Run(tmp_path / str(next(attempts)), None)
        command = ["train", *options(ears, run.folder, workers), "--checkpoint-every-n-steps", 2]
        process = earteach_process(*command)
        time.sleep(whole * (0.35 + 0.5 * killed / 4))
        process.kill()
        process.communicate()
        if process.returncode == 0:
            whole *= 0.8  # the machine was busier during the timed run
            continue
        assert process.returncode == -signal.SIGKILL
        if run.last.exists() and checkpoint.read(run.last).epochs_completed == EPOCHS:
            whole *= 0.8  # killed while it was exiting
            continue
        next_second()
        finished(*command)
        assert_same_run(uninterrupted, run)
        killed += 1
