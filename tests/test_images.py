"""Image arrays to grids, heat maps and tagged PNG files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torchvision.utils import make_grid

from earteach.errors import EarTeachError
from earteach.images import (
    check_overwrite,
    grid,
    heat_map,
    is_own_png,
    remove_stale,
    side_by_side,
    to_float,
    to_uint8,
    with_caption,
    write_png,
)

BLACK = np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_floats_become_bytes_rounded_and_clipped(dtype: torch.dtype) -> None:
    values = torch.tensor([-1.0, 0.0, 0.25, 0.5, 1.0, 1.5, float("inf"), 0.0], dtype=dtype)
    out = to_uint8(values.reshape(1, 2, 1, 4).requires_grad_())
    assert out.dtype == np.uint8
    assert out.tolist() == [[[[0, 255], [0, 255], [64, 255], [128, 0]]]]


def test_bytes_become_floats_and_come_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    floats = to_float(levels)
    assert floats.dtype == torch.float32
    np.testing.assert_array_equal(floats.numpy().ravel(), np.arange(256, dtype=np.float32) / 255)
    np.testing.assert_array_equal(to_uint8(floats)[0, ..., 0], levels[0, 0])
    assert levels.max() == 255  # the caller's tensor is unchanged


@pytest.mark.parametrize("full_scale", [0.25, 1.0])
def test_a_heat_map_goes_from_black_through_red_and_yellow_to_white(full_scale: float) -> None:
    shares = np.array([[0, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 1, 4]], np.float32)
    colours = [
        (0, 0, 0), (128, 0, 0), (255, 0, 0), (255, 128, 0),
        (255, 255, 0), (255, 255, 128), (255, 255, 255), (255, 255, 255),
    ]  # fmt: skip
    colored = heat_map(shares * full_scale, full_scale)
    assert colored.dtype == np.uint8
    np.testing.assert_allclose(colored[0], colours, atol=1)


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 5, 1), (3, 2, 2), (5, 4, 2)])
def test_a_grid_shows_the_images_row_by_row_on_white(count: int, columns: int, rows: int) -> None:
    """As torchvision's `make_grid` does."""
    images = np.random.default_rng(0).integers(0, 256, (count, 6, 4, 3), np.uint8)
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2)
    expected = make_grid(tensors, columns, pad_value=255).permute(1, 2, 0)
    if count > 1:  # torchvision returns a single image without padding
        np.testing.assert_array_equal(grid(images, columns), expected)
    assert grid(images, columns).shape == (8 * rows + 2, 6 * min(columns, count) + 2, 3)


def test_gray_and_colour_stand_side_by_side_above_a_caption() -> None:
    gray = np.full((6, 44, 1), 90, np.uint8)
    colour = np.full((6, 44, 3), (1, 2, 3), np.uint8)
    row = side_by_side([gray, colour], padding=1)
    assert row.shape == (8, 91, 3)
    assert (row[1:7, 1:45] == 90).all()
    assert (row[1:7, 46:90] == (1, 2, 3)).all()
    captioned, blank = with_caption(row, "val 3"), with_caption(row, " ")
    assert np.array_equal(captioned[:8], row)
    assert (blank[8:] == 255).all()
    assert (captioned[8:] < 128).any()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_the_image_and_its_metadata(tmp_path: Path, channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 7, channels), np.uint8)
    path = tmp_path / "ünï 耳.png"
    odd_name = os.fsdecode(b"ear\xff.jpg")
    write_png(path, BLACK)
    write_png(path, image, {"Seed": "42", "Source": "ohr/ü 耳.jpg", "Empty": "", "Odd": odd_name})
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.mode == ("L" if channels == 1 else "RGB")
        assert picture.info["Software"] == "earteach"
        assert picture.info["Seed"] == "42"
        assert picture.info["Source"] == "ohr/ü 耳.jpg"
        assert picture.info["Odd"].startswith("ear")
        np.testing.assert_array_equal(np.asarray(picture).reshape(image.shape), image)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["PNG of another tool", "JPEG", "text", "enormous", "folder"])
def test_what_another_tool_wrote_is_refused_and_kept(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    metadata = PngInfo()
    metadata.add_text("Software", "gimp")
    write = {
        "PNG of another tool": lambda: Image.new("RGB", (4, 4)).save(path, pnginfo=metadata),
        "JPEG": lambda: Image.new("RGB", (4, 4)).save(path, "JPEG"),
        "text": lambda: path.write_text("mine"),
        "enormous": lambda: Image.new("1", (20_000, 20_000)).save(path),
        "folder": path.mkdir,
    }
    write[kind]()
    before = None if path.is_dir() else path.read_bytes()
    assert not is_own_png(path)
    for action in (check_overwrite, lambda path: write_png(path, BLACK)):
        with pytest.raises(EarTeachError, match=r"a\.png: exists and was not written by earteach"):
            action(path)
    assert before == (None if path.is_dir() else path.read_bytes())
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_a_png_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    check_overwrite(tmp_path / "none.png")
    with pytest.raises(EarTeachError, match="cannot be written"):
        write_png(tmp_path / "none" / "a.png", BLACK)
    assert list(tmp_path.iterdir()) == []


def test_own_stale_pictures_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("sample-0.png", "sample-1.png", "sample-2.png", "grid.png"):
        write_png(tmp_path / name, BLACK)
    Image.new("RGB", (4, 4)).save(tmp_path / "sample-3.png")
    (tmp_path / "sample-4.png").write_text("mine")
    remove_stale(tmp_path, "sample-*.png", keep=[tmp_path / "sample-0.png"])
    remaining = sorted(path.name for path in tmp_path.iterdir())
    assert remaining == ["grid.png", "sample-0.png", "sample-3.png", "sample-4.png"]
