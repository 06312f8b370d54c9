"""New ears: the same from a seed, others from another, beside their nearest training images."""

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
from earteach.inference.code_mixture import kept_mixture
from earteach.inference.loaded_model import load_model
from earteach.inference.nearest_images import nearest_images
from earteach.inference.sample import Samples, sample
from earteach.model.vae import EarVAE

SAMPLERS = ["gmm", "prior"]


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def pixels(samples: Samples) -> np.ndarray:
    return np.stack([picture(path) for path in samples.images])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_seed_decides_the_pixels(trained, tmp_path, sampler):
    first, again, other = (
        pixels(sample(trained.last, tmp_path / name, number=5, seed=seed, sampler=sampler))
        for name, seed in [("a", 3), ("b", 3), ("c", 4)]
    )
    assert np.array_equal(first, again)
    assert (first != other).any(axis=(1, 2, 3)).all()
    assert len({ear.tobytes() for ear in first}) == 5


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_the_batch_size_does_not_matter(trained, tmp_path, batch_size, sampler):
    wanted = pixels(sample(trained.last, tmp_path / "a", number=5, sampler=sampler))
    config = InferenceConfig(batch_size=batch_size)
    seen = pixels(sample(trained.last, tmp_path / "b", number=5, sampler=sampler, config=config))
    # The last bits of a convolution may differ with the batch, and a rounded level with them.
    assert np.abs(seen - wanted).max() <= 1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_fewer_ears_are_the_first_of_more(trained, tmp_path, sampler):
    more = pixels(sample(trained.last, tmp_path / "a", number=7, sampler=sampler))
    fewer = pixels(sample(trained.last, tmp_path / "b", number=3, sampler=sampler))
    assert np.abs(more[:3] - fewer).max() <= 1


def test_ears_of_the_prior_are_decoded_standard_normal_codes(trained, tmp_path):
    generator = torch.Generator().manual_seed(9)
    codes = torch.stack([torch.randn(16, generator=generator) for _ in range(4)])
    with torch.no_grad():
        decoded = earteach.load(trained.last).decode(codes).permute(0, 2, 3, 1).numpy()
    result = sample(trained.last, tmp_path, number=4, seed=9, sampler="prior")
    assert np.abs(pixels(result) - decoded * 255).max() <= 0.51
    assert (result.sampler, result.components) == ("prior", None)


def test_ears_of_the_mixture_are_decoded_codes_of_it(placed, tmp_path):
    result = sample(placed, tmp_path / "out", number=4, seed=9)
    mixture = kept_mixture(load_model(placed))
    assert mixture is not None
    with torch.no_grad():
        decoded = earteach.load(placed).decode(mixture.draw(4, seed=9)).permute(0, 2, 3, 1).numpy()
    assert np.abs(pixels(result) - decoded * 255).max() <= 0.51
    assert (result.sampler, result.components) == ("gmm", mixture.components)


def test_what_the_mixture_draws_is_nearer_to_ears_than_what_the_prior_draws(sideless, tmp_path):
    """A network that learned nothing spreads its codes far from the prior."""
    codes = []
    with torch.no_grad():
        model = earteach.load(sideless)
        for sampler in SAMPLERS:
            result = sample(sideless, tmp_path / sampler, number=24, sampler=sampler, nearest=False)
            images = torch.from_numpy(pixels(result)).permute(0, 3, 1, 2) / 255
            codes.append(model.decode(model.encode(images.float())[0]) - images)
    mixture, prior = (float(error.square().mean()) for error in codes)
    assert mixture < 0.7 * prior


@pytest.mark.parametrize(
    ("number", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (5, 3, 2), (9, 3, 3)]
)
def test_the_grid_shows_all_ears(trained, tmp_path, number, columns, rows):
    result = sample(trained.last, tmp_path, number=number, nearest=False)
    assert result.grid == tmp_path / "grid.png"
    sheet = picture(result.grid)
    assert sheet.shape == (34 * rows + 2, 34 * columns + 2, 3)
    for place, ear in enumerate(pixels(result)):
        top, left = 2 + 34 * (place // columns), 2 + 34 * (place % columns)
        assert np.array_equal(sheet[top : top + 32, left : left + 32], ear)


@pytest.mark.parametrize(("number", "columns", "rows"), [(1, 2, 1), (2, 2, 1), (8, 4, 2)])
def test_the_grid_shows_each_ear_over_its_nearest_training_image(
    trained, ears, tmp_path, number, columns, rows
):
    result = sample(trained.last, tmp_path, number=number)
    sheet = picture(result.grid)
    assert sheet.shape == (66 * rows + 2, 34 * min(columns, number) + 2, 3)
    train = np.load(ears / "train_teacher.npy")
    for place, (ear, found) in enumerate(zip(pixels(result), result.nearest, strict=True)):
        top, left = 2 + 66 * (place // columns), 2 + 34 * (place % columns)
        assert np.array_equal(sheet[top : top + 32, left : left + 32], ear)
        image = train[found.row][:, ::-1] if found.mirrored else train[found.row]
        assert np.array_equal(sheet[top + 32 : top + 64, left : left + 32], image)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nearest_images_are_those_of_the_pngs(trained, ears, tmp_path, sampler):
    result = sample(trained.last, tmp_path, number=6, sampler=sampler)
    train = EarArray.open(ears / "train_teacher.npy")
    assert result.nearest == tuple(nearest_images(pixels(result).astype(np.uint8), train))
    unseen = np.load(ears / "val_teacher.npy")
    apart = [entry.distance for entry in nearest_images(unseen, train)]
    assert result.validation_distance == pytest.approx(statistics.median(apart))


def test_of_many_validation_images_a_few_are_enough(placed, ears, tmp_path):
    train = EarArray.open(ears / "train_teacher.npy")
    unseen = np.random.default_rng(0).integers(0, 256, (150, 32, 32, 3)).astype(np.uint8)
    np.save(tmp_path / "val.npy", unseen)
    altered(placed, val_data=tmp_path / "val.npy")
    result = sample(placed, tmp_path / "out", number=2)
    few = unseen[np.linspace(0, 149, 64).round().astype(int)]
    apart = [entry.distance for entry in nearest_images(few, train)]
    assert result.validation_distance == pytest.approx(statistics.median(apart))


def test_a_network_that_remembers_shows_it(placed, ears, tmp_path, monkeypatch):
    """Every ear that is drawn is a training image."""
    images = torch.from_numpy(np.load(ears / "train_teacher.npy")[[5, 9, 11]])
    monkeypatch.setattr(
        "earteach.model.vae.EarVAE.decode",
        lambda self, z: images.permute(0, 3, 1, 2).float()[: len(z)] / 255,
    )
    result = sample(placed, tmp_path / "out", number=3)
    assert [(entry.row, entry.distance) for entry in result.nearest] == [(5, 0), (9, 0), (11, 0)]
    assert result.validation_distance > 0.02


def test_the_nearest_images_can_be_left_out(trained, tmp_path):
    result = sample(trained.last, tmp_path, number=2, nearest=False)
    assert (result.nearest, result.validation_distance) == (None, None)


def altered(checkpoint: Path, **data: Path) -> None:
    """Let the checkpoint name other arrays."""
    state = torch.load(checkpoint, weights_only=True)
    for name, path in data.items():
        state["earteach"]["config"]["data"][name] = str(path)
    torch.save(state, checkpoint)


@pytest.fixture
def bereft(placed: Path) -> Path:
    """A checkpoint whose training array is gone."""
    altered(placed, train_data=placed.with_name("gone.npy"))
    return placed


def test_without_the_training_array_the_prior_is_taken_with_a_note(bereft, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "earteach"):
        result = sample(bereft, tmp_path / "out", number=2)
    assert (result.sampler, result.components) == ("prior", None)
    assert (result.nearest, result.validation_distance) == (None, None)
    notes = [record.getMessage() for record in caplog.records]
    assert len(notes) == 2
    assert notes[0].startswith("drawing from the prior: no mixture of codes is kept beside")
    assert notes[1].startswith("no nearest training images: ")
    assert all("gone.npy: no such file" in note for note in notes)
    wanted = sample(bereft, tmp_path / "prior", number=2, sampler="prior")
    assert np.array_equal(pixels(result), pixels(wanted))


def test_the_mixture_that_was_asked_for_is_not_replaced(bereft, tmp_path):
    with pytest.raises(
        EarTeachError, match=r"^--sampler gmm: no mixture .*or use --sampler prior$"
    ):
        sample(bereft, tmp_path / "out", sampler="gmm")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("sampler", [None, "gmm"])
def test_a_kept_mixture_needs_no_training_array(placed, tmp_path, caplog, sampler):
    wanted = sample(placed, tmp_path / "before", number=3)
    altered(placed, train_data=placed.with_name("gone.npy"))
    caplog.clear()
    with caplog.at_level(logging.INFO, "earteach"):
        result = sample(placed, tmp_path / "after", number=3, sampler=sampler)
    assert result.sampler == "gmm"
    assert np.array_equal(pixels(result), pixels(wanted))
    assert [record.getMessage()[:26] for record in caplog.records] == ["no nearest training images"]


def test_without_validation_images_there_is_nothing_to_compare_with(placed, tmp_path, caplog):
    altered(placed, val_data=placed.with_name("gone.npy"))
    with caplog.at_level(logging.INFO, "earteach"):
        result = sample(placed, tmp_path / "out", number=2)
    assert result.validation_distance is None
    assert len(result.nearest) == 2
    assert "no distance of validation images to compare with" in caplog.text


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_nothing_is_fitted_for_a_folder_that_cannot_be_made(placed, tmp_path, out):
    (tmp_path / "file").touch()
    with pytest.raises(EarTeachError, match="name a folder"):
        sample(placed, tmp_path / out)
    assert listing(placed.parent) == ["last.ckpt"]


def test_other_samplers_are_refused(trained, tmp_path):
    with pytest.raises(EarTeachError, match="--sampler vae: must be gmm or prior"):
        sample(trained.last, tmp_path, sampler="vae")


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
    assert (result.seed, result.sampler, result.checkpoint) == (1, "gmm", trained.last)


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


def test_ears_are_written_as_they_are_made(trained, tmp_path, monkeypatch):
    """What fails at the third batch leaves the ears of the two before it."""
    decode, calls = EarVAE.decode, []

    def failing(self, z):
        calls.append(listing(tmp_path))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return decode(self, z)

    monkeypatch.setattr(EarVAE, "decode", failing)
    config = InferenceConfig(batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        sample(trained.last, tmp_path, number=9, sampler="prior", config=config)
    assert [len(written) for written in calls] == [0, 2, 4]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_of_many_ears_the_grid_shows_the_first(trained, ears, tmp_path, caplog, sampler):
    with caplog.at_level(logging.INFO, "earteach"):
        result = sample(trained.last, tmp_path, number=70, sampler=sampler)
    assert len(result.images) == len(set(result.images)) == 70
    assert len(result.nearest) == 64
    assert "grid.png: shows the first 64 of 70 ears" in caplog.text
    sheet = picture(result.grid)
    assert sheet.shape == (66 * 6 + 2, 34 * 12 + 2, 3)
    assert np.array_equal(
        sheet[2 + 66 * 5 : 34 + 66 * 5, 2 + 34 * 3 : 34 + 34 * 3], pixels(result)[63]
    )
    assert (sheet[2 + 66 * 5 : 34 + 66 * 5, 2 + 34 * 4 :] == 255).all()


def test_validation_images_that_cannot_be_read_cost_the_distance_alone(
    placed, ears, tmp_path, caplog
):
    images = np.load(ears / "val_teacher.npy").astype(np.float32)
    images[:, 0, 0, 0] = np.nan
    np.save(tmp_path / "val.npy", images)
    state = torch.load(placed, weights_only=True)
    state["earteach"]["config"]["data"]["val_data"] = str(tmp_path / "val.npy")
    torch.save(state, placed)
    with caplog.at_level("INFO"):
        result = sample(placed, tmp_path / "out", number=2, sampler="prior")
    assert result.grid is not None
    assert "no distance of validation images" in caplog.text
