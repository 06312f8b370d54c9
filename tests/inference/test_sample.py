"""New ears: the same from a seed, others from another."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import earteach
from earteach.config import InferenceConfig
from earteach.errors import EarTeachError
from earteach.inference.sample import Samples, sample


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def pixels(samples: Samples) -> np.ndarray:
    return np.stack([picture(path) for path in samples.images])


def test_the_seed_decides_the_pixels(trained, tmp_path):
    first, again, other = (
        pixels(sample(trained.last, tmp_path / name, number=5, seed=seed))
        for name, seed in [("a", 3), ("b", 3), ("c", 4)]
    )
    assert np.array_equal(first, again)
    assert (first != other).any(axis=(1, 2, 3)).all()
    assert len({ear.tobytes() for ear in first}) == 5


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_the_batch_size_does_not_matter(trained, tmp_path, batch_size):
    wanted = pixels(sample(trained.last, tmp_path / "a", number=5))
    config = InferenceConfig(batch_size=batch_size)
    seen = pixels(sample(trained.last, tmp_path / "b", number=5, config=config))
    # The last bits of a convolution may differ with the batch, and a rounded level with them.
    assert np.abs(seen - wanted).max() <= 1


def test_fewer_ears_are_the_first_of_more(trained, tmp_path):
    more = pixels(sample(trained.last, tmp_path / "a", number=7))
    fewer = pixels(sample(trained.last, tmp_path / "b", number=3))
    assert np.abs(more[:3] - fewer).max() <= 1


def test_ears_are_decoded_standard_normal_codes(trained, tmp_path):
    generator = torch.Generator().manual_seed(9)
    codes = torch.stack([torch.randn(16, generator=generator) for _ in range(4)])
    with torch.no_grad():
        decoded = earteach.load(trained.last).decode(codes).permute(0, 2, 3, 1).numpy()
    seen = pixels(sample(trained.last, tmp_path, number=4, seed=9))
    assert np.abs(seen - decoded * 255).max() <= 0.51


@pytest.mark.parametrize(
    ("number", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (5, 3, 2), (9, 3, 3)]
)
def test_the_grid_shows_all_ears(trained, tmp_path, number, columns, rows):
    result = sample(trained.last, tmp_path, number=number)
    assert result.grid == tmp_path / "grid.png"
    sheet = picture(result.grid)
    assert sheet.shape == (34 * rows + 2, 34 * columns + 2, 3)
    for place, ear in enumerate(pixels(result)):
        top, left = 2 + 34 * (place // columns), 2 + 34 * (place % columns)
        assert np.array_equal(sheet[top : top + 32, left : left + 32], ear)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_of_an_earlier_call_go_and_others_stay(trained, tmp_path):
    sample(trained.last, tmp_path, number=4)
    (tmp_path / "notes.txt").write_text("mine")
    Image.new("RGB", (8, 8)).save(tmp_path / "sample-900.png")
    result = sample(trained.last, tmp_path, number=2, seed=1)
    assert [path.name for path in result.images] == ["sample-000.png", "sample-001.png"]
    assert listing(tmp_path) == [
        "grid.png", "notes.txt", "sample-000.png", "sample-001.png", "sample-900.png",
    ]  # fmt: skip
    with Image.open(result.grid) as grid:
        assert grid.info["Seed"] == "1"
    assert (result.seed, result.sampler, result.checkpoint) == (1, "prior", trained.last)


@pytest.mark.parametrize("name", ["sample-001.png", "grid.png"])
def test_foreign_files_are_refused_before_anything_is_written(trained, tmp_path, name):
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(EarTeachError, match="was not written by earteach"):
        sample(trained.last, tmp_path, number=3)
    assert listing(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b"mine"


@pytest.mark.parametrize("number", [0, -3])
def test_no_ears_cannot_be_asked_for(trained, tmp_path, number):
    with pytest.raises(EarTeachError, match=f"--number {number}: must be at least 1"):
        sample(trained.last, tmp_path, number=number)


def test_a_folder_that_is_a_file(trained, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EarTeachError, match="is a file; name a folder"):
        sample(trained.last, tmp_path / "file")
