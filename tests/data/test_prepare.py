"""Photographs and drawn ears become two arrays: nobody is in both, and everything is accounted for."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from earteach.data.crops import Crop
from earteach.data.prepare import Prepared, prepare, prepare_drawn
from earteach.data.split import Split
from earteach.errors import EarTeachError
from earteach.synthetic.drawn_ear import draw_ear
from tests.conftest import earteach, earteach_process, files_of_at_most

SIZE = 32
Form = Literal["NFC", "NFD"]
LUMA = np.array([[0.299], [0.587], [0.114]])
PEOPLE = ("anna", "bo", "chi", "dua", "eva", "finn")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six people with a folder of four photographs each, every photograph of one colour."""
    folder = tmp_path / "photos"
    for person, name in enumerate(PEOPLE):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            level = 10 * (4 * person + number) + 5
            picture = np.full((40, 30 + number, 3), (level, level, 255 - level), np.uint8)
            Image.fromarray(picture).save(folder / name / f"{name}_{number}.png")
    return folder


@pytest.fixture
def out(photos: Path) -> Path:
    return photos.parent / "out"


def manifest(array: Path) -> list[dict[str, str]]:
    path = array.with_name(array.name.replace("_teacher.npy", "_manifest.csv"))
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def both(result: Prepared) -> list[tuple[np.ndarray, list[dict[str, str]]]]:
    return [(np.load(part.path), manifest(part.path)) for part in (result.train, result.val)]


def groups_of(result: Prepared) -> tuple[set[str], set[str]]:
    train, val = ({row["group"] for row in rows} for _, rows in both(result))
    return train, val


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("fit", ["stretch", "reflect"])
def test_each_photograph_is_in_the_row_that_the_manifest_says(photos, out, gray, fit) -> None:
    result = prepare(photos, out, crop=Crop(SIZE, gray, fit))
    assert result.rejected == ()
    assert result.side_unknown == 0
    sources = []
    for part, (images, rows) in zip((result.train, result.val), both(result), strict=True):
        assert images.shape == (len(rows), SIZE, SIZE, 1 if gray else 3)
        assert images.dtype == np.uint8
        assert part.images == len(rows)
        for number, row in enumerate(rows):
            assert list(row) == [
                "row", "source", "group", "left", "top", "width", "height", "mirrored",
                "photograph_width", "photograph_height",
            ]  # fmt: skip
            assert (row["row"], row["mirrored"]) == (str(number), "0")
            with Image.open(row["source"]) as picture:
                photo = np.asarray(picture)
            colour = photo[0, 0] @ LUMA if gray else photo[0, 0].astype(float)
            assert np.abs(images[number] - colour).max() <= 1
            box = [int(row[key]) for key in ("left", "top", "width", "height")]
            width = photo.shape[1]
            whole = [0, 0, width, 40] if fit == "stretch" else [-((40 - width) // 2), 0, 40, 40]
            assert box == whole
        sources += [row["source"] for row in rows]
    assert sorted(sources) == sorted(map(str, photos.rglob("*.png")))
    assert list(contents(out)) == [
        "train_manifest.csv", "train_teacher.npy", "val_manifest.csv", "val_teacher.npy",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "grouping",
    [{"group_by": "folder"}, {"group_pattern": r"^([a-z]+)_"}, {"group_pattern": r"^[a-z]+"}],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_nobody_is_in_both_arrays(photos, out, grouping: dict[str, Any], seed: int) -> None:
    split = Split(0.3, seed=seed)
    result = prepare(photos, out, crop=Crop(SIZE), split=split, **grouping)
    train, val = groups_of(result)
    assert train | val == set(PEOPLE)
    assert not train & val
    for _, rows in both(result):
        assert all(Path(row["source"]).parent.name == row["group"] for row in rows)
        assert set(Counter(row["group"] for row in rows).values()) == {4}


def test_groups_are_files_or_folders_and_may_be_named(photos, out) -> None:
    train, val = groups_of(prepare(photos, out, crop=Crop(SIZE)))
    assert train | val == {path.relative_to(photos).as_posix() for path in photos.rglob("*.png")}
    assert len(val) == round(0.15 * 24)
    (photos / "bo" / "old").mkdir()
    (photos / "bo" / "bo_0.png").rename(photos / "bo" / "old" / "bo_0.png")
    (photos / "chi" / "chi_0.png").rename(photos / "chi_0.png")
    split = Split(val_groups="^(bo|eva)$")
    train, val = groups_of(prepare(photos, out, crop=Crop(SIZE), group_by="folder", split=split))
    assert train == {*PEOPLE, "bo/old", "."} - {"bo", "eva"}
    assert val == {"bo", "eva"}


def table_of(photos: Path, row: str) -> Path:
    path = photos.parent / "boxes.csv"
    path.write_text(f"file,x,y,w,h\n{row}")
    return path


def with_options(**options: Any) -> Callable[[Path], object]:
    return lambda photos: prepare(photos, photos.parent / "out", **options)


ERRORS: list[tuple[Callable[[Path], object], str]] = [
    (lambda p: Split(0), "--val-fraction 0"),
    (lambda p: Split(1.0), "--val-fraction 1"),
    (lambda p: Split(float("nan")), "--val-fraction nan"),
    (lambda p: Crop(SIZE, margin=2.5), "--margin 2.5"),
    (lambda p: prepare_drawn(1, p.parent / "out"), "--synthetic 1"),
    (lambda p: prepare(p / "none", p.parent / "out"), "none: no such folder"),
    (lambda p: prepare(p / "bo" / "bo_0.png", p.parent / "out"), "is a file; name the folder"),
    (lambda p: prepare(p, p / "bo" / "bo_0.png"), "bo_0.png: is a file"),
    (lambda p: prepare(p, p / "bo" / "bo_0.png" / "out"), "is below a file"),
    (lambda p: prepare(p / "bo", p.parent / "out", group_by="folder"), "of the 1 groups"),
    (with_options(group_pattern="("), r"--group-pattern \(: not a regular expression"),
    (with_options(split=Split(val_groups="[")), r"--val-groups \[: not a regular expression"),
    (with_options(group_pattern=r"^(\d+)_"), "--group-pattern .* anna_0.png"),
    (with_options(group_pattern=r"^(a.*|b.*|c.*|d.*|f.*)_"), "eva_0.png"),
    # Everybody without the optional group would be one person.
    (with_options(group_pattern=r"(xyz)?_"), "anna_0.png"),
    (with_options(group_by="folder", split=Split(val_groups="zoe")),
     "--val-groups zoe: puts none of the 6 groups .*anna"),
    (with_options(group_by="folder", split=Split(val_groups=".")), r"puts all of the 6 groups"),
    (with_options(category="ear"), "--category ear: needs --boxes"),
    (with_options(boxes=Path("b.csv"), crop=Crop(whole=True)), "--whole: cannot be used with --boxes"),
    (lambda p: with_options(boxes=table_of(p, "zoe.png,0,0,9,9"))(p), "no photograph|zoe"),
    (lambda p: with_options(category="nose", boxes=table_of(p, "anna/anna_0.png,0,0,9,9"))(p),
     "--category nose"),
]  # fmt: skip


@pytest.mark.parametrize(("action", "words"), ERRORS, ids=[words for _, words in ERRORS])
def test_what_the_user_can_fix_is_an_error_of_one_line(photos, out, action, words: str) -> None:
    with pytest.raises(EarTeachError, match=words) as caught:
        action(photos)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_unreadable_files_are_named_with_reasons_and_the_rest_is_done(photos, out) -> None:
    empty, text, cut = (photos / "bo" / f"bo_{number}.png" for number in range(3))
    cut.write_bytes(cut.read_bytes()[:60])
    empty.write_bytes(b"")
    text.write_text("not a picture")
    progress: list[tuple[int, int]] = []
    result = prepare(photos, out, crop=Crop(SIZE), progress=lambda *calls: progress.append(calls))
    assert [(entry.path, entry.reason) for entry in result.rejected] == [
        (empty, "the file is empty"), (text, "not an image that can be read"),
        (cut, "not an image that can be read"),
    ]  # fmt: skip
    written = {row["source"] for _, rows in both(result) for row in rows}
    assert written == set(map(str, photos.rglob("*.png"))) - {str(empty), str(text), str(cut)}
    assert result.train.images + result.val.images == 21
    assert sum(len(images) for images, _ in both(result)) == 21
    assert progress == [(done, 24) for done in range(1, 25)]


@pytest.mark.parametrize("spoiled", [("bo", "eva"), ("anna", "chi", "dua", "finn")])
@pytest.mark.parametrize("before", [False, True])
def test_an_array_without_a_readable_photograph_leaves_all_as_it_was(
    photos, out, spoiled, before
) -> None:
    options: dict[str, Any] = {"group_by": "folder", "split": Split(val_groups="^(bo|eva)$")}
    out.mkdir()
    if before:
        prepare(photos, out, crop=Crop(16), **options)
    old = contents(out)
    for person in spoiled:
        for path in (photos / person).iterdir():
            path.write_bytes(b"no picture")
    with pytest.raises(EarTeachError, match=rf"could be read \(.*{spoiled[0]}_0.png: not an image"):
        prepare(photos, out, crop=Crop(SIZE), **options)
    assert contents(out) == old


def test_a_second_run_replaces_the_first_and_nothing_else(photos, out) -> None:
    prepare_drawn(10, out, size=SIZE)
    assert (out / "train_landmarks.npy").exists()
    (out / "notes.txt").write_text("mine")
    prepare(photos, out, crop=Crop(SIZE))
    assert (out / "notes.txt").read_text() == "mine"
    (out / "notes.txt").unlink()
    prepare(photos, photos.parent / "fresh", crop=Crop(SIZE))
    assert contents(out) == contents(photos.parent / "fresh")  # and no landmarks of other ears


@pytest.mark.parametrize(
    "foreign", ["train_teacher.npy", "val_teacher.npy", "val_manifest.csv", "train_landmarks.npy"]
)
def test_files_that_prepare_did_not_write_are_not_replaced(photos, out, foreign: str) -> None:
    out.mkdir()
    (out / foreign).write_text("mine")
    if foreign == "train_teacher.npy":  # beside another tool's manifest
        (out / "train_manifest.csv").write_text("file,person\n")
    old = contents(out)
    with pytest.raises(EarTeachError, match=f"{foreign}: exists and was not written by"):
        prepare(photos, out, crop=Crop(SIZE))
    with pytest.raises(EarTeachError, match=foreign):
        prepare_drawn(4, out, size=SIZE)
    assert contents(out) == old


@pytest.mark.parametrize("room", [100, 5000, 20_000])
def test_a_full_disk_is_an_error_that_leaves_all_as_it_was(photos, out, room: int) -> None:
    prepare(photos, out, crop=Crop(16))
    old = contents(out)
    with files_of_at_most(room), pytest.raises(EarTeachError, match="cannot be written"):
        prepare(photos, out, crop=Crop(SIZE))
    assert contents(out) == old


def test_names_of_any_bytes_come_through_the_manifest(photos, out) -> None:
    names = [b"a b.png", "ünï 耳.png".encode(), b"\xff.png", b'comma, "quote".png', b"line\n.png"]
    for name in names:
        shutil.copy(photos / "bo" / "bo_0.png", photos / os.fsdecode(name))
    result = prepare(photos, out, crop=Crop(SIZE))
    assert result.rejected == ()
    sources = {os.fsencode(row["source"]) for _, rows in both(result) for row in rows}
    assert {os.fsencode(photos) + b"/" + name for name in names} <= sources


@pytest.mark.parametrize("drawn", [False, True])
def test_the_number_of_cores_does_not_matter(photos, monkeypatch, drawn: bool) -> None:
    (photos / "bo" / "bo_1.png").write_bytes(b"")
    written = []
    for cores in (1, 7):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, n=cores: set(range(n)))
        out = photos.parent / f"out{cores}"
        result = prepare_drawn(66, out, size=16) if drawn else prepare(photos, out, crop=Crop(SIZE))
        written.append((contents(out), result.rejected))
    assert written[0] == written[1]


def test_a_bounded_number_of_ears_waits_for_the_disk(tmp_path, monkeypatch) -> None:
    ear, drawn = draw_ear(0, 0, 16), []
    monkeypatch.setattr("earteach.data.prepare.draw_ear", lambda *_: drawn.append(1) or ear)

    def slowly(done: int, _: int) -> None:
        if done == 1:
            time.sleep(0.3)  # until as many are drawn as may be
        assert len(drawn) - done <= 64

    prepare_drawn(150, tmp_path / "out", size=16, progress=slowly)
    assert len(drawn) == 150


@pytest.mark.parametrize(("number", "gray"), [(2, False), (23, False), (5, True)])
def test_drawn_ears_are_counted_in_all_and_have_their_landmarks(tmp_path, number, gray) -> None:
    result = prepare_drawn(number, tmp_path, size=SIZE, seed=3, gray=gray)
    assert result.train.images + result.val.images == number
    indices = []
    for name, (images, rows) in zip(("train", "val"), both(result), strict=True):
        landmarks = np.load(tmp_path / f"{name}_landmarks.npy")
        assert landmarks.dtype == np.float32
        assert landmarks.shape == (len(images), 55, 2)
        assert images.shape == (len(rows), SIZE, SIZE, 1 if gray else 3)
        for image, points, row in zip(images, landmarks, rows, strict=True):
            indices.append(int(row["source"].rsplit("-", 1)[1]))
            ear = draw_ear(3, indices[-1], SIZE)
            np.testing.assert_array_equal(points, ear.landmarks)
            expected = ear.image @ LUMA if gray else ear.image.astype(float)
            assert np.abs(image - expected).max() <= 1
            assert list(row.values())[3:] == ["0", "0", "32", "32", "0", "32", "32"]
    assert sorted(indices) == list(range(number))


def test_one_seed_decides_which_ears_are_drawn_and_another_which_are_validation(tmp_path) -> None:
    def drawn(name: str, seed: int, split: int) -> Prepared:
        return prepare_drawn(20, tmp_path / name, size=16, seed=seed, split=Split(0.2, seed=split))

    base = drawn("base", 1, 1)
    drawn("again", 1, 1)
    assert contents(tmp_path / "base") == contents(tmp_path / "again")
    assert groups_of(drawn("split", 1, 2))[1] != groups_of(base)[1]
    other = np.load(drawn("seed", 2, 1).train.path)
    assert not (other[:, None] == np.load(base.train.path)[None]).all((2, 3, 4)).any()
    assert base.val.images == 4


# Says when it has begun to write, and never ends by itself.
NEVER_ENDING = """
import sys, time
from pathlib import Path
from earteach.data.prepare import prepare_drawn
def wait(done, number):
    print("writing", flush=True)
    time.sleep(600)
prepare_drawn(20, Path(sys.argv[1]), size=32, progress=wait)
"""


@pytest.mark.parametrize(
    "how",
    [pytest.param(signal.SIGKILL, marks=pytest.mark.slow, id="killed"), None],
)
def test_an_interrupted_run_keeps_the_old_arrays_and_starts_over(photos, out, how) -> None:
    prepare(photos, out, crop=Crop(16))
    old = contents(out)
    if how is None:

        def interrupt(done: int, number: int) -> None:
            if done == 12:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prepare_drawn(20, out, size=SIZE, progress=interrupt)
        assert contents(out) == old
    else:
        command = [sys.executable, "-c", NEVER_ENDING, str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            with pytest.raises(EarTeachError, match="another `earteach prepare` is writing there"):
                prepare(photos, out, crop=Crop(SIZE))
            process.send_signal(how)
        left = contents(out)
        assert {name: left[name] for name in old} == old
        assert all(name.startswith(".") for name in left.keys() - old.keys())
    prepare_drawn(20, out, size=SIZE)
    prepare_drawn(20, photos.parent / "fresh", size=SIZE)
    assert contents(out) == contents(photos.parent / "fresh")


def test_a_command_that_is_told_to_end_leaves_nothing_half_written(out) -> None:
    with earteach_process("prepare", "--synthetic", 20_000, "--out", out) as process:
        while not any(out.glob("*.partial")) and not any(out.glob(".*.partial")):
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
    assert process.returncode == 128 + signal.SIGTERM
    assert not [path.name for path in out.rglob("*") if "partial" in path.name]


def test_the_box_follows_from_landmarks_given_in_a_table(photos, out) -> None:
    points = photos.parent / "points.csv"
    points.write_text(
        "f,x0,y0,x1,y1\nanna/anna_0.png,0.25,0.3,0.75,0.8\nbo/bo_1.png,0.5,0.25,0.9,0.75\n"
    )
    split = Split(val_groups="bo")
    result = prepare(photos, out, crop=Crop(SIZE, margin=0.1), landmarks=points, split=split)
    assert (result.train.images, result.val.images, result.without_ears) == (1, 1, 22)
    (_, (first,)), (_, (second,)) = both(result)
    # 30 × 40 pixels: the points are 15 × 20 apart, so the side is 24; 31 × 40: 12.4 × 20.
    assert [first[key] for key in ("left", "top", "width", "height")] == ["3", "10", "24", "24"]
    np.testing.assert_allclose(
        np.load(out / "train_landmarks.npy")[0],
        [[(7.5 - 3) / 24, (12 - 10) / 24], [(22.5 - 3) / 24, (32 - 10) / 24]], atol=1e-6,
    )  # fmt: skip
    assert second["width"] == "24"


def test_landmarks_beside_boxes_go_to_the_ear_that_they_are_in(photos, out) -> None:
    points, boxes = photos.parent / "points.csv", photos.parent / "boxes.csv"
    points.write_text(
        "f,x0,y0,x1,y1\nanna/anna_0.png,0.7,0.7,0.9,0.9\nbo/bo_0.png,0.2,0.3,0.4,0.5\n"
    )
    boxes.write_text(
        "f,image,x,y,w,h\n1,anna/anna_0.png,1,2,12,12\n2,anna/anna_0.png,18,24,12,15\n"
        "3,bo/bo_0.png,2,2,20,30\n"
    )
    result = prepare(
        photos, out, crop=Crop(SIZE, margin=0), landmarks=points, boxes=boxes,
        split=Split(val_groups="bo"),
    )  # fmt: skip
    train, val = (np.load(out / f"{part}_landmarks.npy") for part in ("train", "val"))
    rows = both(result)[0][1]
    assert len(rows) == 2
    assert np.isnan(train[0]).all()
    left, top, side = (int(rows[1][key]) for key in ("left", "top", "width"))
    np.testing.assert_allclose(
        train[1], (np.array([[21, 28], [27, 36]]) - [left, top]) / side, atol=1e-6
    )
    assert val.shape == (1, 2, 2)
    assert np.isfinite(val).all()


@pytest.mark.parametrize(
    ("one", "other"),
    [("Ána", unicodedata.normalize("NFD", "Ána")), ("anna", "Anna"), ("ANNA", "anna")],
)
def test_a_person_spelled_in_two_ways_is_one(tmp_path: Path, one: str, other: str) -> None:
    for folder in (one, other, "bo"):
        for number in range(2):
            path = tmp_path / "photos" / folder / "x" / f"{folder}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((20, 20, 3), 60 * number, np.uint8)).save(path)
    result = prepare(
        tmp_path / "photos", tmp_path / "out", crop=Crop(SIZE), group_pattern=r"^(\w[^_]*)_",
        split=Split(val_groups="^bo$"),
    )  # fmt: skip
    assert (result.train.images, result.val.images, result.people) == (4, 2, 2)
    assert len({row["group"] for row in manifest(result.train.path)}) == 1


def test_a_copy_in_both_arrays_is_named(tmp_path: Path) -> None:
    for index in range(6):
        picture = Image.fromarray(draw_ear(5, index, 64).image)
        picture.save(tmp_path / f"{index}.png")
    picture.save(tmp_path / "again.jpg", quality=70)
    folders = "--out", tmp_path / "out", "--image-size", 64
    said = earteach("prepare", tmp_path, *folders, "--val-groups", "again").err
    assert "copies of training images are in validation: 0 exact, 1 near" in said
    apart = earteach("prepare", tmp_path, *folders, "--val-groups", "[05]|again").err
    assert "copies" not in apart


def test_what_was_found_and_passed_over_is_counted(photos: Path, out: Path) -> None:
    (photos / "@eaDir").mkdir()
    shutil.copy(photos / "bo" / "bo_0.png", photos / "@eaDir" / "bo_0.png")
    (photos / "loop").symlink_to(photos)
    (photos / "gone.jpg").symlink_to(photos / "nowhere.jpg")
    (photos / "best.png").symlink_to(photos / "bo" / "bo_0.png")
    result = prepare(photos, out, crop=Crop(SIZE), group_by="folder")
    assert (result.photographs, result.ears, result.people) == (24, 24, 6)
    passed_over = {"@eaDir", "loop", "gone.jpg", "best.png"}
    assert {entry.path.name for entry in result.rejected} == passed_over


def test_what_is_written_into_the_source_is_not_read_again(photos: Path) -> None:
    first = prepare(photos, photos / "out", crop=Crop(SIZE))
    shutil.copy(photos / "bo" / "bo_0.png", photos / "out" / "sheet.png")
    assert prepare(photos, photos / "out", crop=Crop(SIZE)).photographs == first.photographs == 24


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_pattern_fits_a_name_however_its_accents_are_stored(tmp_path: Path, form: Form) -> None:
    other: Form = "NFD" if form == "NFC" else "NFC"
    for number, name in enumerate(("éva_1", "éva_2", "bo_1")):
        path = tmp_path / "photos" / f"{unicodedata.normalize(other, name)}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((20, 20, 3), 50 * number, np.uint8)).save(path)
    person = unicodedata.normalize(form, "é")
    result = prepare(
        tmp_path / "photos", tmp_path / "out", crop=Crop(SIZE), group_pattern=f"^({person}va|bo)_",
        split=Split(val_groups=person),
    )  # fmt: skip
    assert (result.train.images, result.val.images) == (1, 2)


def test_a_link_in_place_of_a_partial_file_is_not_followed(out) -> None:
    out.mkdir()
    (out.parent / "precious.txt").write_text("mine")
    for name in (".train_teacher.npy.partial", ".train_manifest.csv.partial"):
        (out / name).symlink_to("../precious.txt")
    prepare_drawn(4, out, size=SIZE)
    assert (out.parent / "precious.txt").read_text() == "mine"
    assert not (out / "train_teacher.npy").is_symlink()
