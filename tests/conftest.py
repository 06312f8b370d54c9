"""Tiny drawn ears, a tiny trained run, and the command line called in process."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# One thread: the networks are tiny, and two busy threads on a busy machine wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["NO_COLOR"] = "1"
os.environ["COLUMNS"] = "200"

import pytest
from hypothesis import HealthCheck, settings
from typer.testing import CliRunner

from tests import browser as browser_module

TINY = ["--image-size", "32", "--base-channels", "8", "--latent-dim", "16"]
TINY_RUN = [
    *TINY, "--batch-size", "8", "--learning-rate", "2e-2", "--num-workers", "0", "--teach-weight", "0"
]  # fmt: skip

# Of the fixture `trained`, beside TINY_RUN.
TEACHING = ["--teach-weight", "0.02"]


# A busy machine is slow for reasons of its own.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def slow(*values: object) -> Any:
    """A case that `make test` leaves to `make test-slow`."""
    return pytest.param(*values, marks=pytest.mark.slow)


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def earteach(*args: object) -> Result:
    """The command line, in process; an exception that is not the user's to fix is raised."""
    from earteach.cli.app import app

    result = CliRunner().invoke(app, list(map(str, args)))
    # A process ends with its command; here the next test may look at the log itself.
    log = logging.getLogger("earteach")
    log.handlers.clear()
    log.propagate = True
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Result(result.exit_code, result.stdout, result.stderr)


def earteach_process(*args: object, cwd: Path | None = None, **env: str) -> subprocess.Popen[str]:
    """The command line as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "earteach", *map(str, args)],
        cwd=cwd,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses to let a file grow larger, much as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def data_options(folder: Path) -> list[str]:
    return [
        "--train-data", str(folder / "train_teacher.npy"),
        "--val-data", str(folder / "val_teacher.npy"),
    ]  # fmt: skip


def run_options(folder: Path) -> list[str]:
    return ["--checkpoint-dir", str(folder / "checkpoints"), "--log-dir", str(folder / "logs")]


@pytest.fixture(scope="session")
def ears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 48 drawn ears of 32 pixels as two arrays."""
    folder = tmp_path_factory.mktemp("ears")
    result = earteach("prepare", "--synthetic", 48, "--image-size", 32, "--out", folder)
    assert result.code == 0, result.err
    return folder


@dataclass(frozen=True)
class Run:
    """A finished training run and what it printed as JSON."""

    folder: Path
    result: Any

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def last(self) -> Path:
        return self.checkpoints / "last.ckpt"

    @property
    def logs(self) -> Path:
        return self.folder / "logs" / "ear_vae"


@pytest.fixture(scope="session")
def trained(ears: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of four epochs. Tests must not change it."""
    folder = tmp_path_factory.mktemp("run")
    result = earteach(
        "train", *data_options(ears), *run_options(folder), *TINY_RUN, *TEACHING, "--epochs", 4,
        "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    return Run(folder, result.json)


@pytest.fixture(scope="module")
def bf16_everywhere() -> Iterator[None]:
    """A CPU that lacks instructions for bf16 runs it all the same, slowly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
        yield


@pytest.fixture(scope="session")
def browser() -> str:
    found = browser_module.found()
    if found is None:
        pytest.skip(f"none of {', '.join(browser_module.BROWSERS)} is on the PATH")
    return found
