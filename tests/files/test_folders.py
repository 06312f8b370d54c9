"""Folders are made, or it is said why not; those made for nothing are removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from earteach.errors import EarTeachError
from earteach.files.folders import make_folder, missing_folders, remove_empty


@pytest.mark.parametrize(
    ("name", "says"),
    [("file", "is a file"), ("file/below", "is below a file"), ("n" * 300, "cannot be created")],
)
def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EarTeachError, match=says):
        make_folder(tmp_path / name)


def test_what_was_made_and_stayed_empty_is_removed(tmp_path: Path) -> None:
    missing = missing_folders(tmp_path / "a" / "b" / "c")
    assert missing == [tmp_path / "a" / "b" / "c", tmp_path / "a" / "b", tmp_path / "a"]
    make_folder(missing[0])
    (tmp_path / "a" / "another's").touch()
    remove_empty(missing)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "another's"]
    remove_empty(missing)
