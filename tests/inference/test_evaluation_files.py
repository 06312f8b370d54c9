"""The files that `evaluate` writes, judged by their pixels and by torchmetrics."""

import csv
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
from earteach.data.arrays import EarArray
from earteach.errors import EarTeachError
from earteach.inference.evaluate import evaluate
from earteach.metrics.eigenears import eigenears
from tests.conftest import Run

SIZE, GAP = 32, 2
NAMES = {"worst.png", "best.png", "per_image.csv"}


def panels(path: Path, columns: int) -> list[list[np.ndarray]]:
    """The squares of a sheet, row by row."""
    with Image.open(path) as picture:
        sheet = np.asarray(picture).astype(int)
    step = SIZE + GAP
    rows = (sheet.shape[0] - GAP) // step
    assert sheet.shape == (rows * step + GAP, columns * step + GAP, 3)
    return [
        [sheet[y : y + SIZE, x : x + SIZE] for x in range(GAP, columns * step, step)]
        for y in range(GAP, rows * step, step)
    ]


def table(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def reconstructions(run: Run, train: Path, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The model's and PCA's."""
    pca = eigenears(EarArray.open(train), components=16, size=SIZE, channels=3)
    with torch.no_grad():
        decoded = earteach.load(run.last).reconstruct(images)
    return {"": decoded, "pca_": pca.reconstruct(images)}


def test_the_files_show_the_worst_and_the_best_images(trained, ears, tmp_path):
    stored = np.load(ears / "train_teacher.npy")  # more images than are shown
    images = torch.from_numpy(stored.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    expected = reconstructions(trained, ears / "train_teacher.npy", images)
    result = evaluate(
        trained.last, ears / "train_teacher.npy", out=tmp_path, config=InferenceConfig(batch_size=3)
    )
    columns = table(result.files.per_image)
    assert list(columns) == ["row", "psnr", "ssim", "kld", "pca_psnr", "pca_ssim"]
    assert columns["row"].tolist() == list(range(len(stored)))
    metrics = {"psnr": peak_signal_noise_ratio, "ssim": structural_similarity_index_measure}
    for name, metric in metrics.items():
        for prefix, guess in expected.items():
            pairs = zip(guess.split(1), images.split(1), strict=True)
            values = [metric(*pair, data_range=1.0).item() for pair in pairs]
            assert columns[prefix + name] == pytest.approx(values, abs=1e-4)
    for name in ("psnr", "ssim", "kld"):
        assert columns[name].mean() == pytest.approx(getattr(result.metrics, name), rel=1e-12)
    order = columns["psnr"].argsort()
    for picture, rows in ((result.files.worst, order[:8]), (result.files.best, order[::-1][:8])):
        assert picture.rows == tuple(rows)
        for row, (given, decoded, pca, error) in zip(rows, panels(picture.path, 4), strict=True):
            assert np.array_equal(given, stored[row])
            for panel, guess in zip((decoded, pca), expected.values(), strict=True):
                pixels = guess[row].permute(1, 2, 0).numpy() * 255
                assert np.abs(panel - pixels).max() <= 0.51
            distance = (expected[""][row] - images[row]).abs().mean(dim=0).numpy()
            brightness = 765 * np.minimum(distance / 0.25, 1)
            np.testing.assert_allclose(error.sum(axis=2), brightness, atol=2.5)
        with Image.open(picture.path) as png:
            facts = png.info
        assert facts["Columns"] == "input, reconstruction, PCA, error"
        assert facts["Rows"].startswith(
            f"{rows[0]} ({columns['psnr'][rows[0]]:.2f} dB), {rows[1]} ("
        )
        assert facts["Checkpoint"] == "last.ckpt"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_its_own_files_are_replaced_and_others_left_alone(trained, ears, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    evaluate(trained.last, ears / "train_teacher.npy", out=tmp_path)
    before = contents(tmp_path)
    assert set(before) == {*NAMES, "notes.txt"}
    files = evaluate(trained.last, out=tmp_path, baselines=False).files
    after = contents(tmp_path)
    assert set(after) == set(before)
    assert all(after[name] != before[name] for name in NAMES)
    assert after["notes.txt"] == b"mine"
    # Without baselines there is no PCA, and every one of these few images is shown once.
    assert list(table(files.per_image)) == ["row", "psnr", "ssim", "kld"]
    val = np.load(ears / "val_teacher.npy")
    shown = panels(files.worst.path, 3)
    assert len(shown) == len(val) == len(set(files.worst.rows))
    assert files.best.rows == files.worst.rows[::-1]
    # A table without PCA is replaced, too.
    evaluate(trained.last, ears / "train_teacher.npy", out=tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_foreign_file_is_not_replaced(trained, tmp_path, monkeypatch, name):
    monkeypatch.setattr("earteach.inference.evaluate._measure", pytest.fail)
    (tmp_path / name).write_text("row,psnr\n1,2\n")
    with pytest.raises(EarTeachError, match=f"{name}: exists and was not written by"):
        evaluate(trained.last, out=tmp_path)
    assert contents(tmp_path) == {name: b"row,psnr\n1,2\n"}


def test_nothing_is_written_if_measuring_fails(trained, ears, tmp_path):
    images = (np.load(ears / "val_teacher.npy") / 255).astype(np.float32)
    images[2, 0, 0, 0] = np.nan
    np.save(tmp_path / "nan.npy", images)
    with pytest.raises(EarTeachError, match="image 2 holds NaN"):
        evaluate(trained.last, tmp_path / "nan.npy", out=tmp_path / "out")
    assert contents(tmp_path / "out") == {}
