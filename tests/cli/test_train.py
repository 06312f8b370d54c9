"""`train` over an existing run, and what it says at its end."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from earteach import checkpoint
from tests.conftest import TINY, Result, Run, earteach

EPOCHS = 3
# One step an epoch on images as they are: the quickest run.
QUICK = [*TINY, "--batch-size", "64", "--num-workers", "0", "--augmentation", "none"]
LAST = Path("checkpoints/last.ckpt")


def train(*options: object) -> Result:
    """In the current folder, whose arrays and run lie where they lie by default."""
    return earteach("train", *QUICK, "--epochs", EPOCHS, *options)


def names_and_bytes() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def made(folder: Path, ears: Path, *options: object, stop: bool = False) -> Result:
    """Train in `folder` on a copy of the ears; `stop` interrupts after the first epoch."""
    shutil.copytree(ears, folder / "data" / "preprocessed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        if stop:
            patch.setattr("earteach.cli.train.epoch_line", interrupted_line)
        return train(*options)


def interrupted_line(_: object) -> str:
    os.kill(os.getpid(), signal.SIGINT)
    return "stopped"


@pytest.fixture(scope="module")
def made_stopped(ears: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    assert made(folder, ears, stop=True).code == 130
    return folder


@pytest.fixture(scope="module")
def made_finished(ears: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    assert made(folder, ears).code == 0
    return folder


@pytest.fixture
def stopped(made_stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder holds a run that was stopped after one epoch of three."""
    shutil.copytree(made_stopped, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return LAST


@pytest.fixture
def finished(made_finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder holds a finished run of three epochs."""
    shutil.copytree(made_finished, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return LAST


@pytest.mark.parametrize(
    "more",
    ["", "--num-workers 1", "--precision bf16 --accelerator cpu",
     "--log-dir elsewhere --checkpoint-every-n-steps 5"],
)  # fmt: skip
def test_same_options_continue_on_any_hardware(stopped: Path, more: str) -> None:
    result = train(*more.split(), "--json")
    assert result.code == 0, result.err
    assert result.json["resumed_from"] == str(LAST)
    assert result.json["epochs_completed"] == EPOCHS
    assert result.json["global_step"] == EPOCHS
    assert "note: continuing the run in checkpoints (epoch 2, step 1)" in result.err


DIFFERENT = [
    ("--latent-dim 8", ["--latent-dim 16 → 8"]),
    ("--seed 1 --learning-rate 0.5", ["--seed 42 → 1", "--learning-rate 0.0001 → 0.5"]),
    ("--kld-reduction sum", ["--kld-reduction mean → sum"]),
    ("--train-data data/preprocessed/val_teacher.npy",
     ["--train-data data/preprocessed/train_teacher.npy → data/preprocessed/val_teacher.npy"]),
    ("--epochs 9 --patience 2", ["--epochs 3 → 9", "--patience 30 → 2"]),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "differences"), DIFFERENT)
def test_other_options_are_an_error_that_lists_them(
    stopped: Path, typed: str, differences: list[str]
) -> None:
    before = names_and_bytes()
    result = train(*typed.split(), "--json")
    assert (result.code, result.out) == (1, "")
    error = result.err.splitlines()[-1]
    assert all(difference in error for difference in differences)
    assert error.count("→") == len(differences)
    assert "--fresh" in error
    assert f"earteach resume {LAST}" in error
    assert names_and_bytes() == before


def offered(result: Result) -> list[str]:
    """The command that an error offers in backquotes first."""
    found = re.search(r"`earteach (.+?)`", result.err.splitlines()[-1])
    assert found is not None
    return found[1].split()


def test_other_epochs_alone_are_offered_as_a_longer_run(stopped: Path) -> None:
    result = train("--epochs", 4)
    assert result.code == 1
    assert "a run of 3 epochs, not 4" in result.err
    assert "--fresh" in result.err
    assert offered(result) == ["resume", str(LAST), "--epochs", "4"]
    assert earteach(*offered(result), "--json").json["epochs_completed"] == 4


def test_a_finished_run_says_so_and_offers_more(finished: Path) -> None:
    before = names_and_bytes()
    result = train()
    assert (result.code, result.out) == (1, "")
    assert "finished after 3 epochs" in result.err
    assert "--fresh" in result.err
    assert names_and_bytes() == before
    assert offered(result)[:3] == ["resume", str(LAST), "--epochs"]
    assert earteach(*offered(result), "--json").json["epochs_completed"] > EPOCHS


def test_fresh_begins_anew_over_any_run(finished: Path) -> None:
    result = train("--latent-dim", 8, "--fresh", "--json")
    assert result.code == 0, result.err
    assert result.json["resumed_from"] is None
    assert checkpoint.read(LAST).config.model.latent_dim == 8
    assert checkpoint.read("checkpoints-old-1/last.ckpt").config.model.latent_dim == 16


def test_a_run_that_stopped_early_says_so(ears: Path, tmp_path: Path) -> None:
    still = ["--learning-rate", 1e-12, "--weight-decay", 0, "--patience", 1]
    assert made(tmp_path, ears, *still).code == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for result in (train(*still), earteach("resume")):
            assert result.code == 1
            assert "stopped early after 2 epochs" in result.err
            assert "--epochs" in result.err


@pytest.mark.parametrize("command", ["train", "resume"])
@pytest.mark.parametrize("name", ["train", "val"])
def test_a_changed_array_is_not_trained_on(stopped: Path, command: str, name: str) -> None:
    path = Path(f"data/preprocessed/{name}_teacher.npy")
    array = np.load(path)
    array[0] = 255 - array[0]
    np.save(path, array)
    result = train() if command == "train" else earteach("resume")
    assert (result.code, result.out) == (1, "")
    error = result.err.splitlines()[-1]
    assert f"{path}: is not the {name} array of {LAST} any more" in error
    assert "--init-from" in error


def test_a_broken_last_checkpoint_is_named(stopped: Path) -> None:
    LAST.write_bytes(LAST.read_bytes()[:5000])
    result = train()
    assert (result.code, result.out) == (1, "")
    assert f"error: {LAST}: is cut short" in result.err


def test_a_piped_run_says_one_line_an_epoch(ears: Path, tmp_path: Path) -> None:
    result = made(tmp_path, ears)
    lines = [line for line in result.err.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    assert "1/3" not in result.out
    assert "Lightning" not in result.err


def test_best_checkpoints_are_the_files_named(trained: Run) -> None:
    last = checkpoint.read(trained.last)
    assert trained.result["epochs_completed"] == last.epochs_completed == 4
    assert trained.result["global_step"] == last.global_step
    for which, prefix in (("loss", "best-epoch"), ("ssim", "best-ssim-epoch")):
        best = trained.result["best"][which]
        path = Path(best["path"])
        assert path.is_file()
        assert path.name.startswith(f"{prefix}={best['epoch']:03d}-{which}=")
        measured = checkpoint.read(path).about["metrics"][f"val/{which}"]
        assert best["value"] == measured
    assert len(list(trained.checkpoints.glob("*.ckpt"))) == 3
