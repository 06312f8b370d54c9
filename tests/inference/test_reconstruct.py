"""The PNGs of `reconstruct`, judged by their own pixels."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

import earteach
from earteach.config import InferenceConfig
from earteach.errors import EarTeachError
from earteach.inference.reconstruct import reconstruct
from earteach.inference.sample import sample
from earteach.randomness import variation_noise
from tests.conftest import TINY_RUN, Run, data_options, run_options
from tests.conftest import earteach as command

SIZE, GAP = 32, 2


def panels(path: Path) -> list[np.ndarray]:
    """Input, reconstruction and error of a PNG: three squares on white, two pixels apart."""
    with Image.open(path) as picture:
        sheet = np.asarray(picture)
    assert sheet.shape == (SIZE + 2 * GAP, 3 * SIZE + 4 * GAP, 3)
    lefts = [GAP + place * (SIZE + GAP) for place in range(3)]
    assert (np.delete(sheet, np.r_[GAP : GAP + SIZE], axis=0) == 255).all()
    return [sheet[GAP : GAP + SIZE, left : left + SIZE] for left in lefts]


def batch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)


def png(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


@pytest.fixture(scope="module")
def val(ears: Path) -> np.ndarray:
    return np.load(ears / "val_teacher.npy")


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_pictures_are_input_reconstruction_and_error(trained, ears, val, tmp_path, batch_size):
    result = reconstruct(
        trained.last, [ears / "val_teacher.npy"], tmp_path,
        config=InferenceConfig(batch_size=batch_size),
    )  # fmt: skip
    with torch.no_grad():
        wanted = earteach.load(trained.last).reconstruct(batch(val)).permute(0, 2, 3, 1).numpy()
    assert result.checkpoint == trained.last
    assert len(result.images) == len(val)
    for row, entry in enumerate(result.images):
        assert entry.input == f"{ears / 'val_teacher.npy'}[{row}]"
        assert entry.output == tmp_path / f"val_teacher-{row:05d}.png"
        given, seen, error = panels(entry.output)
        assert np.array_equal(given, val[row])
        # Half a level of rounding, and what the batch does to the last bits.
        assert np.abs(seen - wanted[row] * 255).max() <= 0.51
        assert_shows_the_error(error, np.abs(wanted[row] - val[row] / 255).mean(axis=2))


def assert_shows_the_error(picture: np.ndarray, error: np.ndarray) -> None:
    """The brighter, the larger: black at none, white from a quarter of the range on."""
    brightness = picture.astype(int).sum(axis=2)
    np.testing.assert_allclose(brightness, 765 * np.minimum(error / 0.25, 1), atol=2.5)


def test_psnr_and_ssim_are_those_of_the_pixels(trained, ears, tmp_path):
    for entry in reconstruct(trained.last, [ears / "val_teacher.npy"], tmp_path).images:
        given, seen, _ = (batch(panel[None]) for panel in panels(entry.output))
        psnr = peak_signal_noise_ratio(seen, given, data_range=1.0).item()
        ssim = structural_similarity_index_measure(seen, given, data_range=1.0).item()
        assert entry.psnr == pytest.approx(psnr, abs=0.02)
        assert entry.ssim == pytest.approx(ssim, abs=0.005)
        with Image.open(entry.output) as picture:
            facts = picture.info
        assert facts["PSNR"] == f"{entry.psnr:.2f} dB"
        assert facts["Input"] == entry.input
        assert facts["Checkpoint"] == "last.ckpt"


def names(result: object) -> list[str]:
    return [entry.output.name for entry in result.images]


def test_images_folders_and_arrays_in_one_call(trained, ears, val, tmp_path):
    photos = tmp_path / "photos"
    png(photos / "a.png", val[0])
    png(photos / "person" / "b.png", val[1])
    (photos / "notes.txt").write_text("no photograph")
    single = png(tmp_path / "left ear.png", val[2])
    inputs = [single, photos, ears / "val_teacher.npy"]
    result = reconstruct(trained.last, inputs, tmp_path / "out" / "deep", number=2)
    assert names(result) == [
        "left ear.png", "a.png", "person-b.png", "val_teacher-00000.png", "val_teacher-00001.png",
    ]  # fmt: skip
    for entry, image in zip(result.images, val[[2, 0, 1, 0, 1]], strict=True):
        assert np.array_equal(panels(entry.output)[0], image)
    assert [entry.input for entry in result.images[:2]] == [str(single), str(photos / "a.png")]


def test_inputs_of_one_name_get_a_number(trained, val, tmp_path):
    inputs = [png(tmp_path / folder / "ear.png", val[row]) for row, folder in enumerate("abc")]
    inputs.append(png(tmp_path / "ear-2.png", val[3]))
    result = reconstruct(trained.last, inputs, tmp_path / "out")
    assert names(result) == ["ear.png", "ear-2.png", "ear-3.png", "ear-2-2.png"]
    for entry, image in zip(result.images, val, strict=False):
        assert np.array_equal(panels(entry.output)[0], image)


@pytest.mark.parametrize("fit", ["stretch", "reflect"])
def test_photographs_are_made_square_as_prepare_makes_them(trained, val, tmp_path, fit):
    wide = png(tmp_path / "photos" / "a" / "wide.png", np.concatenate([val[0], val[1]], axis=1))
    png(tmp_path / "photos" / "b" / "other.png", val[2])
    prepared = command(
        "prepare", tmp_path / "photos", "--image-size", SIZE, "--fit", fit,
        "--group-by", "folder", "--val-groups", "b", "--out", tmp_path / "data",
    )  # fmt: skip
    assert prepared.code == 0, prepared.err
    result = reconstruct(trained.last, [wide], tmp_path / "out", fit=fit)
    (square,) = np.load(tmp_path / "data" / "train_teacher.npy")
    assert np.array_equal(panels(result.images[0].output)[0], square)


def test_names_longer_than_files_may_have_are_shortened_and_stay_apart(trained, val, tmp_path):
    folder = tmp_path / "in" / ("a" * 200) / ("b" * 200)
    for number, name in enumerate(("x" * 251, "y" + "x" * 250, "ö" * 125)):
        png(folder / f"{name}.png", val[number])
    np.save(tmp_path / f"{'z' * 251}.npy", val[:2])
    inputs = [tmp_path / "in", tmp_path / f"{'z' * 251}.npy"]
    result = reconstruct(trained.last, inputs, tmp_path / "out", variations=2)
    assert len({image.output for image in result.images}) == 5
    for image, wanted in zip(result.images, (val[0], val[1], val[2], val[0], val[1]), strict=True):
        assert len(os.fsencode(image.output.name)) < 255
        with Image.open(image.output) as picture:
            sheet = np.asarray(picture)
        np.testing.assert_array_equal(sheet[GAP : GAP + SIZE, GAP : GAP + SIZE], wanted)


def test_what_cannot_be_read_in_a_folder_is_left_out(trained, val, tmp_path, caplog):
    photos = tmp_path / "photos"
    png(photos / "good.png", val[0])
    (photos / "bad.png").write_bytes(b"no picture")
    with caplog.at_level(logging.INFO, "earteach"):
        assert names(reconstruct(trained.last, [photos], tmp_path / "out")) == ["good.png"]
    assert f"left out {photos / 'bad.png'}: " in caplog.text


def bad_file(folder: Path) -> Path:
    (folder / "bad.png").write_bytes(b"no picture")
    return folder / "bad.png"


def bad_folder(folder: Path) -> Path:
    (folder / "photos").mkdir()
    bad_file(folder / "photos")
    return folder / "photos"


def empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bad_file, "not an image that can be read; name an image, a folder or an array"),
        (bad_folder, "none of the photographs could be read"),
        (empty_folder, "holds no photographs"),
        (lambda folder: folder / "none.png", "no such file; name an image, a folder or an array"),
        (lambda folder: folder / "none.npy", "no such file"),
    ],
)
def test_inputs_that_cannot_be_read(trained, tmp_path, make, message):
    with pytest.raises(EarTeachError, match=message):
        reconstruct(trained.last, [make(tmp_path)], tmp_path / "out")


@pytest.mark.parametrize("number", [0, -1])
def test_no_pictures_cannot_be_asked_for(trained, ears, tmp_path, number):
    with pytest.raises(EarTeachError, match=f"--number {number}: must be at least 1"):
        reconstruct(trained.last, [ears / "val_teacher.npy"], tmp_path, number=number)


def test_own_pictures_are_replaced_and_foreign_ones_are_not(trained, ears, val, tmp_path):
    array = ears / "val_teacher.npy"
    for _ in range(2):
        result = reconstruct(trained.last, [array], tmp_path, number=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == names(result)
    png(tmp_path / "val_teacher-00001.png", val[0])
    before = (tmp_path / "val_teacher-00001.png").read_bytes()
    with pytest.raises(EarTeachError, match="was not written by earteach"):
        reconstruct(trained.last, [array], tmp_path, number=2)
    assert (tmp_path / "val_teacher-00001.png").read_bytes() == before


@pytest.fixture(scope="module")
def trained_gray(ears: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("gray")
    result = command(
        "train", *data_options(ears), *run_options(folder), *TINY_RUN, "--in-channels", 1,
        "--epochs", 1, "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    return Run(folder, result.json)


def test_a_gray_network_shows_gray_ears(trained_gray, val, tmp_path):
    photo = png(tmp_path / "ear.png", val[0])
    (entry,) = reconstruct(trained_gray.last, [photo], tmp_path / "out").images
    given, seen, _ = panels(entry.output)
    for picture in (given, seen):
        assert (picture == picture[..., :1]).all()
    luma = val[0] @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(given[..., 0], luma, atol=1)


def variations(checkpoint, inputs, out, **options) -> list[np.ndarray]:
    found = []
    for entry in reconstruct(checkpoint, inputs, out, **options).images:
        with Image.open(entry.output) as picture:
            found.append(np.asarray(picture).astype(int))
    return found


def test_variations_are_decoded_around_the_code(trained, ears, val, tmp_path):
    """mu + S · sigma · noise, by hand; the side of the ear stays."""
    result = reconstruct(
        trained.last, [ears / "val_teacher.npy"], tmp_path, number=3, jitter=1.5, variations=2,
        seed=7,
    )  # fmt: skip
    assert names(result) == [
        f"val_teacher-{row:05d}-variation-{variation}.png"
        for variation in range(2)
        for row in range(3)
    ]
    assert (result.jitter, result.seed) == (1.5, 7)
    model = earteach.load(trained.last)
    with torch.no_grad():
        mu, logvar = model.encode(batch(val[:3]))
        for place, entry in enumerate(result.images):
            row, variation = place % 3, place // 3
            noise = variation_noise(7, [row], variation, 16)[0].numpy()
            noise[-1] = 0
            code = mu[row].numpy() + 1.5 * np.exp(0.5 * logvar[row].numpy()) * noise
            wanted = model.decode(torch.from_numpy(code)[None])[0].permute(1, 2, 0).numpy()
            with Image.open(entry.output) as picture:
                seen = np.asarray(picture)
                assert picture.info["Jitter"] == "1.5"
            assert np.abs(seen - wanted * 255).max() <= 0.51
            error = np.square(wanted.astype(np.float64) - val[row] / 255).mean()
            assert entry.psnr == pytest.approx(-10 * np.log10(error), abs=1e-3)


def test_the_seed_decides_variations_and_the_batch_does_not(trained, ears, tmp_path):
    array = [ears / "val_teacher.npy"]
    options = {"jitter": 3.0, "number": 5}
    first = variations(trained.last, array, tmp_path / "a", **options)
    config = InferenceConfig(batch_size=2)
    again = variations(trained.last, array, tmp_path / "b", **options, config=config)
    assert max(np.abs(a - b).max() for a, b in zip(first, again, strict=True)) <= 1
    other = variations(trained.last, array, tmp_path / "c", **options, seed=43)
    assert all((a != b).any() for a, b in zip(first, other, strict=True))
    some = variations(trained.last, array, tmp_path / "d", **options, variations=2)
    assert all(np.abs(a - b).max() <= 1 for a, b in zip(first, some[:5], strict=True))
    assert all((a != b).any() for a, b in zip(first, some[5:], strict=True))


def test_more_jitter_leads_farther_and_none_gives_the_reconstruction(trained, ears, val, tmp_path):
    array = [ears / "val_teacher.npy"]
    with torch.no_grad():
        still = (
            earteach.load(trained.last).reconstruct(batch(val)).permute(0, 2, 3, 1).numpy() * 255
        )
    apart = []
    for jitter in (0, 1, 4):
        seen = variations(trained.last, array, tmp_path / str(jitter), jitter=jitter)
        apart.append(float(np.abs(np.stack(seen) - still).mean()))
    assert apart[0] <= 0.26 < apart[2]
    assert apart[0] < apart[1] < apart[2]


@pytest.mark.parametrize("jitter", [-1.0, float("nan"), float("inf")])
def test_jitter_is_a_number_from_0_on(trained, ears, tmp_path, jitter):
    with pytest.raises(EarTeachError, match=r"--jitter .*: must be a number from 0 on"):
        reconstruct(trained.last, [ears / "val_teacher.npy"], tmp_path, jitter=jitter)
    with pytest.raises(EarTeachError, match="--variations 0: must be at least 1"):
        reconstruct(trained.last, [ears / "val_teacher.npy"], tmp_path, jitter=1, variations=0)


def test_pictures_do_not_replace_the_ears_that_they_are_of(trained, tmp_path):
    sample(trained.last, tmp_path / "samples", number=2)
    before = {path.name: path.read_bytes() for path in (tmp_path / "samples").iterdir()}
    for source in (tmp_path / "samples", tmp_path / "samples" / "sample-000.png"):
        with pytest.raises(EarTeachError, match="may replace images of --input"):
            reconstruct(trained.last, [source], tmp_path / "samples")
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "samples").iterdir()}


def test_a_picture_may_stand_beside_the_photograph_that_it_is_of(trained, val, tmp_path):
    Image.fromarray(val[0]).save(tmp_path / "me.jpg")
    (entry,) = reconstruct(trained.last, [tmp_path / "me.jpg"], tmp_path).images
    assert entry.output == tmp_path / "me.png"
