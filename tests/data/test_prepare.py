"""Photographs and drawn ears to two arrays: nobody in both, everything accounted for."""

from __future__ import annotations

import csv
import os
import resource
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from earteach.data.drawn import draw_ear
from earteach.data.prepare import Crop, Prepared, prepare, prepare_drawn
from earteach.data.split import Split
from earteach.errors import EarTeachError

SIZE = 32
PEOPLE = ("anna", "bo", "chi", "dua", "eva", "finn")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six people, four photographs each in a folder of theirs, each of one gray level."""
    folder = tmp_path / "photos"
    for person, name in enumerate(PEOPLE):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            level = 10 * (4 * person + number) + 5
            picture = np.full((40, 30 + number, 3), (level, level, 255 - level), np.uint8)
            Image.fromarray(picture).save(folder / name / f"{name}_{number}.png")
    return folder


def manifest(array: Path) -> list[dict[str, str]]:
    name = array.name.replace("_teacher.npy", "_manifest.csv")
    with (array.parent / name).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def both(result: Prepared) -> list[tuple[np.ndarray, list[dict[str, str]]]]:
    return [(np.load(part.path), manifest(part.path)) for part in (result.train, result.val)]


def groups_of(result: Prepared) -> tuple[set[str], set[str]]:
    train, val = ({row["group"] for row in rows} for _, rows in both(result))
    return train, val


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("gray", [False, True])
def test_each_photograph_is_in_the_row_that_the_manifest_says(photos: Path, gray: bool) -> None:
    out = photos.parent / "out"
    result = prepare(photos, out, crop=Crop(SIZE, gray))
    assert result.rejected == ()
    sources = []
    for part, (images, rows) in zip((result.train, result.val), both(result), strict=True):
        assert images.shape == (len(rows), SIZE, SIZE, 1 if gray else 3)
        assert images.dtype == np.uint8
        assert part.images == len(rows)
        for number, row in enumerate(rows):
            assert int(row["row"]) == number
            photo = pixels(row["source"])
            pixel = photo[0, 0] if not gray else photo[0, 0] @ np.array([0.299, 0.587, 0.114])
            assert np.abs(images[number] - np.asarray(pixel, float)).max() <= 1
            box = [int(row[key]) for key in ("left", "top", "width", "height")]
            assert box == [0, 0, photo.shape[1], photo.shape[0]]
            assert row["mirrored"] == "0"
        sources += [row["source"] for row in rows]
    assert sorted(sources) == sorted(map(str, photos.rglob("*.png")))


def test_the_manifests_columns_are_those_that_were_promised(photos: Path) -> None:
    result = prepare(photos, photos.parent / "out", crop=Crop(SIZE))
    header = "row,source,group,left,top,width,height,mirrored,photograph_width,photograph_height"
    for name in ("train_manifest.csv", "val_manifest.csv"):
        assert (result.train.path.parent / name).read_text().splitlines()[0] == header
    assert sorted(contents(result.train.path.parent)) == [
        "train_manifest.csv", "train_teacher.npy", "val_manifest.csv", "val_teacher.npy",
    ]  # fmt: skip


def test_reflect_is_told_by_a_box_outside_the_photograph(photos: Path) -> None:
    result = prepare(photos, photos.parent / "out", crop=Crop(SIZE, fit="reflect"))
    for _, rows in both(result):
        for row in rows:
            width = pixels(row["source"]).shape[1]
            assert int(row["left"]) == -((40 - width) // 2)
            assert (row["top"], row["width"], row["height"]) == ("0", "40", "40")


GROUPINGS: dict[str, dict[str, Any]] = {
    "by folder": {"group_by": "folder"},
    "by a group in the name": {"group_pattern": r"^([a-z]+)_"},
    "by the whole match": {"group_pattern": r"^[a-z]+"},
}


@pytest.mark.parametrize("how", GROUPINGS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_nobody_is_in_both_arrays(photos: Path, how: str, seed: int) -> None:
    result = prepare(
        photos,
        photos.parent / "out",
        crop=Crop(SIZE),
        split=Split(0.3, seed=seed),
        **GROUPINGS[how],
    )
    train, val = groups_of(result)
    assert train | val == set(PEOPLE)
    assert not train & val
    for _, rows in both(result):
        assert all(Path(row["source"]).parent.name == row["group"] for row in rows)
        assert set(Counter(row["group"] for row in rows).values()) == {4}


def test_by_file_each_photograph_is_a_group(photos: Path) -> None:
    train, val = groups_of(prepare(photos, photos.parent / "out", crop=Crop(SIZE)))
    names = {path.relative_to(photos).as_posix() for path in photos.rglob("*.png")}
    assert train | val == names
    assert len(val) == round(0.15 * 24)


def test_folders_within_folders_and_the_source_itself_are_groups(photos: Path) -> None:
    (photos / "bo" / "old").mkdir()
    (photos / "bo" / "bo_0.png").rename(photos / "bo" / "old" / "bo_0.png")
    (photos / "chi" / "chi_0.png").rename(photos / "chi_0.png")
    train, val = groups_of(
        prepare(photos, photos.parent / "out", crop=Crop(SIZE), group_by="folder")
    )
    assert train | val == {*PEOPLE, "bo/old", "."}


def test_named_groups_are_the_validation_array(photos: Path) -> None:
    split = Split(val_groups="^(bo|eva)$")
    result = prepare(photos, photos.parent / "out", crop=Crop(SIZE), group_by="folder", split=split)
    assert groups_of(result)[1] == {"bo", "eva"}
    assert (result.train.images, result.val.images) == (16, 8)


@pytest.mark.parametrize("fraction", [0.05, 0.15, 0.3, 0.5, 0.9])
@pytest.mark.parametrize(
    "sizes", [[1] * 100, [7] * 20, list(range(1, 30)), [3, 1], [100, *[1] * 20]]
)
def test_the_share_is_kept_within_a_group(sizes: list[int], fraction: float) -> None:
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    shares = []
    for seed in range(10):
        chosen = Split(fraction, seed=seed).validation(groups)
        taken = sum(sizes[int(group[1:])] for group in chosen)
        assert 0 < len(chosen) < len(sizes)
        assert abs(taken - fraction * len(groups)) <= max(sizes)
        shares.append(frozenset(chosen))
    if len(sizes) > 2:
        assert len(set(shares)) > 1


def test_one_large_group_does_not_become_the_validation_array() -> None:
    groups = ["studio"] * 100 + [f"visitor {number}" for number in range(30)]
    for seed in range(40):
        assert "studio" not in Split(0.15, seed=seed).validation(groups)
    assert Split(0.15).validation(["many"] * 100 + ["few"] * 40) == {"few"}


def test_the_split_depends_on_the_groups_and_not_on_their_order() -> None:
    groups = [f"g{number}" for number in range(50)]
    assert Split(0.3, seed=5).validation(groups) == Split(0.3, seed=5).validation(groups[::-1])


ERRORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "share of nothing": (lambda p: Split(0), "--val-fraction 0"),
    "share of all": (lambda p: Split(1.0), "--val-fraction 1"),
    "share that is no number": (lambda p: Split(float("nan")), "--val-fraction nan"),
    "bad pattern": (
        lambda p: prepare(p, p.parent / "out", group_pattern="("),
        r"--group-pattern \(: not a regular expression",
    ),
    "bad val groups": (
        lambda p: prepare(p, p.parent / "out", split=Split(val_groups="[")),
        r"--val-groups \[: not a regular expression",
    ),
    "pattern finds nothing": (
        lambda p: prepare(p, p.parent / "out", group_pattern=r"^(\d+)_"),
        "--group-pattern .* anna_0.png",
    ),
    "pattern finds it only in some": (
        lambda p: prepare(p, p.parent / "out", group_pattern=r"^(a.*|b.*|c.*|d.*|f.*)_"),
        "eva_0.png",
    ),
    # Everybody for whom it is missing would be one person.
    "group is optional": (
        lambda p: prepare(p, p.parent / "out", group_pattern=r"(xyz)?_"),
        "anna_0.png",
    ),
    "val groups name nobody": (
        lambda p: prepare(p, p.parent / "out", group_by="folder", split=Split(val_groups="zoe")),
        "--val-groups zoe: takes none of the 6 groups .*anna",
    ),
    "val groups name all": (
        lambda p: prepare(p, p.parent / "out", group_by="folder", split=Split(val_groups=".")),
        r"--val-groups \.: takes all of the 6 groups",
    ),
    "one group": (
        lambda p: prepare(p / "bo", p.parent / "out", group_by="folder"),
        "of the 1 groups",
    ),
    "no folder": (lambda p: prepare(p / "none", p.parent / "out"), "none: no such folder"),
    "out is a file": (lambda p: prepare(p, p / "bo" / "bo_0.png"), "bo_0.png: is a file"),
    "out lies below a file": (
        lambda p: prepare(p, p / "bo" / "bo_0.png" / "out"),
        "lies below a file",
    ),
    "one drawn ear": (lambda p: prepare_drawn(1, p.parent / "out"), "--synthetic 1"),
}


@pytest.mark.parametrize("what", ERRORS)
def test_what_the_user_can_fix_is_an_error_of_one_line(photos: Path, what: str) -> None:
    action, says = ERRORS[what]
    with pytest.raises(EarTeachError, match=says) as caught:
        action(photos)
    assert "\n" not in str(caught.value)
    out = photos.parent / "out"
    assert not out.exists() or not list(out.iterdir())


def test_unreadable_files_are_named_with_reasons_and_the_rest_is_done(photos: Path) -> None:
    empty, text, cut = (photos / "bo" / f"bo_{number}.png" for number in range(3))
    cut.write_bytes(cut.read_bytes()[:60])
    empty.write_bytes(b"")
    text.write_text("not a picture")
    result = prepare(photos, photos.parent / "out", crop=Crop(SIZE))
    assert [entry.path for entry in result.rejected] == [empty, text, cut]
    assert [entry.reason for entry in result.rejected] == [
        "the file is empty", "not an image that can be read", "not an image that can be read",
    ]  # fmt: skip
    written = {row["source"] for _, rows in both(result) for row in rows}
    assert written == set(map(str, photos.rglob("*.png"))) - {str(empty), str(text), str(cut)}
    assert result.train.images + result.val.images == 21


@pytest.mark.parametrize("spoiled", [PEOPLE, ("bo", "eva"), ("anna", "chi", "dua", "finn")])
@pytest.mark.parametrize("before", [False, True])
def test_an_array_of_which_nothing_can_be_read_leaves_all_as_it_was(
    photos: Path, spoiled: tuple[str, ...], before: bool
) -> None:
    out = photos.parent / "out"
    split = Split(val_groups="^(bo|eva)$")
    if before:
        prepare(photos, out, crop=Crop(16), group_by="folder", split=split)
    else:
        out.mkdir()
    old = contents(out)
    for person in spoiled:
        for path in (photos / person).iterdir():
            path.write_bytes(b"no picture")
    with pytest.raises(EarTeachError, match=r"could be read .*not an image"):
        prepare(photos, out, crop=Crop(SIZE), group_by="folder", split=split)
    assert contents(out) == old


def test_a_second_run_replaces_the_first(photos: Path) -> None:
    out = photos.parent / "out"
    prepare_drawn(10, out, size=SIZE)
    assert (out / "train_landmarks.npy").exists()
    result = prepare(photos, out, crop=Crop(SIZE))
    assert result.train.images + result.val.images == 24
    fresh = photos.parent / "fresh"
    prepare(photos, fresh, crop=Crop(SIZE))
    assert contents(out) == contents(fresh)  # no landmarks of other ears are left


@pytest.mark.parametrize(
    "foreign",
    ["train_teacher.npy", "val_teacher.npy", "val_manifest.csv", "train_landmarks.npy"],
)
def test_files_that_prepare_did_not_write_are_not_replaced(photos: Path, foreign: str) -> None:
    out = photos.parent / "out"
    out.mkdir()
    (out / foreign).write_text("mine")
    with pytest.raises(EarTeachError, match=foreign):
        prepare(photos, out, crop=Crop(SIZE))
    with pytest.raises(EarTeachError, match=foreign):
        prepare_drawn(4, out, size=SIZE)
    assert contents(out) == {foreign: b"mine"}


def test_an_array_beside_another_tools_manifest_is_not_replaced(photos: Path) -> None:
    out = photos.parent / "out"
    out.mkdir()
    (out / "train_teacher.npy").write_text("mine")
    (out / "train_manifest.csv").write_text("file,person\n")
    with pytest.raises(EarTeachError, match="did not write it"):
        prepare(photos, out, crop=Crop(SIZE))
    assert (out / "train_teacher.npy").read_text() == "mine"


def test_other_files_in_the_folder_are_left_alone(photos: Path) -> None:
    out = photos.parent / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    prepare(photos, out, crop=Crop(SIZE))
    assert (out / "notes.txt").read_text() == "mine"


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """What a full disk is like: writing beyond `size` fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("room", [100, 5000, 20_000])
def test_a_full_disk_is_an_error_that_leaves_all_as_it_was(photos: Path, room: int) -> None:
    out = photos.parent / "out"
    prepare(photos, out, crop=Crop(16))
    old = contents(out)
    with no_file_larger_than(room), pytest.raises(EarTeachError, match="cannot be written"):
        prepare(photos, out, crop=Crop(SIZE))
    assert contents(out) == old


def test_names_of_any_bytes_come_through_the_manifest(photos: Path) -> None:
    odd = [b"a b.png", "ünï 耳.png".encode(), b"\xff\xfe.png", b'comma, "quote".png', b"line\n.png"]
    source = os.fsencode(photos / "bo" / "bo_0.png")
    for name in odd:
        with open(os.path.join(os.fsencode(photos), name), "wb") as file:  # noqa: PTH118, PTH123
            file.write(Path(os.fsdecode(source)).read_bytes())
    result = prepare(photos, photos.parent / "out", crop=Crop(SIZE))
    assert result.rejected == ()
    sources = {os.fsencode(row["source"]) for _, rows in both(result) for row in rows}
    assert {os.fsencode(photos) + b"/" + name for name in odd} <= sources


@pytest.mark.parametrize("drawn", [False, True])
def test_the_number_of_cores_does_not_matter(
    photos: Path, monkeypatch: pytest.MonkeyPatch, drawn: bool
) -> None:
    (photos / "bo" / "bo_1.png").write_bytes(b"")
    written = []
    for cores in (1, 2, 7):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, n=cores: set(range(n)))
        out = photos.parent / f"out{cores}"
        result = prepare_drawn(90, out, size=16) if drawn else prepare(photos, out, crop=Crop(SIZE))
        written.append((contents(out), result.rejected))
    assert written[0] == written[1] == written[2]


def test_progress_counts_every_photograph_to_the_end(photos: Path) -> None:
    (photos / "bo" / "bo_1.png").write_bytes(b"")
    calls: list[tuple[int, int]] = []
    prepare(photos, photos.parent / "out", crop=Crop(SIZE), progress=lambda *c: calls.append(c))
    assert calls == [(done, 24) for done in range(1, 25)]


@pytest.mark.parametrize(("number", "gray"), [(2, False), (23, False), (5, True)])
def test_drawn_ears_are_counted_in_all_and_have_their_landmarks(
    tmp_path: Path, number: int, gray: bool
) -> None:
    result = prepare_drawn(number, tmp_path, size=SIZE, seed=3, gray=gray)
    assert result.train.images + result.val.images == number
    seen = []
    for name, (images, rows) in zip(("train", "val"), both(result), strict=True):
        landmarks = np.load(tmp_path / f"{name}_landmarks.npy")
        assert landmarks.dtype == np.float32
        assert landmarks.shape == (len(images), 55, 2)
        assert images.shape == (len(rows), SIZE, SIZE, 1 if gray else 3)
        for image, points, row in zip(images, landmarks, rows, strict=True):
            index = int(row["source"].rsplit("-", 1)[1])
            ear = draw_ear(3, index, SIZE)
            np.testing.assert_array_equal(points, ear.landmarks)
            luma = ear.image @ np.array([[0.299], [0.587], [0.114]])
            assert np.abs(image - (luma if gray else ear.image.astype(float))).max() <= 1
            seen.append(index)
    assert sorted(seen) == list(range(number))


def test_the_seed_decides_which_ears_are_drawn_and_the_splits_which_are_validation(
    tmp_path: Path,
) -> None:
    def drawn(name: str, seed: int, split: int) -> Prepared:
        return prepare_drawn(20, tmp_path / name, size=16, seed=seed, split=Split(0.2, seed=split))

    base = drawn("base", 1, 1)
    assert contents(tmp_path / "base") == (drawn("again", 1, 1), contents(tmp_path / "again"))[1]
    assert groups_of(drawn("split", 1, 2))[1] != groups_of(base)[1]
    other = np.load(drawn("seed", 2, 1).train.path)
    assert not (other[:, None] == np.load(base.train.path)[None]).all((2, 3, 4)).any()
    assert base.val.images == 4
