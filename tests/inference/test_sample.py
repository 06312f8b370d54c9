"""New ears: the same from a seed, others from another, above their nearest training images."""

import logging
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import earteach
from earteach.config import InferenceConfig
from earteach.data.arrays import EarArray
from earteach.errors import EarTeachError
from earteach.inference import sample_check
from earteach.inference.loaded_model import load_model
from earteach.inference.nearest_images import nearest_images
from earteach.inference.sample import sample
from earteach.inference.samplers import draw_codes, find_source, get_mixture
from earteach.metrics.gist import features, similarity
from tests.inference.conftest import levels, pixels, rename_arrays, stacked

SAMPLERS = ["gmm", "blend", "prior"]


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_seed_decides_the_ears_and_neither_number_nor_batch_size_does(
    trained, tmp_path, sampler
):
    options = {"sampler": sampler, "nearest": False}
    first, again, other = (
        stacked(sample(trained.last, tmp_path / name, number=5, seed=seed, **options).images)
        for name, seed in [("a", 3), ("b", 3), ("c", 4)]
    )
    assert np.array_equal(first, again)
    assert (first != other).any(axis=(1, 2, 3)).all()
    assert len({ear.tobytes() for ear in first}) == 5
    options["config"] = InferenceConfig(batch_size=2)
    fewer = stacked(sample(trained.last, tmp_path / "d", number=3, seed=3, **options).images)
    # The last bits of a convolution may differ with the batch, and a rounded level with them.
    assert np.abs(first[:3] - fewer).max() <= 1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_ears_are_decoded_codes_of_the_sampler(placed, tmp_path, sampler):
    result = sample(placed, tmp_path, number=4, seed=9, sampler=sampler)
    model = load_model(placed)
    mixture = get_mixture(model) if sampler == "gmm" else None
    (codes,) = draw_codes(find_source(model, sampler), 4, seed=9, batch_size=4)
    if sampler == "prior":
        generator = torch.Generator().manual_seed(9)
        prior = torch.stack([torch.randn(16, generator=generator) for _ in range(4)])
        assert torch.equal(codes, prior)
        (half,) = draw_codes(find_source(model, sampler), 4, seed=9, batch_size=4, temperature=0.5)
        assert torch.equal(half, prior / 2)
    with torch.no_grad():
        decoded = earteach.load(placed).decode(codes)
    assert np.abs(stacked(result.images) - levels(decoded)).max() <= 0.51
    assert (result.sampler, result.components) == (sampler, mixture and mixture.components)


def test_the_check_compares_the_ears_with_photographs(trained, ears, tmp_path, monkeypatch):
    """Five ears and training images, evenly spread, with as many validation images."""
    monkeypatch.setattr(sample_check, "FEWEST", 5)
    result = sample(trained.last, tmp_path, number=5, check=True, nearest=False)
    assert result.check is not None

    def of(images: np.ndarray) -> torch.Tensor:
        return features(torch.from_numpy(images.astype(np.float32) / 255).permute(0, 3, 1, 2))

    val, train = (np.load(ears / f"{name}_teacher.npy") for name in ("val", "train"))
    real = of(val[np.linspace(0, len(val) - 1, 5).round().astype(int)])
    expected = similarity(of(stacked(result.images)), real)
    assert vars(result.check.samples) == pytest.approx(vars(expected), rel=1e-4, abs=1e-6)
    some = of(train[np.linspace(0, len(train) - 1, 5).round().astype(int)])
    expected = similarity(some, real)
    assert vars(result.check.training_images) == pytest.approx(vars(expected), rel=1e-4, abs=1e-6)
    assert result.check.images == 5


@pytest.mark.parametrize(
    ("number", "nearest", "columns", "rows"),
    [(5, False, 3, 2), (1, True, 1, 1), (70, True, 12, 6)],
)
def test_the_grid_shows_the_first_ears_above_their_nearest_training_images(
    trained, ears, tmp_path, caplog, number, nearest, columns, rows
):
    with caplog.at_level(logging.INFO, "earteach"):
        result = sample(trained.last, tmp_path, number=number, nearest=nearest)
    assert result.grid == tmp_path / "grid.png"
    assert len(set(result.images)) == number
    assert ("shows the first 64 of 70 ears" in caplog.text) == (number == 70)
    sheet, height = pixels(result.grid), 64 if nearest else 32
    assert sheet.shape == ((height + 2) * rows + 2, 34 * columns + 2, 3)
    assert (result.nearest is not None) == nearest
    train = np.load(ears / "train_teacher.npy")
    for index, ear in enumerate(stacked(result.images)[:64]):
        top, left = 2 + (height + 2) * (index // columns), 2 + 34 * (index % columns)
        tile = sheet[top : top + height, left : left + 32]
        assert np.array_equal(tile[:32], ear)
        if nearest:
            match = result.nearest[index]
            image = train[match.row][:, ::-1] if match.mirrored else train[match.row]
            assert np.array_equal(tile[32:], image)
    assert not nearest or len(result.nearest) == min(number, 64)


def test_distances_are_those_of_the_pngs_and_of_64_validation_images(placed, ears, tmp_path):
    train = EarArray.open(ears / "train_teacher.npy")
    unseen = np.random.default_rng(0).integers(0, 256, (150, 32, 32, 3)).astype(np.uint8)
    np.save(tmp_path / "val.npy", unseen)
    rename_arrays(placed, val_data=tmp_path / "val.npy")
    result = sample(placed, tmp_path / "out", number=6)
    assert result.nearest == tuple(nearest_images(stacked(result.images).astype(np.uint8), train))
    few = unseen[np.linspace(0, 149, 64).round().astype(int)]
    distances = [match.distance for match in nearest_images(few, train)]
    assert result.validation_distance == pytest.approx(statistics.median(distances))


def test_without_the_training_array_the_prior_is_used_with_a_note(placed, tmp_path, caplog):
    bereft = rename_arrays(placed, train_data=tmp_path / "gone.npy")
    with caplog.at_level(logging.INFO, "earteach"):
        result = sample(bereft, tmp_path / "out", number=2)
    assert (result.sampler, result.components) == ("prior", None)
    assert (result.nearest, result.validation_distance) == (None, None)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("drawing from the prior: no mixture of codes is stored beside")
    assert second.startswith("nearest training images are not shown: ")
    assert "gone.npy: no such file" in first
    prior = sample(bereft, tmp_path / "prior", number=2, sampler="prior")
    assert np.array_equal(stacked(result.images), stacked(prior.images))
    with pytest.raises(EarTeachError, match=r"^--sampler gmm: no mixture .*use --sampler prior$"):
        sample(bereft, tmp_path / "gmm", sampler="gmm")
    assert not (tmp_path / "gmm").exists()


def test_without_readable_validation_images_only_their_distance_is_missing(
    placed, tmp_path, caplog
):
    np.save(tmp_path / "val.npy", np.full((4, 32, 32, 3), np.nan))
    rename_arrays(placed, val_data=tmp_path / "val.npy")
    with caplog.at_level(logging.INFO, "earteach"):
        result = sample(placed, tmp_path / "out", number=2)
    assert result.validation_distance is None
    assert len(result.nearest) == 2
    assert "no validation images to compare distances with" in caplog.text


def test_own_files_of_an_earlier_call_are_removed_and_others_kept(trained, tmp_path):
    sample(trained.last, tmp_path, number=4, nearest=False)
    (tmp_path / "notes.txt").write_text("mine")
    Image.new("RGB", (8, 8)).save(tmp_path / "sample-900.png")
    result = sample(trained.last, tmp_path, number=2, seed=1, nearest=False)
    assert [path.name for path in result.images] == ["sample-000.png", "sample-001.png"]
    assert listing(tmp_path) == [
        "grid.png", "notes.txt", "sample-000.png", "sample-001.png", "sample-900.png",
    ]  # fmt: skip
    with Image.open(result.grid) as grid:
        assert grid.info["Seed"] == "1"


def test_foreign_files_are_refused_before_anything_is_written(trained, tmp_path):
    for name in ("sample-001.png", "grid.png"):
        (tmp_path / name).write_bytes(b"mine")
        with pytest.raises(EarTeachError, match="was not written by earteach"):
            sample(trained.last, tmp_path, number=3)
    assert listing(tmp_path) == ["grid.png", "sample-001.png"]
    assert (tmp_path / name).read_bytes() == b"mine"
