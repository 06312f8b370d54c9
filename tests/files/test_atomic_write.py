"""A file is written whole or not at all, also by several processes at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from earteach.errors import EarTeachError
from earteach.files import atomic_write
from earteach.files.atomic_write import partial_path, write_atomically
from tests.conftest import files_of_at_most


def raise_half_way(error: BaseException) -> Callable[[Path], None]:
    def writer(partial: Path) -> None:
        partial.write_bytes(b"half")
        raise error

    return writer


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "the disk is full; free space"),
        (OSError(122, "Disk quota exceeded"), "the disk is full; free space"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (KeyboardInterrupt(), None),
        (ValueError("a bug"), None),
    ],
)
def test_a_failed_write_leaves_the_old_file(tmp_path, error, said):
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"old")
    with pytest.raises(EarTeachError if said else type(error)) as caught:
        write_atomically(path, raise_half_way(error))
    if said:
        assert said in str(caught.value)
        assert str(path) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_place_of_the_partial_file_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "precious.txt").write_text("mine")
    monkeypatch.setattr(atomic_write, "partial_path", lambda path: path.with_name(".partial"))
    (tmp_path / ".partial").symlink_to("precious.txt")
    write_atomically(tmp_path / "a.txt", lambda partial: partial.write_text("ours"))
    assert (tmp_path / "precious.txt").read_text() == "mine"
    assert not (tmp_path / "a.txt").is_symlink()


def test_names_as_long_as_they_may_be_can_be_written(tmp_path):
    for name in ("n" * 255, "ö" * 127, os.fsdecode(b"\xff" * 255)):
        write_atomically(tmp_path / name, lambda partial: partial.write_bytes(b"x"), durable=True)
        assert (tmp_path / name).read_bytes() == b"x"
    assert len(list(tmp_path.iterdir())) == 3


MANY = """
import sys
from pathlib import Path
from earteach.files.atomic_write import write_atomically
path, letter = Path(sys.argv[1]), sys.argv[2]
for turn in range(100):
    write_atomically(path, lambda partial: partial.write_text(letter * 20_000))
"""


@pytest.mark.slow
def test_ten_processes_that_write_one_file_leave_one_of_theirs(tmp_path):
    path = tmp_path / "file"
    letters = "abcdefghij"
    writing = [subprocess.Popen([sys.executable, "-c", MANY, path, letter]) for letter in letters]
    seen = set()
    while any(process.poll() is None for process in writing):
        if path.exists():
            text = path.read_text()
            assert text in {letter * 20_000 for letter in letters}
            seen.add(text[0])
    assert all(process.returncode == 0 for process in writing)
    assert len(seen) > 1
    assert list(tmp_path.iterdir()) == [path]
    assert partial_path(path).parent == tmp_path


def test_numpy_too_says_that_the_disk_is_full(tmp_path):
    """A short write of its own is an OSError without a number."""
    with files_of_at_most(4096), pytest.raises(EarTeachError, match="the disk is full"):
        write_atomically(tmp_path / "a.npy", lambda partial: save(partial, np.zeros(25_600)))
    assert list(tmp_path.iterdir()) == []


def save(path: Path, values: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, values)
