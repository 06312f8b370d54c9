"""What is found below a folder, and what is passed over."""

import os
from pathlib import Path

import pytest

from earteach.files.search import find_files, without_repeats


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_files(folder, {".jpg"}).files]


def test_files_are_sorted_and_suffixes_have_no_case(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/1.jpg", "a.Jpg", "c.png", "jpg"):
        touch(tmp_path / name)
    assert names(tmp_path) == ["a.Jpg", "b/1.jpg", "b/2.JPG"]


@pytest.mark.parametrize(
    "folder",
    ["@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "lost+found",
     "@Recently-Snapshot", "~snapshot", "RECYCLER", "Network Trash Folder", "Temporary Items", "@tmp"],
)  # fmt: skip
def test_folders_of_the_system_are_passed_over_and_named(tmp_path: Path, folder: str) -> None:
    touch(tmp_path / "anna" / folder / "1.jpg" / "thumb.jpg")
    touch(tmp_path / "anna" / "1.jpg")
    found = find_files(tmp_path, {".jpg"})
    assert found.files == [tmp_path / "anna" / "1.jpg"]
    assert found.left_out == [(tmp_path / "anna" / folder, "a folder of the system")]


@pytest.mark.parametrize("name", [".AppleDouble/1.jpg", "._1.jpg", ".thumbnails/x/1.jpg"])
def test_hidden_files_are_passed_over(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "photos" / name)
    touch(tmp_path / "elsewhere" / "1.jpg")
    (tmp_path / "photos" / ".link").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "photos") == []


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    touch(source / "anna" / "1.jpg")
    touch(tmp_path / "elsewhere" / "bo" / "1.jpg")
    (source / "aaa").symlink_to(source / "anna")  # sorts before the folder itself
    (source / "linked").symlink_to(tmp_path / "elsewhere")
    (source / "loop").symlink_to(source)
    (tmp_path / "elsewhere" / "back").symlink_to(source)
    (source / "broken").symlink_to(tmp_path / "nowhere")
    found = find_files(source, {".jpg"})
    assert [path.relative_to(source).as_posix() for path in found.files] == [
        "anna/1.jpg", "linked/bo/1.jpg",
    ]  # fmt: skip
    twice = "a folder that is read already"
    assert {path.relative_to(source).as_posix(): why for path, why in found.left_out} == {
        "aaa": twice, "loop": twice, "linked/back": twice, "broken": "a link that leads nowhere",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("links", "files", "left_out"),
    [
        ({"zz": ".."}, ["anna/1.jpg"], ["zz/photos"]),
        ({"anna/up": "../.."}, ["anna/1.jpg"], ["anna/up/photos"]),
        # The second link leads to the folder above that of the first.
        (
            {"bo": "../raw/s1/bo", "s1": "../raw/s1"},
            ["anna/1.jpg", "bo/1.jpg", "s1/cy/1.jpg"],
            ["s1/bo"],
        ),
    ],
)
def test_no_folder_in_a_linked_one_is_read_twice(
    tmp_path: Path, links: dict[str, str], files: list[str], left_out: list[str]
) -> None:
    touch(tmp_path / "photos" / "anna" / "1.jpg")
    for person in ("bo", "cy") if "s1" in links else ():
        touch(tmp_path / "raw" / "s1" / person / "1.jpg")
    for name, target in links.items():
        (tmp_path / "photos" / name).symlink_to(target)
    found = find_files(tmp_path / "photos", {".jpg"})
    assert found.files == [tmp_path / "photos" / name for name in files]
    assert found.left_out == [
        (tmp_path / "photos" / name, "a folder that is read already") for name in left_out
    ]


def test_a_link_to_a_file_that_is_found_as_well_is_left_out(tmp_path: Path) -> None:
    for name in ("photos/bo/1.jpg", "else/1.jpg"):
        touch(tmp_path / name)
    best = tmp_path / "photos" / "best"  # sorts before the folder of the file itself
    best.mkdir()
    for name, target in (("a", "photos/bo/1.jpg"), ("b", "else/1.jpg"), ("c", "else/1.jpg")):
        (best / f"{name}.jpg").symlink_to(tmp_path / target)
    found = without_repeats(find_files(tmp_path / "photos", {".jpg"}))
    assert found.files == [best / "b.jpg", tmp_path / "photos" / "bo" / "1.jpg"]
    twice = "a link to a file that is read already"
    assert found.left_out == [(best / "a.jpg", twice), (best / "c.jpg", twice)]


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").symlink_to(tmp_path / "gone.jpg")
    touch(tmp_path / "2.jpg")
    found = find_files(tmp_path, {".jpg"})
    assert found.files == [tmp_path / "2.jpg"]
    assert [path for path, _ in found.left_out] == [tmp_path / "1.jpg"]


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For root every folder can be read, so the error is made here."""
    touch(tmp_path / "locked" / "1.jpg")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = find_files(tmp_path, {".jpg"})
    assert found.left_out == [(tmp_path / "locked", "cannot be read: Permission denied")]
