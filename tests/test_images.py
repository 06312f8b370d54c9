"""Pictures: tensors and arrays to grids, heat maps and PNG files of our own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from earteach.errors import EarTeachError
from earteach.images import (
    beside,
    grid,
    heat,
    is_ours,
    labelled,
    refuse_foreign,
    remove_stale,
    to_float,
    to_uint8,
    write_png,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_floats_become_bytes_rounded_and_clipped(dtype: torch.dtype) -> None:
    values = torch.tensor([-1.0, 0.0, 0.25, 0.5, 1.0, 1.5, float("inf")], dtype=dtype)
    images = values.reshape(1, 1, 1, 7).requires_grad_()
    out = to_uint8(images)
    assert out.dtype == np.uint8
    assert out.shape == (1, 1, 7, 1)
    assert out.ravel().tolist() == [0, 0, 64, 128, 255, 255, 255]


def test_channels_go_last_and_the_result_is_contiguous() -> None:
    images = torch.rand(2, 3, 5, 4)
    out = to_uint8(images)
    expected = np.rint(images.numpy() * 255).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(out, expected)
    assert out.flags.c_contiguous


def test_bytes_become_floats_and_come_back() -> None:
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    floats = to_float(every)
    assert floats.dtype == torch.float32
    np.testing.assert_array_equal(floats.numpy().ravel(), np.arange(256, dtype=np.float32) / 255)
    np.testing.assert_array_equal(to_uint8(floats)[0, ..., 0], every[0, 0])
    assert every.max() == 255  # the caller's tensor is as it was


@pytest.mark.parametrize(
    ("share", "colour"),
    [
        (0, (0, 0, 0)),
        (1 / 6, (128, 0, 0)),
        (1 / 3, (255, 0, 0)),
        (1 / 2, (255, 128, 0)),
        (2 / 3, (255, 255, 0)),
        (5 / 6, (255, 255, 128)),
        (1, (255, 255, 255)),
        (4, (255, 255, 255)),
    ],
)
@pytest.mark.parametrize("full_scale", [0.25, 1.0])
def test_heat_goes_from_black_through_red_and_yellow_to_white(
    share: float, colour: tuple[int, int, int], full_scale: float
) -> None:
    picture = heat(np.full((4, 6), share * full_scale, np.float32), full_scale)
    assert picture.shape == (4, 6, 3)
    assert picture.dtype == np.uint8
    assert np.abs(picture - np.array(colour, float)).max() <= 1


@pytest.mark.parametrize(
    ("count", "columns", "rows_and_columns"),
    [
        (1, 1, (1, 1)),
        (1, 5, (1, 1)),
        (3, 2, (2, 2)),
        (4, 2, (2, 2)),
        (5, 4, (2, 4)),
        (8, 3, (3, 3)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("gap", [0, 2])
def test_a_grid_shows_the_images_row_by_row_on_white(
    count: int, columns: int, rows_and_columns: tuple[int, int], channels: int, gap: int
) -> None:
    images = [np.full((6, 4, channels), 10 * number, np.uint8) for number in range(count)]
    sheet = grid(images, columns, gap)
    rows, columns = rows_and_columns
    assert sheet.shape == (rows * (6 + gap) + gap, columns * (4 + gap) + gap, channels)
    expected = np.full_like(sheet, 255)
    for number in range(count):
        top = gap + (number // columns) * (6 + gap)
        left = gap + (number % columns) * (4 + gap)
        expected[top : top + 6, left : left + 4] = 10 * number
    np.testing.assert_array_equal(sheet, expected)


def test_beside_puts_gray_and_colour_in_one_row() -> None:
    gray = np.full((6, 4, 1), 90, np.uint8)
    colour = np.full((6, 4, 3), (1, 2, 3), np.uint8)
    row = beside([gray, colour], gap=1)
    assert row.shape == (8, 11, 3)
    assert (row[1:7, 1:5] == 90).all()
    assert (row[1:7, 6:10] == (1, 2, 3)).all()
    assert (row[:, [0, 5, 10]] == 255).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_the_image_and_its_facts(tmp_path: Path, channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 7, channels), np.uint8)
    path = tmp_path / "ünï 耳.png"
    write_png(path, image, {"Seed": "42", "Source": "ohr/ü 耳.jpg", "Empty": ""})
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.mode == ("L" if channels == 1 else "RGB")
        assert picture.info["Software"] == "earteach"
        assert picture.info["Seed"] == "42"
        assert picture.info["Source"] == "ohr/ü 耳.jpg"
        np.testing.assert_array_equal(np.asarray(picture).reshape(image.shape), image)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_fact_may_hold_a_file_name_of_any_bytes(tmp_path: Path) -> None:
    name = os.fsdecode(b"ear\xff.jpg")
    write_png(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8), {"Source": name})
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.info["Source"].startswith("ear")


def test_a_png_of_ours_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for level in (10, 20):
        write_png(path, np.full((4, 4, 3), level, np.uint8))
    with Image.open(path) as picture:
        assert (np.asarray(picture) == 20).all()


def png(**facts: str) -> PngInfo:
    info = PngInfo()
    for key, value in facts.items():
        info.add_text(key, value)
    return info


@pytest.mark.parametrize(
    "kind",
    ["another PNG", "PNG of another tool", "JPEG", "text", "empty", "folder", "enormous"],
)
def test_what_another_tool_wrote_is_refused_and_kept(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    picture = Image.new("RGB", (4, 4))
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("mine")
    elif kind == "empty":
        path.touch()
    elif kind == "JPEG":
        picture.save(path, "JPEG")
    elif kind == "enormous":
        Image.new("1", (20_000, 20_000)).save(path, "PNG")
    else:
        picture.save(path, "PNG", pnginfo=png(Software="gimp") if "tool" in kind else None)
    before = path.stat().st_mtime_ns, None if kind == "folder" else path.read_bytes()
    assert not is_ours(path)
    for action in (refuse_foreign, lambda p: write_png(p, np.zeros((4, 4, 3), np.uint8))):
        with pytest.raises(EarTeachError, match=r"a\.png: exists and was not written by earteach"):
            action(path)
    assert before == (path.stat().st_mtime_ns, None if kind == "folder" else path.read_bytes())
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_what_is_not_there_is_not_refused(tmp_path: Path) -> None:
    refuse_foreign(tmp_path / "none.png")
    assert not is_ours(tmp_path / "none.png")


def test_a_png_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(EarTeachError, match="cannot be written"):
        write_png(tmp_path / "none" / "a.png", np.zeros((4, 4, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_stale_pictures_of_ours_are_removed_and_nothing_else(tmp_path: Path) -> None:
    ear = np.zeros((4, 4, 3), np.uint8)
    for name in ("sample-0.png", "sample-1.png", "sample-2.png", "grid.png"):
        write_png(tmp_path / name, ear)
    Image.new("RGB", (4, 4)).save(tmp_path / "sample-3.png")
    (tmp_path / "sample-4.png").write_text("mine")
    remove_stale(tmp_path, "sample-*.png", keep=[tmp_path / "sample-0.png"])
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["grid.png", "sample-0.png", "sample-3.png", "sample-4.png"]


def test_a_label_stands_below_the_image() -> None:
    image = np.full((20, 60, 3), 7, np.uint8)
    one, two, blank = (labelled(image, *lines) for lines in (["val 3"], ["val 3", "x"], [" "]))
    assert np.array_equal(one[:20], image)
    assert one.shape[1:] == (60, 3)
    assert len(two) > len(one) > 30
    assert (blank[20:] == 255).all()
    assert (one[20:] < 128).any()
    assert np.array_equal(two[20:33], one[20:33])
