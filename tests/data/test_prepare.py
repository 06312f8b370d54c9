"""Photographs and drawn ears to two arrays: nobody in both, everything accounted for."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from earteach.data import crops as module
from earteach.data.crops import Crop
from earteach.data.prepare import Prepared, prepare, prepare_drawn
from earteach.data.split import Split
from earteach.errors import EarTeachError
from earteach.synthetic.drawn_ear import draw_ear
from tests.conftest import files_of_at_most

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


def table_of(photos: Path, name: str, *rows: str) -> Path:
    path = photos.parent / f"{name}.csv"
    path.write_text("\n".join(["file,x,y,w,h", *rows]))
    return path


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
    "too much around a box": (lambda p: Crop(SIZE, margin=2.5), "--margin 2.5"),
    "a category without boxes": (
        lambda p: prepare(p, p.parent / "out", category="ear"),
        "--category ear: is of --boxes",
    ),
    "whole photographs of boxes": (
        lambda p: prepare(p, p.parent / "out", boxes=p.parent / "b.csv", crop=Crop(whole=True)),
        "--whole: takes no --boxes",
    ),
    "no ear in any photograph": (
        lambda p: prepare(p, p.parent / "out", boxes=table_of(p, "box", "zoe.png,0,0,9,9")),
        "no photograph|zoe",
    ),
    "no such category": (
        lambda p: prepare(
            p,
            p.parent / "out",
            category="nose",
            boxes=table_of(p, "box", "anna/anna_0.png,0,0,9,9"),
        ),
        "--category nose",
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


@pytest.mark.parametrize("room", [100, 5000, 20_000])
def test_a_full_disk_is_an_error_that_leaves_all_as_it_was(photos: Path, room: int) -> None:
    out = photos.parent / "out"
    prepare(photos, out, crop=Crop(16))
    old = contents(out)
    with files_of_at_most(room), pytest.raises(EarTeachError, match="cannot be written"):
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


def test_ears_wait_for_the_disk_in_a_bounded_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ear, drawn = draw_ear(0, 0, 16), []
    monkeypatch.setattr("earteach.data.prepare.draw_ear", lambda *_: drawn.append(1) or ear)
    ahead: list[int] = []

    def slowly(done: int, _: int) -> None:
        if done in (1, 100):
            time.sleep(0.3)  # all that may be drawn now is
        ahead.append(len(drawn) - done)

    prepare_drawn(300, tmp_path / "out", size=16, progress=slowly)
    assert ahead[0] == ahead[99] == 64
    assert max(ahead) <= 64


def test_nothing_more_is_drawn_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ear, drawn = draw_ear(0, 0, 16), []

    def slow(*_: int) -> Any:
        time.sleep(0.02)
        return drawn.append(1) or ear

    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("earteach.data.prepare.draw_ear", slow)
    with pytest.raises(KeyboardInterrupt):
        prepare_drawn(300, tmp_path / "out", size=16, progress=stop)
    assert len(drawn) < 60


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
            box = [row[key] for key in ("left", "top", "width", "height", "mirrored")]
            assert box == ["0", "0", "32", "32", "0"]
            assert row["photograph_width"] == row["photograph_height"] == "32"
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


# So that there is time to stop it.
SLOWLY = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job ignores
from pathlib import Path
from earteach.data import crops as module
from earteach.data.prepare import prepare
read = module.Photograph
def slowly(path):
    time.sleep(0.02)
    return read(path)
module.Photograph = slowly
prepare(Path(sys.argv[1]), Path(sys.argv[2]), crop=module.Crop(32))
"""


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Three hundred photographs, every tenth of which cannot be read."""
    (tmp_path / "many").mkdir()
    rng = np.random.default_rng(0)
    for number in range(300):
        path = tmp_path / "many" / f"{number:03d}.png"
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(path)
        if number % 10 == 9:
            path.write_bytes(b"no picture")
    return tmp_path / "many"


def stopped(photos: Path, out: Path, how: signal.Signals) -> None:
    """Run until some of it is in the journal, and stop it there."""
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, photos, out], stderr=subprocess.PIPE)
    journal = out / ".prepare.journal"
    while process.poll() is None and (not journal.exists() or journal.stat().st_size < 5000):
        time.sleep(0.02)
    process.send_signal(how)
    process.communicate()
    assert process.returncode != 0
    assert not (out / "train_teacher.npy").exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_stopped_goes_on_and_ends_the_same(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    stopped(many, out, how)
    read: list[Path] = []
    photograph = module.Photograph
    monkeypatch.setattr(module, "Photograph", lambda path: read.append(path) or photograph(path))
    result = prepare(many, out, crop=Crop(32))
    assert 0 < len(read) < 300 - 63
    again = prepare(many, whole, crop=Crop(32))
    assert contents(out) == contents(whole)
    assert result.rejected == again.rejected
    assert len(result.rejected) == 30


def until(last: int) -> Callable[[int, int], None]:
    """Ctrl-C after so many."""

    def progress(done: int, number: int) -> None:
        if done == last:
            raise KeyboardInterrupt

    return progress


def test_an_interrupted_run_takes_up_all_that_it_knew(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Mirrored ears, landmarks, and what was left out, from an array and its journal."""
    for path in sorted(photos.rglob("*_[13].png")):
        path.rename(path.with_name(path.name.replace(".png", "_right.png")))
    (photos / "bo" / "bo_1_right.png").write_bytes(b"no picture")
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    points = tmp_path / "points.csv"
    points.write_text("name,x0,y0,x1,y1\n" + "".join(
        f"{name},0.1,0.2,0.{place % 9 + 1},0.5\n" for place, name in enumerate(names)
    ))  # fmt: skip
    crop = Crop(SIZE, whole=True, side="left", side_pattern="_(right)")
    options: dict[str, Any] = {"crop": crop, "landmarks": points, "group_by": "folder"}
    out, whole = tmp_path / "out", tmp_path / "whole"
    caplog.set_level("INFO", "earteach")
    for last, before in ((7, 0), (15, 7)):
        with pytest.raises(KeyboardInterrupt):
            prepare(photos, out, **options, progress=until(last))
        assert (f"going on after the first {before}," in caplog.text) == bool(before)
        assert f"stopped after {last};" in caplog.text
        assert not (out / "train_teacher.npy").exists()
    read: list[Path] = []
    photograph = module.Photograph
    monkeypatch.setattr(module, "Photograph", lambda path: read.append(path) or photograph(path))
    result = prepare(photos, out, **options)
    assert len(read) == len(names) - 15
    again = prepare(photos, whole, **options)
    assert contents(out) == contents(whole)
    assert len(contents(out)) == 6
    assert result.rejected == again.rejected
    assert [entry.path.name for entry in result.rejected] == ["bo_1_right.png"]
    assert result.mirrored == again.mirrored == 11
    assert result.side_unknown == again.side_unknown == 12


def test_an_interrupted_run_takes_up_several_ears_of_a_photograph(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    ears = "".join(f"{name},{x},5,9,9\n" for name in names for x in (2, 8, 14))
    (tmp_path / "boxes.csv").write_text("file,x,y,w,h\n" + ears)
    options: dict[str, Any] = {"crop": Crop(SIZE), "boxes": tmp_path / "boxes.csv"}
    with pytest.raises(KeyboardInterrupt):
        prepare(photos, tmp_path / "out", **options, progress=until(9))
    read: list[Path] = []
    photograph = module.Photograph
    monkeypatch.setattr(module, "Photograph", lambda path: read.append(path) or photograph(path))
    prepare(photos, tmp_path / "out", **options)
    assert len(read) == len(names) - 9
    prepare(photos, tmp_path / "whole", **options)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert len(contents(tmp_path / "out")) == 4  # no landmarks


@pytest.mark.parametrize(
    "change",
    [{}, {"seed": 2}, {"gray": True}, {"number": 21}, {"split": Split(seed=3)}],
    ids=["none", "seed", "gray", "number", "split"],
)
def test_drawn_ears_are_taken_up_by_the_same_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    from earteach.data import prepare as drawing

    first: dict[str, Any] = {"number": 20, "size": SIZE, "seed": 1}
    with pytest.raises(KeyboardInterrupt):
        prepare_drawn(**first, out=tmp_path / "out", progress=until(12))
    drawn: list[int] = []
    draw = draw_ear
    monkeypatch.setattr(
        drawing,
        "draw_ear",
        lambda seed, index, size: drawn.append(index) or draw(seed, index, size),
    )
    options = first | change
    prepare_drawn(**options, out=tmp_path / "out")
    assert len(drawn) == options["number"] - (0 if change else 12)
    prepare_drawn(**options, out=tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_where_nothing_can_be_read_the_first_is_named(photos: Path) -> None:
    for path in photos.rglob("anna_*.png"):
        path.write_bytes(b"no picture")
    split = Split(val_groups="anna")
    with pytest.raises(
        EarTeachError, match=r"val_teacher.npy could be read \(.*anna_0.png: not an"
    ):
        prepare(photos, photos.parent / "out", crop=Crop(SIZE), group_by="folder", split=split)


def test_sides_are_counted_only_where_they_are_asked_for(photos: Path) -> None:
    assert prepare(photos, photos.parent / "out", crop=Crop(SIZE)).side_unknown == 0


def test_what_is_there_already_needs_no_space_again(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, needed = tmp_path / "out", 300 * 32 * 32 * 3
    stopped(many, out, signal.SIGKILL)
    there = sum(path.stat().st_size for path in out.glob(".*.partial"))
    assert there > 50 * 32 * 32 * 3
    for free, refused in ((needed - there - 1, True), (needed - there, False)):
        usage = (10**9, 10**9 - free, free)
        monkeypatch.setattr("shutil.disk_usage", lambda path, u=usage: shutil._ntuple_diskusage(*u))
        with pytest.raises(EarTeachError, match="needs") if refused else nullcontext():
            prepare(many, out, crop=Crop(32))


@pytest.mark.parametrize("damage", ["rows", "zeros", "journal", "line", "nothing"])
def test_what_a_crash_of_the_machine_left_is_not_trusted(
    many: Path, tmp_path: Path, damage: str
) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    stopped(many, out, signal.SIGKILL)
    rows, journal = out / ".train_teacher.npy.partial", out / ".prepare.journal"
    if damage == "rows":
        os.truncate(rows, rows.stat().st_size // 2)
    elif damage == "zeros":
        data = bytearray(rows.read_bytes())
        data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
        rows.write_bytes(data)
    elif damage == "journal":
        os.truncate(journal, journal.stat().st_size * 2 // 3)
    elif damage == "line":
        lines = journal.read_text().splitlines()
        journal.write_text("\n".join([*lines[:40], '{"rows": [[3]]}', *lines[41:], ""]))
    else:
        rows.unlink()
    prepare(many, out, crop=Crop(32))
    prepare(many, whole, crop=Crop(32))
    assert contents(out) == contents(whole)


@pytest.mark.parametrize("change", ["size", "split", "photograph", "drawn"])
def test_another_run_begins_anew(many: Path, tmp_path: Path, change: str) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    stopped(many, out, signal.SIGKILL)
    crop, split = Crop(32), Split()
    if change == "photograph":
        Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(many / "000.png")
    elif change == "size":
        crop = Crop(16)
    else:
        split = Split(seed=7)
    for folder in (out, whole):
        if change == "drawn":
            prepare_drawn(20, folder, size=32)
        else:
            prepare(many, folder, crop=crop, split=split)
    assert contents(out) == contents(whole)


def test_two_at_once_in_a_folder_are_one_and_a_refusal(many: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, many, out])
    while not (out / ".prepare.journal").exists():
        time.sleep(0.02)
    with pytest.raises(EarTeachError, match="another `earteach prepare` writes there"):
        prepare(many, out, crop=Crop(16))
    assert process.wait() == 0
    prepare(many, whole, crop=Crop(32))
    assert contents(out) == contents(whole)


def test_the_box_follows_from_landmarks_given_in_a_table(photos: Path) -> None:
    points = photos.parent / "points.csv"
    points.write_text(
        "f,x0,y0,x1,y1\nanna/anna_0.png,0.25,0.3,0.75,0.8\nbo/bo_1.png,0.5,0.25,0.9,0.75\n"
    )
    result = prepare(
        photos, photos.parent / "out", crop=Crop(SIZE, margin=0.1), landmarks=points,
        split=Split(val_groups="bo"),
    )  # fmt: skip
    assert (result.train.images, result.val.images, result.without_ears) == (1, 1, 22)
    (_, (first,)), (_, (second,)) = both(result)
    # 30 × 40 pixels: the points are 15 × 20 apart, so the side is 24; 31 × 40: 12.4 × 20.
    assert [first[key] for key in ("left", "top", "width", "height")] == ["3", "10", "24", "24"]
    np.testing.assert_allclose(
        np.load(result.train.path.parent / "train_landmarks.npy")[0],
        [[(7.5 - 3) / 24, (12 - 10) / 24], [(22.5 - 3) / 24, (32 - 10) / 24]], atol=1e-6,
    )  # fmt: skip
    assert second["width"] == "24"


def test_landmarks_beside_boxes_go_to_the_ear_that_they_are_in(photos: Path) -> None:
    folder = photos.parent
    points, boxes = folder / "points.csv", folder / "boxes.csv"
    points.write_text(
        "f,x0,y0,x1,y1\nanna/anna_0.png,0.7,0.7,0.9,0.9\nbo/bo_0.png,0.2,0.3,0.4,0.5\n"
    )
    boxes.write_text(
        "f,image,x,y,w,h\n1,anna/anna_0.png,1,2,12,12\n2,anna/anna_0.png,18,24,12,15\n"
        "3,bo/bo_0.png,2,2,20,30\n"
    )
    result = prepare(
        photos, folder / "out", crop=Crop(SIZE, margin=0), landmarks=points, boxes=boxes,
        split=Split(val_groups="bo"),
    )  # fmt: skip
    train, val = (np.load(folder / "out" / f"{part}_landmarks.npy") for part in ("train", "val"))
    rows = both(result)[0][1]
    assert len(rows) == 2
    assert np.isnan(train[0]).all()
    left, top, side = (int(rows[1][key]) for key in ("left", "top", "width"))
    np.testing.assert_allclose(
        train[1], (np.array([[21, 28], [27, 36]]) - [left, top]) / side, atol=1e-6
    )
    assert val.shape == (1, 2, 2)
    assert np.isfinite(val).all()
