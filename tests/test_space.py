"""Work that cannot fit on the disk is refused before it begins."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from earteach.config import TrainConfig
from earteach.errors import EarTeachError
from earteach.files.disk_space import check_space, readable
from earteach.training.resource_checks import check_space_for_run, checkpoint_bytes, log_bytes
from tests.conftest import TINY, TINY_RUN, Run, data_options, earteach, run_options

Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.fixture
def leave(monkeypatch: pytest.MonkeyPatch):
    """Pretend that so many bytes are free."""

    def leave(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**15, 10**15 - free, free))

    return leave


def tiny(**more: object) -> TrainConfig:
    options = {"image_size": 32, "base_channels": 8, "latent_dim": 16, **more}
    return TrainConfig().with_options(options)


def test_it_asks_the_disk_that_the_folder_will_be_on(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    below = tmp_path / "not" / "yet"
    check_space(below, free // 2, "it", "wait")
    with pytest.raises(
        EarTeachError, match=r"yet: it needs .*, but only .* is free; free space, or wait"
    ):
        check_space(below, 3 * free, "it", "wait")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (3_140_000, "3.1 MB"),
     (31_400_000_000, "31 GB"), (5 * 10**15, "5,000 TB")],
)  # fmt: skip
def test_sizes_are_readable(size: int, text: str) -> None:
    assert readable(size) == text


def test_a_checkpoint_has_the_predicted_size(trained: Run) -> None:
    predicted, written = checkpoint_bytes(tiny()), trained.last.stat().st_size
    # Beside the numbers lie names and, of each tensor, a header and twice the name that the file had
    # while it was written, longer if the last epoch is the best: much for a network so small.
    assert predicted < written < predicted + 360_000


@pytest.mark.parametrize(("option", "what"), [("checkpoint_dir", 4), ("log_dir", 1)])
def test_a_run_needs_four_checkpoints_and_its_log(
    tmp_path: Path, leave, option: str, what: int
) -> None:
    folders = {"checkpoint_dir": tmp_path / "c", "log_dir": tmp_path / "l"}
    # With few epochs the log is the smaller one, with many the larger.
    config = tiny(epochs=1 if option == "checkpoint_dir" else 10**6, **folders)
    needed = 4 * checkpoint_bytes(config) if what == 4 else log_bytes(config, 10**6)
    leave(needed)
    check_space_for_run(config)
    leave(needed - 1)
    with pytest.raises(
        EarTeachError, match=f"choose another --{option.replace('_', '-')}"
    ) as caught:
        check_space_for_run(config)
    assert str(folders[option]) in str(caught.value)


def test_checkpoints_that_are_there_are_not_counted_again(trained: Run, leave) -> None:
    config = tiny(epochs=4, checkpoint_dir=trained.checkpoints)
    there = {path.stat().st_ino: path.stat().st_size for path in trained.checkpoints.glob("*.ckpt")}
    leave(4 * checkpoint_bytes(config) - sum(there.values()))
    check_space_for_run(config, epochs_done=4)
    with pytest.raises(EarTeachError, match="keeps 4 checkpoints"):
        check_space_for_run(config, epochs_done=4, fresh=True)


def test_train_refuses_before_it_writes_or_moves_anything(
    ears: Path, tmp_path: Path, leave
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    leave(1000)
    result = earteach(
        "train", *data_options(ears), *run_options(tmp_path), *TINY_RUN, "--epochs", 1, "--fresh"
    )
    assert (result.code, result.out) == (1, "")
    assert "checkpoints: a run that keeps 4 checkpoints of" in result.err
    assert "but only 1.0 kB is free; free space, or choose another --checkpoint-dir" in result.err
    assert [path.name for path in tmp_path.rglob("*")] == ["checkpoints", "last.ckpt"]


def test_prepare_refuses_before_it_makes_a_folder(tmp_path: Path, leave) -> None:
    drawn = ["prepare", "--synthetic", 10, "--image-size", 32, "--out", tmp_path / "new"]
    leave(10 * 32 * 32 * 3 - 1)
    result = earteach(*drawn)
    assert (result.code, result.out) == (1, "")
    assert "new: an array of 10 images needs 31 kB there, but only 31 kB is free" in result.err
    assert list(tmp_path.iterdir()) == []
    leave(10 * 32 * 32 * 3)
    assert earteach(*drawn).code == 0
    lengths = [len(np.load(tmp_path / "new" / f"{name}_teacher.npy")) for name in ("train", "val")]
    assert sum(lengths) == 10


def test_a_dry_run_needs_no_space(ears: Path, tmp_path: Path, leave) -> None:
    leave(0)
    assert earteach("train", *data_options(ears), *TINY, "--dry-run").code == 0
