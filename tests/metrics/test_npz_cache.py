"""What is kept beside an array is found again, or made anew."""

import errno
import json
import logging
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from earteach.metrics.npz_cache import load_npz, store_npz

ABOUT = {"fingerprint": "abc", "size": 32, "version": 1}
VALUES = {"mean": np.arange(5, dtype=np.float32), "axes": np.eye(3, 5), "images": np.asarray(7)}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "train.pca-16-32px.npz"
    store_npz(path, ABOUT, **VALUES)
    return path


def test_what_was_stored_is_loaded(kept):
    found = load_npz(kept, ABOUT)
    assert found is not None
    assert found.keys() == VALUES.keys()
    for name, value in VALUES.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)
    assert list(kept.parent.iterdir()) == [kept]


@pytest.mark.parametrize(
    "about",
    [{**ABOUT, "fingerprint": "abd"}, {**ABOUT, "size": 48}, {**ABOUT, "more": 1}, {}],
)
def test_what_is_about_something_else_is_not_loaded(kept, about):
    assert load_npz(kept, about) is None
    store_npz(kept, about, mean=np.zeros(2))
    found = load_npz(kept, about)
    assert found is not None
    assert found.keys() == {"mean"}
    assert load_npz(kept, ABOUT) is None


def test_a_missing_file_is_not_loaded(tmp_path):
    assert load_npz(tmp_path / "none.npz", ABOUT) is None
    assert load_npz(tmp_path, ABOUT) is None


@pytest.mark.parametrize("share", [0, 0.01, 0.2, 0.5, 0.8, 0.99, 0.999])
def test_a_truncated_file_is_not_loaded(kept, share):
    data = kept.read_bytes()
    kept.write_bytes(data[: int(len(data) * share)])
    assert load_npz(kept, ABOUT) is None


def test_a_file_of_another_kind_is_not_loaded(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, mean=np.zeros(3))
    assert load_npz(path, ABOUT) is None
    np.savez(path, about=np.array("no JSON"), mean=np.zeros(3))
    assert load_npz(path, ABOUT) is None
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert load_npz(path, ABOUT) is None


def test_nothing_in_the_file_is_unpickled(tmp_path):
    planted, path = tmp_path / "planted", tmp_path / "hostile.npz"

    class Calls:
        def __reduce__(self):
            return Path.touch, (planted,)

    np.savez(path, about=np.array(json.dumps(ABOUT)), mean=np.array([Calls()], dtype=object))
    assert load_npz(path, ABOUT) is None
    assert not planted.exists()
    with np.load(path, allow_pickle=True) as careless:
        _ = careless["mean"]
    assert planted.exists()


def test_a_full_disk_is_noted_and_leaves_the_old_file(kept, monkeypatch, caplog):
    def full(file: BinaryIO, **_: object) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with caplog.at_level(logging.INFO, "earteach"):
        store_npz(kept, {}, mean=np.zeros(2))
    (message,) = caplog.messages
    assert str(kept) in message
    assert "the disk is full" in message
    assert list(kept.parent.iterdir()) == [kept]
    assert load_npz(kept, ABOUT) is not None


def test_a_read_only_disk_is_noted(tmp_path, monkeypatch, caplog):
    """Linux refuses to remove from it even what is not there."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(np, "savez", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with caplog.at_level(logging.INFO, "earteach"):
        store_npz(tmp_path / "x.npz", ABOUT, **VALUES)
    (message,) = caplog.messages
    assert "Read-only file system" in message


def test_a_folder_that_cannot_be_written_is_noted(tmp_path, caplog):
    (tmp_path / "file").touch()
    with caplog.at_level(logging.INFO, "earteach"):
        store_npz(tmp_path / "file" / "x.npz", ABOUT, **VALUES)
    (message,) = caplog.messages
    assert "Not a directory" in message
