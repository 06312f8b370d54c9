"""Interpolation between two ears, and traversal of the directions in which ears vary most."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import earteach
from earteach.errors import EarTeachError
from earteach.inference.latent_traversal import interpolate, slerp, traverse
from earteach.inference.loaded_model import load_model
from earteach.inference.samplers import get_mixture
from tests.inference.conftest import batch, levels, pixels, rename_arrays, stacked


@pytest.fixture
def unseen(ears: Path) -> np.ndarray:
    return np.load(ears / "val_teacher.npy")


def sides(checkpoint: Path, images: np.ndarray) -> list[float]:
    with torch.no_grad():
        return earteach.load(checkpoint).encode(batch(images))[0][:, -1].tolist()


@pytest.fixture
def one_side(trained, unseen) -> tuple[int, int]:
    """Two validation images that face the same way."""
    values = sides(trained.last, unseen)
    return values.index(1.0), len(values) - 1 - values[::-1].index(1.0)


def test_slerp_divides_the_angle_evenly_and_keeps_the_length():
    a, b = torch.tensor([2.0, 0, 0]), torch.tensor([0, 0, 2.0])
    for step, code in enumerate(slerp(a, b, torch.linspace(0, 1, 4))):
        angle = np.pi / 2 * step / 3
        np.testing.assert_allclose(code, [2 * np.cos(angle), 0, 2 * np.sin(angle)], atol=1e-6)


@pytest.mark.parametrize("factor", [1.0, -1.0, 0.0])
def test_slerp_is_linear_if_the_arc_is_not_unique(factor):
    a = torch.tensor([1.0, 2.0, -1.0])
    codes = slerp(a, factor * a, torch.tensor([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(codes, torch.stack([a, (1 + factor) / 2 * a, factor * a]), atol=1e-4)


def test_rows_of_the_validation_array_are_interpolated(trained, ears, unseen, one_side, tmp_path):
    result = interpolate(trained.last, tmp_path, one_side, number=5)
    model = earteach.load(trained.last)
    with torch.no_grad():
        a, b = model.encode(batch(unseen[list(one_side)]))[0]
        decoded = model.decode(slerp(a, b, torch.linspace(0, 1, 5)))
    images = stacked(result.images)
    assert np.abs(images - levels(decoded)).max() <= 0.51
    assert result.ends == tuple(f"{ears / 'val_teacher.npy'}[{row}]" for row in one_side)
    assert not result.turned
    sheet = pixels(result.grid)
    assert sheet.shape == (36, 34 * 5 + 2, 3)
    assert np.array_equal(sheet[2:34, 2 + 34 : 34 + 34], images[1])


def test_photographs_are_interpolated(trained, unseen, one_side, tmp_path):
    """Twice as large, and as PNGs of another tool."""
    for name, row in zip("ab", one_side, strict=True):
        large = unseen[row].repeat(2, axis=0).repeat(2, axis=1)
        cv2.imwrite(str(tmp_path / f"{name}.png"), large[..., ::-1])
    ends = tmp_path / "a.png", tmp_path / "b.png"
    photographs = interpolate(trained.last, tmp_path / "p", ends, number=3)
    rows = interpolate(trained.last, tmp_path / "r", one_side, number=3)
    assert photographs.ends == tuple(map(str, ends))
    assert np.array_equal(stacked(photographs.images), stacked(rows.images))


def test_an_ear_that_faces_the_other_way_is_mirrored(trained, unseen, tmp_path, caplog):
    values = sides(trained.last, unseen)
    both_sides = values.index(-1.0), values.index(1.0)
    with caplog.at_level(logging.INFO, "earteach"):
        result = interpolate(trained.last, tmp_path / "a", both_sides, number=4)
    assert result.turned
    assert "faces the other way" in caplog.text
    images = stacked(result.images)
    with torch.no_grad():
        ends = levels(earteach.load(trained.last).reconstruct(batch(unseen[list(both_sides)])))
    assert np.abs(images[0] - ends[0]).max() <= 0.51
    assert np.abs(images[3][:, ::-1] - ends[1]).max() <= 0.51
    assert len(set(sides(trained.last, images.astype(np.uint8)))) == 1


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (7, r"--interpolate 7: .*val_teacher.npy has rows 0 to 6; name one of them"),
        ("none.png", "none.png: no such file; name an image or a row number"),
        ("text.png", "text.png: not an image that can be read; name an image, or a row"),
    ],
)
def test_ends_that_cannot_be_read(trained, tmp_path, monkeypatch, end, message):
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("not an image")
    end = Path(end) if isinstance(end, str) else end
    for ends in [(0, end), (end, 0)]:
        with pytest.raises(EarTeachError, match=message):
            interpolate(trained.last, Path("out"), ends)
    assert not Path("out").exists()


def test_the_mean_ear_is_moved_along_each_direction(placed, tmp_path):
    result = traverse(placed, tmp_path / "out", 3)
    mixture = get_mixture(load_model(placed))
    assert result.sigmas == (-3, -2, -1, 0, 1, 2, 3)
    assert [d.share for d in result.directions] == pytest.approx(mixture.shares[:3].tolist())
    codes = [
        mixture.mean_code() + sigma * torch.from_numpy(axis)
        for axis in mixture.axes[:3]
        for sigma in result.sigmas
    ]
    with torch.no_grad():
        decoded = levels(earteach.load(placed).decode(torch.stack(codes)))
    images = stacked(result.images)
    assert np.abs(images - decoded).max() <= 0.51
    sheet = pixels(result.grid)
    assert sheet.shape == (34 * 3 + 2, 34 * 7 + 2, 3)
    assert np.array_equal(sheet[2 + 34 : 34 + 34, 2:34], images[7])


@pytest.mark.parametrize(
    ("directions", "number", "message"),
    [
        (16, 7, "--traverse 16: .* vary in 15 directions"),
        (0, 7, "--traverse 0: must be at least 1"),
        (1, 1, "--number 1: must be at least 2"),
    ],
)
def test_bad_options_of_a_traversal(placed, tmp_path, directions, number, message):
    with pytest.raises(EarTeachError, match=message):
        traverse(placed, tmp_path / "out", directions, number=number)


def test_a_traversal_needs_a_stored_mixture_or_the_training_array(placed, tmp_path):
    before = traverse(placed, tmp_path / "before", 2)
    rename_arrays(placed, train_data=tmp_path / "gone.npy")
    after = traverse(placed, tmp_path / "after", 2)
    assert np.array_equal(stacked(before.images), stacked(after.images))
    placed.with_name("last.mixture.npz").unlink()
    with pytest.raises(EarTeachError, match=r"--traverse 2: no mixture .*gone.npy: no such file"):
        traverse(placed, tmp_path / "out", 2)
    assert not (tmp_path / "out").exists()
