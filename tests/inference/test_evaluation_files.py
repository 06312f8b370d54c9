"""What `evaluate` writes, judged by its pixels and by torchmetrics."""

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
from tests.conftest import Run, data_options, run_options
from tests.conftest import earteach as command

SIZE, GAP = 32, 2
NAMES = {"worst.png", "best.png", "per_image.csv"}


def panels(path: Path, columns: int) -> list[list[np.ndarray]]:
    """The squares of a sheet, row by row."""
    with Image.open(path) as picture:
        sheet = np.asarray(picture).astype(int)
    step = SIZE + GAP
    rows = (sheet.shape[0] - GAP) // step
    assert sheet.shape == (rows * step + GAP, columns * step + GAP, 3)
    starts = [[(GAP + row * step, GAP + column * step) for column in range(columns)]
              for row in range(rows)]  # fmt: skip
    return [[sheet[y : y + SIZE, x : x + SIZE] for y, x in line] for line in starts]


def table(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


@pytest.fixture(scope="module")
def val(ears: Path) -> np.ndarray:
    return np.load(ears / "val_teacher.npy")


def guesses(
    run: Run, ears: Path, val: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The images, the model's reconstructions and PCA's."""
    images = torch.from_numpy(val.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    train = EarArray.open(ears / "train_teacher.npy")
    pca = eigenears(train, components=16, size=SIZE, channels=3).reconstruct(images)
    with torch.no_grad():
        return images, earteach.load(run.last).reconstruct(images), pca


def of_each(metric, guess: torch.Tensor, images: torch.Tensor) -> list[float]:
    pairs = zip(guess.split(1), images.split(1), strict=True)
    return [metric(*pair, data_range=1.0).item() for pair in pairs]


def test_the_table_has_the_values_of_each_image(trained, ears, val, tmp_path):
    seen = evaluate(trained.last, out=tmp_path)
    assert seen.files.per_image == tmp_path / "per_image.csv"
    columns = table(seen.files.per_image)
    assert list(columns) == ["row", "psnr", "ssim", "kld", "pca_psnr", "pca_ssim"]
    assert columns["row"].tolist() == list(range(len(val)))
    images, by_model, by_pca = guesses(trained, ears, val)
    for name, metric in (
        ("psnr", peak_signal_noise_ratio), ("ssim", structural_similarity_index_measure),
    ):  # fmt: skip
        assert columns[name] == pytest.approx(of_each(metric, by_model, images), abs=1e-4)
        assert columns[f"pca_{name}"] == pytest.approx(of_each(metric, by_pca, images), abs=1e-4)
    for name in ("psnr", "ssim", "kld"):
        assert columns[name].mean() == pytest.approx(getattr(seen.metrics, name), rel=1e-12)


@pytest.mark.parametrize("batch_size", [3, 32])
def test_the_pictures_show_the_worst_and_the_best(trained, ears, tmp_path, batch_size):
    val = np.load(ears / "train_teacher.npy")  # more images than are shown
    images, by_model, by_pca = guesses(trained, ears, val)
    psnr = np.array(of_each(peak_signal_noise_ratio, by_model, images))
    order = psnr.argsort()
    files = evaluate(
        trained.last, ears / "train_teacher.npy", out=tmp_path,
        config=InferenceConfig(batch_size=batch_size),
    ).files  # fmt: skip
    assert (files.worst.path, files.best.path) == (tmp_path / "worst.png", tmp_path / "best.png")
    for picture, rows in ((files.worst, order[:8]), (files.best, order[::-1][:8])):
        assert picture.rows == tuple(rows)
        shown = panels(picture.path, 4)
        assert len(shown) == 8
        for row, (given, seen, pca, error) in zip(rows, shown, strict=True):
            assert np.array_equal(given, val[row])
            for panel, guess in ((seen, by_model), (pca, by_pca)):
                wanted = guess[row].permute(1, 2, 0).numpy() * 255
                assert np.abs(panel - wanted).max() <= 0.51
            distance = (by_model[row] - images[row]).abs().mean(dim=0).numpy()
            brightness = 765 * np.minimum(distance / 0.25, 1)
            np.testing.assert_allclose(error.sum(axis=2), brightness, atol=2.5)
        with Image.open(picture.path) as png:
            facts = png.info
        assert facts["Columns"] == "input, reconstruction, PCA, error"
        assert facts["Rows"].startswith(f"{rows[0]} ({psnr[rows[0]]:.2f} dB), {rows[1]} (")
        assert facts["Checkpoint"] == "last.ckpt"


def test_without_baselines_pca_is_nowhere(trained, val, tmp_path):
    files = evaluate(trained.last, out=tmp_path, baselines=False).files
    assert list(table(files.per_image)) == ["row", "psnr", "ssim", "kld"]
    shown = panels(files.worst.path, 3)
    # Fewer images than a picture has room for: each of them once.
    assert len(shown) == len(val) == len(set(files.worst.rows))
    for row, (given, _, _) in zip(files.worst.rows, shown, strict=True):
        assert np.array_equal(given, val[row])
    assert files.best.rows == files.worst.rows[::-1]


def test_gray_ears(tmp_path):
    run = ["--in-channels", 1, "--image-size", 32, "--base-channels", 4, "--latent-dim", 8]
    assert command("prepare", "--synthetic", 10, "--image-size", 32, "--out", tmp_path).code == 0
    trained = command(
        "train", *data_options(tmp_path), *run_options(tmp_path), *run, "--batch-size", 4,
        "--num-workers", 0, "--epochs", 1,
    )  # fmt: skip
    assert trained.code == 0, trained.err
    files = evaluate(tmp_path / "checkpoints", out=tmp_path / "out").files
    for row in panels(files.best.path, 4):
        assert all(np.ptp(panel, axis=2).max() == 0 for panel in row[:3])
        assert np.ptp(row[3], axis=2).max() > 0  # the error is drawn in colour


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_its_own_files_are_replaced_and_others_left_alone(trained, ears, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    evaluate(trained.last, ears / "train_teacher.npy", out=tmp_path)
    before = written(tmp_path)
    assert set(before) == {*NAMES, "notes.txt"}
    evaluate(trained.last, out=tmp_path, baselines=False)
    after = written(tmp_path)
    assert set(after) == set(before)
    assert all(after[name] != before[name] for name in NAMES)
    assert after["notes.txt"] == b"mine"
    # And back: a table without PCA is known as its own, too.
    evaluate(trained.last, ears / "train_teacher.npy", out=tmp_path)
    assert written(tmp_path) == before


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_foreign_file_of_that_name_is_in_the_way(trained, tmp_path, monkeypatch, name):
    monkeypatch.setattr("earteach.inference.evaluate._measure", pytest.fail)
    (tmp_path / name).write_text("row,psnr\n1,2\n")
    with pytest.raises(EarTeachError, match=f"{name}: exists and was not written by"):
        evaluate(trained.last, out=tmp_path)
    assert written(tmp_path) == {name: b"row,psnr\n1,2\n"}


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("file", "file: is a file; name a folder"),
        ("file/below", "file/below: lies below a file"),
        ("/proc", "/proc: cannot be written: .*; choose another --out"),
        ("/proc/new", "/proc/new: cannot be made"),
    ],
)
def test_a_folder_that_cannot_be_written_is_said_before_the_work(
    trained, tmp_path, monkeypatch, out, message
):
    monkeypatch.setattr("earteach.inference.evaluate._measure", pytest.fail)
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(EarTeachError, match=message):
        evaluate(trained.last, out=Path(out))


def test_a_table_that_cannot_be_finished_leaves_the_old_one(trained, ears, tmp_path, monkeypatch):
    evaluate(trained.last, out=tmp_path)
    before = written(tmp_path)

    class Full:
        def writerow(self, _: object) -> None: ...

        def writerows(self, _: object) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("earteach.inference.evaluation_files.csv.writer", lambda _: Full())
    with pytest.raises(EarTeachError, match=r"per_image\.csv: cannot be written: the disk is full"):
        evaluate(trained.last, ears / "train_teacher.npy", out=tmp_path)
    after = written(tmp_path)
    assert set(after) == NAMES
    assert after["per_image.csv"] == before["per_image.csv"]


def test_nothing_is_written_where_measuring_fails(trained, val, tmp_path):
    images = (val / 255).astype(np.float32)
    images[-1, 0, 0, 0] = np.nan
    np.save(tmp_path / "nan.npy", images)
    with pytest.raises(EarTeachError, match="holds NaN"):
        evaluate(trained.last, tmp_path / "nan.npy", out=tmp_path / "out")
    assert written(tmp_path / "out") == {}
