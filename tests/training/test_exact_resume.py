"""A run that was killed and resumed equals one that was not, bit for bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import pkgutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from earteach import checkpoint
from earteach.training.lightning_module import EarVAELightning
from tests.conftest import TINY, Run, data_options, earteach, earteach_process, run_options

EPOCHS = 4
STEPS_PER_EPOCH = 11


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


def assert_same_run(run: Run, other: Run) -> None:
    a, b = checkpoint.read(run.last), checkpoint.read(other.last)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "train_sums"):
        assert equal(a.state[key], b.state[key]), key
    weights = a.state["state_dict"]
    averages = [name for name in weights if name.startswith("averaged.") and "linear" not in name]
    trained = [name.replace("averaged.", "model.") for name in averages]
    assert len(averages) > 50
    assert not any(equal(weights[a], weights[b]) for a, b in zip(averages, trained, strict=True))
    early = [key for key in a.state["callbacks"] if key.startswith("EarlyStopping")]
    assert len(early) == 1
    assert equal(a.state["callbacks"][early[0]], b.state["callbacks"][early[0]])
    assert without_paths(a.about["best"]) == without_paths(b.about["best"])
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
    return Run(folder, None)


def at_call(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int, act: Any) -> None:
    """Call `act` at the beginning of the `number`th call (from 1) of a function."""
    original, calls = getattr(owner, name), []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            act()
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)


def next_second() -> None:
    """TensorBoard orders its files by the second in their names; no real restart is within one."""
    time.sleep(1.05 - time.time() % 1)


def test_tensorboard_has_no_step_twice(uninterrupted):
    for tag, values in tensorboard_scalars(uninterrupted.logs).items():
        steps = [step for step, _ in values]
        assert len(steps) == len(set(steps)) == EPOCHS, tag


def test_workers_do_not_matter(ears, uninterrupted, tmp_path):
    finished("train", *options(ears, tmp_path, 2))
    assert_same_run(uninterrupted, Run(tmp_path, None))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 5, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1])
def test_a_signal_in_a_step_keeps_the_step(ears, uninterrupted, tmp_path, step, number):
    with pytest.MonkeyPatch.context() as patch:
        at_call(patch, EarVAELightning, "training_step", step, lambda: os.kill(os.getpid(), number))
        stopped = earteach("train", *options(ears, tmp_path, 0), "--json")
    assert stopped.code == 128 + number
    assert stopped.json["stopped_by"] == "interrupted"
    assert stopped.json["global_step"] == step == steps_in(tmp_path)
    assert "earteach resume" in stopped.err
    next_second()
    resumed = earteach("resume", tmp_path / "checkpoints" / "last.ckpt", "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["resumed_from"] == str(tmp_path / "checkpoints" / "last.ckpt")
    assert_same_run(uninterrupted, Run(tmp_path, None))


def test_the_other_schedule_and_network_go_on_exactly_too(ears, tmp_path):
    """Halved by its plateau, begun from noise, and without averages."""
    more = [
        "--no-pca-init",
        "--lr-schedule",
        "plateau",
        "--learning-rate",
        1e-3,
        "--ema-decay",
        0,
        "--ssim-weight",
        0,
    ]
    whole, pieces = Run(tmp_path / "whole", None), Run(tmp_path / "pieces", None)
    finished("train", *options(ears, whole.folder, 0, *more))
    with pytest.MonkeyPatch.context() as patch:
        stop = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
        at_call(patch, EarVAELightning, "training_step", STEPS_PER_EPOCH + 3, stop)
        assert earteach("train", *options(ears, pieces.folder, 0, *more)).code == 143
    next_second()
    finished("resume", pieces.last)
    a, b = checkpoint.read(whole.last), checkpoint.read(pieces.last)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "train_sums"):
        assert equal(a.state[key], b.state[key]), key
    assert recorded(whole.logs) == recorded(pieces.logs)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_signal_in_validation_loses_no_step(ears, uninterrupted, tmp_path, batch):
    with pytest.MonkeyPatch.context() as patch:
        stop = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
        at_call(patch, EarVAELightning, "validation_step", batch, stop)
        stopped = earteach("train", *options(ears, tmp_path, 0), "--json")
    assert stopped.code == 128 + signal.SIGTERM
    assert steps_in(tmp_path) == STEPS_PER_EPOCH * (1 if batch < 3 else 2)
    next_second()
    finished("train", *options(ears, tmp_path, 0))
    assert_same_run(uninterrupted, Run(tmp_path, None))


def steps_in(run: Path) -> int:
    return checkpoint.read(run / "checkpoints" / "last.ckpt").global_step


def killed_in(owner: str, name: str, number: int, *args: object) -> None:
    """A process of its own that runs the command and gets SIGKILL at a call of a function.

    It is forked from a server that has no threads: other tests leave some here, whose locks would
    stay held in a child.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["earteach.training.runs", __name__])
    process = server.Process(target=_run_until_killed, args=(owner, name, number, *args))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"the run ended before call {number} of {name}"
    next_second()


def _run_until_killed(owner: str, name: str, number: int, *args: object) -> None:
    die = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    at_call(pytest.MonkeyPatch(), pkgutil.resolve_name(owner), name, number, die)
    earteach(*args)


MOMENTS = {
    "start-up": ("earteach.training.lightning_module:EarVAELightning", "configure_optimizers", 1),
    "first step": ("earteach.training.lightning_module:EarVAELightning", "training_step", 1),
    "second epoch": (
        "earteach.training.lightning_module:EarVAELightning",
        "training_step",
        STEPS_PER_EPOCH + 4,
    ),
    "validation": ("earteach.training.lightning_module:EarVAELightning", "validation_step", 4),
    "record before the checkpoint": ("earteach.training.recorder:Recorder", "_write", 2),
    "best written, not in place": ("earteach.files.atomic_write", "_sync", 1),
    "best in place, last not written": ("earteach.checkpoint", "name_again", 4),
    "last written, old bests there": (
        "earteach.training.checkpoint_callback:Checkpoints",
        "_remove_superseded",
        2,
    ),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_a_moment(ears, uninterrupted, tmp_path, moment):
    command = ["train", *options(ears, tmp_path, 0)]
    killed_in(*MOMENTS[moment], *command)
    finished(*command)
    assert_same_run(uninterrupted, Run(tmp_path, None))


def test_killed_inside_an_epoch_goes_on_from_the_last_kept_step(ears, uninterrupted, tmp_path):
    command = ["train", *options(ears, tmp_path, 0), "--checkpoint-every-n-steps", 3]
    killed_in(
        "earteach.training.lightning_module:EarVAELightning",
        "training_step",
        STEPS_PER_EPOCH + 6,
        *command,
    )
    assert steps_in(tmp_path) == 15
    finished("resume", tmp_path / "checkpoints" / "last.ckpt")
    assert_same_run(uninterrupted, Run(tmp_path, None))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_twenty_times_at_any_time(ears, uninterrupted, tmp_path, workers):
    """SIGKILL to real processes at moments spread over start-up, steps, validation and writing."""
    began = time.monotonic()
    earteach_process("train", *options(ears, tmp_path / "timed", workers)).communicate()
    whole = time.monotonic() - began
    killed = 0
    for number in range(20):
        folder = tmp_path / str(number)
        command = ["train", *options(ears, folder, workers), "--checkpoint-every-n-steps", 2]
        process = earteach_process(*command)
        time.sleep(whole * (0.35 + 0.5 * number / 20))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        next_second()
        finished(*command)
        assert_same_run(uninterrupted, Run(folder, None))
    assert killed == 20
