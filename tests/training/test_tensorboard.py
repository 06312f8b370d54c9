"""What TensorBoard shows of a run, in a real browser."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser import browse
from tests.conftest import Run

LOADED = "--virtual-time-budget=30000"
SCALARS = {"train/loss", "val/loss", "val/psnr", "val/ssim", "val/kld", "lr"}
IMAGES = {"val/reconstructions", "samples", "traversals"}
HISTOGRAMS = {"val/kld_per_dimension"}
# The first two groups are open, the others tell how many cards they hold.
GROUPS = {"lr", "samples", "train", "traversals", "val"}


@pytest.fixture
def board(trained: Run) -> Iterator[str]:
    """The address of a TensorBoard on the run's logs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    options = ["--logdir", str(trained.logs.parent), "--port", str(port), "--host", "127.0.0.1"]
    command = [sys.executable, "-W", "ignore", "-m", "tensorboard.main", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not _has_runs(address):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def _has_runs(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/data/runs", timeout=10) as answer:
            return b"ear_vae" in answer.read()
    except (urllib.error.URLError, ConnectionError):
        return False


def tags(address: str, plugin: str) -> set[str]:
    with urllib.request.urlopen(f"{address}/data/plugin/{plugin}/tags", timeout=10) as answer:
        return set(json.load(answer)["ear_vae"])


@pytest.mark.slow
def test_the_curves_and_the_pictures_are_there(browser: str, board: str, tmp_path: Path) -> None:
    assert tags(board, "scalars") >= SCALARS
    assert tags(board, "images") == IMAGES
    assert tags(board, "histograms") == HISTOGRAMS
    page = f"{board}/#timeseries"
    dom = browse(browser, tmp_path, 1400, False, LOADED, "--dump-dom", page)
    shown = set(re.findall(r">\s*([a-z]+)\s*<", dom))
    assert shown >= GROUPS
    assert re.search(r"\d+ cards", dom)
    assert re.search(r"<img[^>]+src=\"data/plugin/timeseries/imageData", dom)
    shot = tmp_path / "shot.png"
    browse(browser, tmp_path, 1400, False, LOADED, f"--screenshot={shot}", page)
    with Image.open(shot) as picture:
        assert np.asarray(picture.convert("L")).std() > 10
