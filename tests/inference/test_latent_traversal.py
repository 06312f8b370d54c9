"""From one ear to another, and along the directions in which ears differ most."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import earteach
from earteach.config import InferenceConfig
from earteach.errors import EarTeachError
from earteach.inference.code_mixture import kept_mixture
from earteach.inference.latent_traversal import interpolate, spherical, traverse
from earteach.inference.loaded_model import load_model


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def pixels(paths: tuple[Path, ...]) -> np.ndarray:
    return np.stack([picture(path) for path in paths])


def batch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() / 255


def levels(images: torch.Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy() * 255


@pytest.fixture
def unseen(ears: Path) -> np.ndarray:
    return np.load(ears / "val_teacher.npy")


def sides(checkpoint: Path, images: np.ndarray) -> list[float]:
    with torch.no_grad():
        return earteach.load(checkpoint).encode(batch(images))[0][:, -1].tolist()


@pytest.fixture
def one_side(trained, unseen) -> tuple[int, int]:
    """Two validation images that look to one side."""
    found = sides(trained.last, unseen)
    return found.index(1.0), len(found) - 1 - found[::-1].index(1.0)


@pytest.fixture
def both_sides(trained, unseen) -> tuple[int, int]:
    found = sides(trained.last, unseen)
    return found.index(-1.0), found.index(1.0)


def test_the_arc_is_at_the_right_angles():
    a, b = torch.tensor([2.0, 0, 0]), torch.tensor([0, 0, 2.0])
    way = spherical(a, b, torch.linspace(0, 1, 4))
    for step, code in enumerate(way):
        angle = np.pi / 2 * step / 3
        np.testing.assert_allclose(code, [2 * np.cos(angle), 0, 2 * np.sin(angle)], atol=1e-6)


def test_the_arc_between_codes_of_many_numbers_keeps_their_length():
    a, b = torch.randn(2, 256, generator=torch.Generator().manual_seed(0))
    b = b / b.norm() * a.norm()
    lengths = spherical(a, b, torch.linspace(0, 1, 9)).norm(dim=1)
    np.testing.assert_allclose(lengths, a.norm(), rtol=1e-5)
    assert ((a + b) / 2).norm() < 0.8 * a.norm()


@pytest.mark.parametrize("factor", [1.0, -1.0, 3.0, 0.0])
def test_where_there_is_no_one_arc_the_way_is_straight(factor):
    a = torch.tensor([1.0, 2.0, -1.0])
    way = spherical(a, factor * a, torch.tensor([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(way, torch.stack([a, (1 + factor) / 2 * a, factor * a]), atol=1e-4)


def test_rows_of_the_validation_array_are_joined(trained, ears, unseen, one_side, tmp_path):
    result = interpolate(trained.last, tmp_path, one_side, number=5)
    with torch.no_grad():
        model = earteach.load(trained.last)
        a, b = model.encode(batch(unseen[list(one_side)]))[0]
        middle = model.decode(spherical(a, b, torch.tensor([0.5])))
        ends = model.reconstruct(batch(unseen[list(one_side)]))
    seen = pixels(result.images)
    assert len(seen) == 5
    assert np.abs(seen[[0, 4]] - levels(ends)).max() <= 0.51
    assert np.abs(seen[2] - levels(middle)[0]).max() <= 0.51
    assert result.ends == tuple(f"{ears / 'val_teacher.npy'}[{row}]" for row in one_side)
    assert not result.turned
    sheet = picture(result.grid)
    assert sheet.shape == (36, 34 * 5 + 2, 3)
    assert np.array_equal(sheet[2:34, 2 + 34 : 34 + 34], seen[1])


def test_photographs_are_joined(trained, unseen, one_side, tmp_path):
    """Twice as large, and as PNGs of another tool."""
    for name, row in zip("ab", one_side, strict=True):
        large = unseen[row].repeat(2, axis=0).repeat(2, axis=1)
        cv2.imwrite(str(tmp_path / f"{name}.png"), large[..., ::-1])
    ends = tmp_path / "a.png", tmp_path / "b.png"
    photographs = interpolate(trained.last, tmp_path / "p", ends, number=3)
    rows = interpolate(trained.last, tmp_path / "r", one_side, number=3)
    assert photographs.ends == tuple(map(str, ends))
    assert np.array_equal(pixels(photographs.images), pixels(rows.images))


def test_an_ear_that_looks_to_the_other_side_is_turned(
    trained, unseen, both_sides, tmp_path, caplog
):
    with caplog.at_level(logging.INFO, "earteach"):
        result = interpolate(trained.last, tmp_path / "a", both_sides, number=4)
    assert result.turned
    assert "looks to the other side" in caplog.text
    seen = pixels(result.images)
    with torch.no_grad():
        first, second = earteach.load(trained.last).reconstruct(batch(unseen[list(both_sides)]))
    assert np.abs(seen[0] - levels(first[None])[0]).max() <= 0.51
    assert np.abs(seen[3][:, ::-1] - levels(second[None])[0]).max() <= 0.51
    # All on the way look to the first one's side.
    assert len(set(sides(trained.last, seen.astype(np.uint8)))) == 1


def test_a_network_without_sides_turns_nothing(sideless, unseen, both_sides, tmp_path):
    result = interpolate(sideless, tmp_path / "out", both_sides, number=2)
    assert not result.turned
    with torch.no_grad():
        ends = earteach.load(sideless).reconstruct(batch(unseen[list(both_sides)]))
    assert np.abs(pixels(result.images) - levels(ends)).max() <= 0.51


def test_an_ear_joined_with_itself_stays(trained, tmp_path):
    seen = pixels(interpolate(trained.last, tmp_path, (2, 2), number=3).images)
    assert np.abs(seen - seen[0]).max() <= 1


def test_a_long_way_is_shown_in_rows(trained, one_side, tmp_path):
    config = InferenceConfig(batch_size=4)
    result = interpolate(trained.last, tmp_path, one_side, number=18, config=config)
    assert picture(result.grid).shape == (34 * 2 + 2, 34 * 16 + 2, 3)


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (7, r"--interpolate 7: .*val_teacher.npy has rows 0 to 6; name one of them"),
        (-1, "--interpolate -1: .*rows 0 to 6"),
        ("none.png", "none.png: no such file; name an image or a row number"),
        ("text.png", "text.png: not an image that can be read; name an image, or a row"),
        ("array.npy", "array.npy: not an image that can be read; name an image, or a row"),
        (".", r"--interpolate .*: is no file; name an image, or a row"),
    ],
)
def test_ends_that_cannot_be_read(trained, ears, tmp_path, monkeypatch, end, why):
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("not what you think")
    np.save("array.npy", np.zeros((2, 32, 32, 3), np.uint8))
    assert len(np.load(ears / "val_teacher.npy")) == 7
    for ends in [(0, end), (end, 0)]:
        typed = tuple(Path(e) if isinstance(e, str) else e for e in ends)
        with pytest.raises(EarTeachError, match=why):
            interpolate(trained.last, Path("out"), typed)
    assert not Path("out").exists()


def test_rows_of_an_array_that_is_gone(placed, tmp_path):
    state = torch.load(placed, weights_only=True)
    state["earteach"]["config"]["data"]["val_data"] = "gone.npy"
    torch.save(state, placed)
    with pytest.raises(
        EarTeachError, match="--interpolate 3: is a row of the validation array, but"
    ):
        interpolate(placed, tmp_path / "out", (3, 4))


@pytest.mark.parametrize("number", [1, 0, -2])
def test_a_way_has_two_ends(trained, tmp_path, number):
    with pytest.raises(EarTeachError, match=f"--number {number}: must be at least 2"):
        interpolate(trained.last, tmp_path, (0, 1), number=number)
    with pytest.raises(EarTeachError, match=f"--number {number}: must be at least 2"):
        traverse(trained.last, tmp_path, 1, number=number)


def test_the_mean_ear_is_moved_along_each_direction(placed, tmp_path):
    result = traverse(placed, tmp_path / "out", 3)
    mixture = kept_mixture(load_model(placed))
    assert mixture is not None
    assert result.sigmas == (-3, -2, -1, 0, 1, 2, 3)
    assert [d.share for d in result.directions] == pytest.approx(mixture.shares[:3].tolist())
    codes = [
        mixture.central() + sigma * torch.from_numpy(axis)
        for axis in mixture.axes[:3]
        for sigma in result.sigmas
    ]
    with torch.no_grad():
        wanted = levels(earteach.load(placed).decode(torch.stack(codes)))
    seen = pixels(result.images)
    assert np.abs(seen - wanted).max() <= 0.51
    assert np.abs(seen[[3, 10, 17]] - seen[3]).max() <= 1
    sheet = picture(result.grid)
    assert sheet.shape == (34 * 3 + 2, 34 * 7 + 2, 3)
    assert np.array_equal(sheet[2 + 34 : 34 + 34, 2:34], seen[7])


def test_the_first_direction_changes_the_picture_most(placed, tmp_path):
    result = traverse(placed, tmp_path / "out", 10, number=2)
    seen = pixels(result.images).reshape(10, 2, -1)
    change = np.square(seen[:, 1] - seen[:, 0]).mean(axis=1)
    assert change[0] == change.max()
    assert change[0] > 2 * change[5:].max()
    shares = [direction.share for direction in result.directions]
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize(("directions", "there"), [(16, 15), (300, 16)])
def test_no_more_directions_than_there_are(placed, tmp_path, directions, there):
    with pytest.raises(EarTeachError, match=f"--traverse {directions}: .* differ in {there} direc"):
        traverse(placed, tmp_path / "out", directions)


@pytest.mark.parametrize("directions", [0, -1])
def test_no_directions_cannot_be_asked_for(trained, tmp_path, directions):
    with pytest.raises(EarTeachError, match=f"--traverse {directions}: must be at least 1"):
        traverse(trained.last, tmp_path, directions)


def test_directions_need_the_training_codes(placed, tmp_path):
    kept = traverse(placed, tmp_path / "before", 2)
    state = torch.load(placed, weights_only=True)
    state["earteach"]["config"]["data"]["train_data"] = "gone.npy"
    torch.save(state, placed)
    again = traverse(placed, tmp_path / "after", 2)
    assert np.array_equal(pixels(kept.images), pixels(again.images))
    placed.with_name("last.mixture.npz").unlink()
    with pytest.raises(EarTeachError, match=r"--traverse 2: no mixture .* gone.npy: no such file"):
        traverse(placed, tmp_path / "out", 2)
    assert not (tmp_path / "out").exists()
