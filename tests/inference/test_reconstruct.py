"""The PNGs of `reconstruct`, judged by their pixels."""

import logging
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
from earteach.data import photographs
from earteach.errors import EarTeachError
from earteach.inference.reconstruct import Reconstructions, reconstruct
from earteach.inference.sample import sample
from earteach.randomness import variation_noise
from tests.inference.conftest import batch, levels, pixels, untrained

SIZE, GAP = 32, 2


@pytest.fixture
def array(ears: Path) -> Path:
    return ears / "val_teacher.npy"


@pytest.fixture
def val(array: Path) -> np.ndarray:
    return np.load(array)


def panels(path: Path) -> list[np.ndarray]:
    """Input, reconstruction and error of a PNG: three squares on white, two pixels apart."""
    sheet = pixels(path)
    assert sheet.shape == (SIZE + 2 * GAP, 3 * SIZE + 4 * GAP, 3)
    lefts = [GAP + index * (SIZE + GAP) for index in range(3)]
    assert (np.delete(sheet, np.r_[GAP : GAP + SIZE], axis=0) == 255).all()
    return [sheet[GAP : GAP + SIZE, left : left + SIZE] for left in lefts]


def png(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def names(result: Reconstructions) -> list[str]:
    return [entry.output.name for entry in result.images]


@pytest.mark.parametrize("batch_size", [3, 32])
def test_a_picture_shows_input_reconstruction_and_error(trained, array, val, tmp_path, batch_size):
    config = InferenceConfig(batch_size=batch_size)
    result = reconstruct(trained.last, [array], tmp_path, config=config)
    with torch.no_grad():
        decoded = levels(earteach.load(trained.last).reconstruct(batch(val)))
    assert result.checkpoint == trained.last
    assert len(result.images) == len(val)
    for row, entry in enumerate(result.images):
        assert entry.input == f"{array}[{row}]"
        assert entry.output == tmp_path / f"val_teacher-{row:05d}.png"
        shown, reconstruction, heat_map = panels(entry.output)
        assert np.array_equal(shown, val[row])
        # Half a level of rounding, and the batch may change the last bits.
        assert np.abs(reconstruction - decoded[row]).max() <= 0.51
        # The brighter, the larger the error: white from a quarter of the range on.
        error = np.abs(decoded[row] - val[row]).mean(axis=2) / 255
        brightness = 765 * np.minimum(error / 0.25, 1)
        np.testing.assert_allclose(heat_map.sum(axis=2), brightness, atol=2.5)


def test_psnr_and_ssim_are_torchmetrics_of_the_pixels(trained, array, tmp_path):
    for entry in reconstruct(trained.last, [array], tmp_path).images:
        shown, reconstruction, _ = (batch(panel[None]) for panel in panels(entry.output))
        psnr = peak_signal_noise_ratio(reconstruction, shown, data_range=1.0).item()
        ssim = structural_similarity_index_measure(reconstruction, shown, data_range=1.0).item()
        assert entry.psnr == pytest.approx(psnr, abs=0.02)
        assert entry.ssim == pytest.approx(ssim, abs=0.005)
        with Image.open(entry.output) as image:
            assert image.info["PSNR"] == f"{entry.psnr:.2f} dB"
            assert image.info["Input"] == entry.input
            assert image.info["Checkpoint"] == "last.ckpt"


def test_images_folders_and_arrays_in_one_call(trained, array, val, tmp_path, caplog):
    photos = tmp_path / "photos"
    png(photos / "a.png", val[0])
    png(photos / "person" / "b.png", val[1])
    (photos / "bad.png").write_bytes(b"no image")
    (photos / "notes.txt").write_text("no photograph")
    inputs = [png(tmp_path / "left ear.png", val[2]), photos, array]
    with caplog.at_level(logging.INFO, "earteach"):
        result = reconstruct(trained.last, inputs, tmp_path / "out" / "deep", number=2)
    assert f"left out {photos / 'bad.png'}: " in caplog.text
    assert names(result) == [
        "left ear.png", "a.png", "person-b.png", "val_teacher-00000.png", "val_teacher-00001.png",
    ]  # fmt: skip
    for entry, image in zip(result.images, val[[2, 0, 1, 0, 1]], strict=True):
        assert np.array_equal(panels(entry.output)[0], image)
    assert [entry.input for entry in result.images[:2]] == [str(inputs[0]), str(photos / "a.png")]


def test_inputs_of_one_name_get_a_number(trained, val, tmp_path):
    inputs = [png(tmp_path / folder / "ear.png", val[row]) for row, folder in enumerate("abc")]
    inputs.append(png(tmp_path / "ear-2.png", val[3]))
    result = reconstruct(trained.last, inputs, tmp_path / "out")
    assert names(result) == ["ear.png", "ear-2.png", "ear-3.png", "ear-2-2.png"]
    for entry, image in zip(result.images, val, strict=False):
        assert np.array_equal(panels(entry.output)[0], image)


@pytest.mark.parametrize("fit", ["stretch", "reflect"])
def test_photographs_are_made_square_as_prepare_makes_them(trained, val, tmp_path, fit):
    wide = png(tmp_path / "wide.png", np.concatenate([val[0], val[1]], axis=1))
    result = reconstruct(trained.last, [wide], tmp_path / "out", fit=fit)
    square = photographs.read_square(wide, SIZE, 3, fit).image
    assert np.array_equal(panels(result.images[0].output)[0], square)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("bad/ear.png", "not an image that can be read; name an image, a folder or an array"),
        ("bad", "none of the photographs could be read"),
        ("empty", "holds no photographs"),
        ("none.png", "no such file; name an image, a folder or an array"),
        ("arrays", r"arrays: holds arrays, not photographs; name one, or '.*arrays/\*\.npy'"),
        ("arrays/a.npz", "is an .npz archive; convert it: numpy.save"),
        ("arrays/t.csv", r"is not a \.npy file; save the array with numpy\.save"),
    ],
)
def test_inputs_that_cannot_be_read(trained, tmp_path, source, message):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "ear.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "a.npy", np.zeros(2))
    np.savez(tmp_path / "arrays" / "a.npz", ears=np.zeros(2))
    (tmp_path / "arrays" / "t.csv").write_text("1,2")
    with pytest.raises(EarTeachError, match=message):
        reconstruct(trained.last, [tmp_path / source], tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"number": 0}, "--number 0: must be at least 1"),
        ({"jitter": 1, "variations": 0}, "--variations 0: must be at least 1"),
        ({"jitter": float("nan")}, "--jitter nan: must be a finite number"),
    ],
)
def test_bad_options_are_errors(trained, array, tmp_path, options, message):
    with pytest.raises(EarTeachError, match=message):
        reconstruct(trained.last, [array], tmp_path, **options)


def test_own_pictures_are_replaced_and_foreign_ones_are_not(trained, array, val, tmp_path):
    for _ in range(2):
        result = reconstruct(trained.last, [array], tmp_path, number=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == names(result)
    png(tmp_path / "val_teacher-00001.png", val[0])
    before = (tmp_path / "val_teacher-00001.png").read_bytes()
    with pytest.raises(EarTeachError, match="was not written by earteach"):
        reconstruct(trained.last, [array], tmp_path, number=2)
    assert (tmp_path / "val_teacher-00001.png").read_bytes() == before


def test_pictures_do_not_replace_their_inputs(trained, val, tmp_path):
    """A sample is a PNG of earteach, which it would otherwise overwrite."""
    folder = tmp_path / "samples"
    sample(trained.last, folder, number=2, nearest=False)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for source in (folder, folder / "sample-000.png"):
        with pytest.raises(EarTeachError, match="may replace images of --input"):
            reconstruct(trained.last, [source], folder)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    Image.fromarray(val[0]).save(tmp_path / "me.jpg")
    assert names(reconstruct(trained.last, [tmp_path / "me.jpg"], tmp_path)) == ["me.png"]


def test_a_gray_network_shows_gray_ears(placed, val, tmp_path):
    photo = png(tmp_path / "ear.png", val[0])
    checkpoint = untrained(placed, in_channels=1, pca_init=False)
    (entry,) = reconstruct(checkpoint, [photo], tmp_path / "out").images
    shown, reconstruction, _ = panels(entry.output)
    for panel in (shown, reconstruction):
        assert (panel == panel[..., :1]).all()
    luma = val[0] @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(shown[..., 0], luma, atol=1)


@pytest.mark.parametrize("jitter", [0.0, 1.5, 4.0])
def test_variations_are_decoded_around_the_code(trained, array, val, tmp_path, jitter):
    """mu + S · sigma · noise, by hand; the side of the ear stays."""
    options = {"number": 3, "jitter": jitter, "variations": 2, "seed": 7}
    result = reconstruct(trained.last, [array], tmp_path, **options)
    assert (result.jitter, result.seed) == (jitter, 7)
    model = earteach.load(trained.last)
    with torch.no_grad():
        mu, logvar = model.encode(batch(val[:3]))
    for index, entry in enumerate(result.images):
        variation, row = divmod(index, 3)
        assert entry.output.name == f"val_teacher-{row:05d}-variation-{variation}.png"
        noise = variation_noise(7, [row], variation, 16)[0]
        noise[-1] = 0
        code = mu[row] + jitter * torch.exp(0.5 * logvar[row]) * noise
        with torch.no_grad():
            decoded = model.decode(code[None])[0].permute(1, 2, 0).numpy()
        assert np.abs(pixels(entry.output) - decoded * 255).max() <= 0.51
        error = np.square(decoded.astype(np.float64) - val[row] / 255).mean()
        assert entry.psnr == pytest.approx(-10 * np.log10(error), abs=1e-3)


def test_the_seed_decides_variations_and_the_batch_size_does_not(trained, array, tmp_path):
    def variations(name: str, **options: object) -> np.ndarray:
        result = reconstruct(
            trained.last, [array], tmp_path / name, jitter=3.0, number=5, **options
        )
        return np.stack([pixels(entry.output) for entry in result.images])

    first = variations("a")
    assert np.abs(first - variations("b", config=InferenceConfig(batch_size=2))).max() <= 1
    assert (first != variations("c", seed=43)).any(axis=(1, 2, 3)).all()
    more = variations("d", variations=2)
    assert np.abs(first - more[:5]).max() <= 1
    assert (first != more[5:]).any(axis=(1, 2, 3)).all()
