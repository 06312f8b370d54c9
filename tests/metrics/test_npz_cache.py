"""Stored arrays are loaded under their own key only, and never from a damaged file."""

import errno
import json
import logging
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from earteach.metrics.npz_cache import load_npz, store_npz

KEY = {"fingerprint": "abc", "size": 32, "version": 1}
ARRAYS = {"mean": np.arange(5, dtype=np.float32), "axes": np.eye(3, 5), "images": np.asarray(7)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "train.pca-16-32px.npz"
    store_npz(path, KEY, **ARRAYS)
    return path


def test_what_was_stored_is_loaded(path):
    loaded = load_npz(path, KEY)
    assert loaded.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("key", [{**KEY, "size": 48}, {**KEY, "more": 1}])
def test_another_key_finds_nothing_and_replaces_the_file(path, key):
    assert load_npz(path, key) is None
    store_npz(path, key, mean=np.zeros(2))
    assert load_npz(path, key).keys() == {"mean"}
    assert load_npz(path, KEY) is None


def test_damaged_and_other_files_are_not_loaded(tmp_path, path):
    data = path.read_bytes()
    for share in (0, 0.01, 0.5, 0.99, 0.999):
        path.write_bytes(data[: int(len(data) * share)])
        assert load_npz(path, KEY) is None
    assert load_npz(tmp_path / "none.npz", KEY) is None
    np.savez(path, mean=np.zeros(3))
    assert load_npz(path, KEY) is None
    np.savez(path, about=np.array("no JSON"), mean=np.zeros(3))
    assert load_npz(path, KEY) is None
    changed = bytearray(data)
    # A method of compression that nobody knows, in both headers.
    changed[8] = changed[data.index(b"PK\1\2") + 10] = 99
    path.write_bytes(changed)
    assert load_npz(path, KEY) is None


def test_nothing_in_the_file_is_unpickled(tmp_path):
    planted, path = tmp_path / "planted", tmp_path / "hostile.npz"

    class Calls:
        def __reduce__(self):
            return Path.touch, (planted,)

    np.savez(path, about=np.array(json.dumps(KEY)), mean=np.array([Calls()], dtype=object))
    assert load_npz(path, KEY) is None
    assert not planted.exists()


def test_a_full_disk_gives_a_note_and_keeps_the_old_file(path, monkeypatch, caplog):
    def fail(file: BinaryIO, **_: object) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", fail)
    with caplog.at_level(logging.INFO, "earteach"):
        store_npz(path, {}, mean=np.zeros(2))
    (message,) = caplog.messages
    assert str(path) in message
    assert "the disk is full" in message
    assert list(path.parent.iterdir()) == [path]
    assert load_npz(path, KEY) is not None
