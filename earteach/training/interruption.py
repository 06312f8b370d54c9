"""Ctrl-C, SIGTERM and SLURM's requeue signal: finish the step, save it, stop."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from types import FrameType
from typing import Any

REQUEUE = signal.SIGUSR1
_log = logging.getLogger(__name__)


class TrainingInterrupted(BaseException):
    """Raised in the training loop after the checkpoint of an interrupted run is written."""


class StopRequest:
    """A context that records the first signal; the second ends the process at once.

    Under SLURM, SIGUSR1 (`#SBATCH --signal=SIGUSR1@90`) counts too. It replaces Lightning's handler,
    which would write a checkpoint in the middle of a step.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        numbers = [signal.SIGINT, signal.SIGTERM, *([REQUEUE] if _slurm_job() else [])]
        self._previous = {number: signal.getsignal(number) for number in numbers}
        self.listen()
        return self

    def listen(self) -> None:
        """Install the handlers, again once training starts and Lightning has installed its own.

        With several devices Lightning's would wait for the other processes forever.
        """
        if threading.current_thread() is threading.main_thread():
            for number in self._previous:
                signal.signal(number, self._receive)

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = number


def requeue() -> None:
    """Put this SLURM job back into the queue; it continues from `last.ckpt`."""
    job = _slurm_job()
    assert job is not None
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        _log.warning("SLURM job %s could not be requeued: %s", job, error)
    else:
        _log.info("requeued SLURM job %s", job)


def _slurm_job() -> str | None:
    """The job's id; `<array>_<task>` for a task of a job array."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")
