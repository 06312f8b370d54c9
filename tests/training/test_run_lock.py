"""One run in a folder: another one waits a little, and is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from earteach import checkpoint
from earteach.errors import EarTeachError
from earteach.training import run_lock
from earteach.training.run_lock import sole_run
from tests.conftest import TINY_RUN, data_options, earteach, earteach_process, run_options

HOLD = """
import os, sys, time
from pathlib import Path
from earteach.training.run_lock import sole_run
with sole_run(Path(sys.argv[1])):
    if "fork" in sys.argv and os.fork() == 0:
        os.close(1)
        time.sleep(60)
        os._exit(0)
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def holder(folder: Path, *how: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder until it reads a line."""
    command = [sys.executable, "-c", HOLD, str(folder), *how]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):  # a test may have killed it
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(run_lock, "PATIENCE", 0.3)


@pytest.mark.parametrize("name", ["checkpoints", "logs/ear_vae"])
def test_a_second_run_in_the_folder_is_refused(ears, tmp_path, impatient, name):
    folder = tmp_path / "run" / name
    with holder(folder):
        result = earteach(
            "train", *data_options(ears), *run_options(tmp_path / "run"), *TINY_RUN, "--epochs", 1
        )
        assert result.code == 1
        assert f"{folder}: another run is training there; wait" in result.err
        assert result.err.count("\n") == 1
        assert not folder.exists()


def test_a_resume_waits_for_a_process_that_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "PATIENCE", 30)
    with holder(tmp_path / "checkpoints") as other:
        threading.Timer(0.3, other.kill).start()
        with sole_run(tmp_path / "checkpoints"):
            assert (tmp_path / ".checkpoints.lock").exists()


def test_processes_that_load_images_do_not_hold_it(tmp_path, impatient):
    with holder(tmp_path / "checkpoints", "fork") as other:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        with sole_run(tmp_path / "checkpoints"):
            assert (tmp_path / ".checkpoints.lock").exists()


def test_nothing_is_left_behind(tmp_path):
    with sole_run(tmp_path / "a" / "b" / "checkpoints"):
        assert list(tmp_path.iterdir()) != []
    assert list(tmp_path.iterdir()) == []


def test_what_was_made_meanwhile_stays(tmp_path):
    folder = tmp_path / "a" / "checkpoints"
    with sole_run(folder):
        folder.mkdir()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["checkpoints"]


def test_two_names_of_one_folder_are_one(tmp_path, impatient):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "checkpoints")
    with (
        holder(tmp_path / "checkpoints"),
        pytest.raises(EarTeachError, match="another run"),
        sole_run(tmp_path / "link"),
    ):
        pass


def test_where_nothing_can_be_written_beside_it_the_lock_is_inside(tmp_path, monkeypatch):
    folder = tmp_path / "mounted"
    folder.mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)
    with sole_run(folder):
        assert [path.name for path in folder.iterdir()] == [".lock"]
        assert [path.name for path in tmp_path.iterdir()] == ["mounted"]
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(EarTeachError, match="file: is a file; name a folder"),
        sole_run(tmp_path / "file" / "x"),
    ):
        pass


def begun(ears: Path, folder: Path, *options: object) -> subprocess.Popen[str]:
    return earteach_process(
        "train", *data_options(ears), *run_options(folder), *TINY_RUN, *options, OMP_NUM_THREADS="1"
    )


@pytest.mark.slow
def test_of_four_runs_in_one_folder_one_trains(ears, tmp_path):
    runs = [begun(ears, tmp_path / "runs", "--epochs", 100) for _ in range(4)]
    said = [run.communicate(timeout=600) for run in runs]
    trained = [(out, err) for run, (out, err) in zip(runs, said, strict=True) if not run.returncode]
    refused = [err for run, (_, err) in zip(runs, said, strict=True) if run.returncode]
    assert len(trained) == 1
    for err in refused:
        assert "another run is training there;" in err
        assert err.count("\n") == 1
    assert checkpoint.read(tmp_path / "runs" / "checkpoints" / "last.ckpt").about["stopped_by"]
    assert not list((tmp_path / "runs").glob(".*"))


@pytest.mark.slow
def test_a_resume_waits_for_the_workers_of_a_run_that_was_killed(ears, tmp_path):
    run = begun(ears, tmp_path, "--epochs", 100_000, "--num-workers", 2)
    last = tmp_path / "checkpoints" / "last.ckpt"
    while not last.exists():
        time.sleep(0.05)
    run.kill()
    again = earteach_process("resume", last, OMP_NUM_THREADS="1")
    found = checkpoint.read(last).epochs_completed
    while checkpoint.read(last).epochs_completed < found + 3:
        assert again.poll() is None
        time.sleep(0.05)
    again.send_signal(signal.SIGINT)
    run.communicate()
    _, err = again.communicate(timeout=60)
    assert again.returncode == 130, err
    assert "another run" not in err
