"""A disk that is full: one line, exit code 1, nothing half-written, whatever the command."""

from __future__ import annotations

from pathlib import Path

import joblib  # noqa: F401 - when scikit-learn first imports it, it makes a lock, which is a file
import pytest

from tests.conftest import TINY_RUN, data_options, earteach, files_of_at_most, run_options

# What each types after its name; {} is where it writes, {last} a checkpoint, {ears} a folder of arrays.
WRITING = {
    "prepare": "--synthetic 8 --image-size 32 --out {}",
    "inspect-data": "{ears}/train_teacher.npy {ears}/val_teacher.npy --image-size 32 --out {}",
    "eval": "{last} --out {}",
    "sample": "{last} -n 2 --out {}",
    "reconstruct": "{last} --input {ears}/val_teacher.npy -n 2 --out {}",
    "embed": "{last} --input {ears}/val_teacher.npy --out {}/codes.npz",
    "report": "{last} --out {}/report.html",
    "export": "{last} --format torchscript --out {}/ear.pt",
}


def contents(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*")}


def assert_one_line(err: str) -> None:
    *notes, error = err.splitlines()
    assert all(line.startswith("note: ") for line in notes), err
    assert error.startswith("error: ")
    assert "the disk is full" in error or "File too large" in error
    assert "Traceback" not in err


@pytest.mark.parametrize("room", [0, 600])
@pytest.mark.parametrize("command", WRITING)
def test_a_full_disk_is_one_line(trained, ears, tmp_path, command, room):
    out = tmp_path / "out"
    typed = WRITING[command].format(out, last=trained.last, ears=ears).split()
    with files_of_at_most(room):
        result = earteach(command, *typed)
    assert result.code == 1, result.err
    assert result.out == ""
    assert_one_line(result.err)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("command", ["train", "distil"])
@pytest.mark.parametrize("room", [100, 20_000])
def test_a_run_that_cannot_be_kept_ends_in_one_line(trained, ears, tmp_path, command, room):
    if command == "train":
        typed = [*data_options(ears), *run_options(tmp_path), *TINY_RUN, "--epochs", 2]
    else:
        typed = [trained.last, "--epochs", 2, "--out", tmp_path / "students"]
    with files_of_at_most(room):
        result = earteach(command, *typed)
    assert result.code == 1, result.err
    assert_one_line(result.err)
    assert {path.name for path in tmp_path.rglob("*.ckpt")} <= {"teacher.ckpt"}  # a link
    assert not list(tmp_path.rglob("*.partial"))
