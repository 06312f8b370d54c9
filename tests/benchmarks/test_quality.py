"""The quality benchmark: one tiny run from end to end, and what makes the models comparable."""

from __future__ import annotations

import json
import os
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio
from sklearn.decomposition import PCA

import earteach
from benchmarks import tables
from benchmarks.quality.__main__ import main
from benchmarks.quality.command import Keeper
from benchmarks.quality.settings import MODELS
from earteach.config import InferenceConfig

AVAILABLE = [name for name in MODELS if name != "autoencoderkl" or find_spec("diffusers")]


def arguments(ears: Path, out: Path, *more: str) -> list[str]:
    """A run of a fraction of a second for each model."""
    return [
        "--train", str(ears / "train_teacher.npy"), "--val", f"drawn={ears / 'val_teacher.npy'}",
        "--out", str(out), "--save", str(out / "saved" / "quality.json"),
        "--image-size", "32", "--base-channels", "8", "--latent-dim", "64", "--batch-size", "8",
        "--minutes", "0.01", "--threads", "1", "--workers", "0", "--points", "3", "--samples", "6",
        "--curve-images", "4", *more,
    ]  # fmt: skip


def rows_in(out: Path) -> Any:
    return json.loads((out / "results.json").read_text())["models"]


@pytest.fixture(scope="module")
def benchmark(ears: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of results: PCA first, then the same command with every model."""
    out = tmp_path_factory.mktemp("benchmark")
    (out / "saved").mkdir()
    for models in ("pca", ",".join(AVAILABLE)):
        with redirect_stdout(StringIO()):
            assert main(arguments(ears, out, "--models", models)) == 0
    return out


@pytest.mark.slow
def test_every_model_has_a_row_and_earlier_rows_are_kept(benchmark: Path) -> None:
    rows = rows_in(benchmark)
    assert list(rows) == AVAILABLE
    assert rows["pca"]["command"].endswith("--models pca")
    for row in rows.values():
        assert row["scores"]["drawn"]["images"] == 7
        assert row["curve"]


@pytest.mark.slow
def test_the_saved_tables_have_the_rows(benchmark: Path) -> None:
    saved = tables.load(benchmark / "saved")
    assert set(saved) == {"quality-64", "curve-64", "samples-64"}
    assert [row[0] for row in saved["quality-64"].rows] == AVAILABLE
    peer = [row[1] for row in saved["samples-64"].rows if row[0] == "vae"]
    assert peer == ["prior", "gmm"]
    assert saved["quality-64"].markdown() in (benchmark / "table.md").read_text()


@pytest.mark.slow
def test_pca_matches_scikit_learn(benchmark: Path, ears: Path) -> None:
    train, val = (
        np.load(ears / f"{part}_teacher.npy").astype(np.float64) / 255 for part in ("train", "val")
    )
    both = np.concatenate([train, train[:, :, ::-1]]).reshape(2 * len(train), -1)
    pca = PCA(n_components=40, svd_solver="full").fit(both)
    flat = val.reshape(len(val), -1)
    decoded = pca.inverse_transform(pca.transform(flat)).clip(0, 1).reshape(val.shape)
    psnr = [peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(val, decoded, strict=True)]
    assert rows_in(benchmark)["pca"]["scores"]["drawn"]["psnr"] == pytest.approx(
        np.mean(psnr), abs=1e-3
    )


@pytest.mark.slow
def test_earteach_has_the_figures_of_its_own_eval(benchmark: Path, ears: Path) -> None:
    last = benchmark / "earteach" / "checkpoints" / "last.ckpt"
    config = InferenceConfig(precision="32")
    metrics = earteach.evaluate(
        last, ears / "val_teacher.npy", baselines=False, config=config
    ).metrics
    row = rows_in(benchmark)["earteach"]["scores"]["drawn"]
    assert row["psnr"] == pytest.approx(metrics.psnr, abs=1e-3)
    assert row["ssim"] == pytest.approx(metrics.ssim, abs=1e-4)


@pytest.mark.slow
def test_other_settings_are_refused(
    benchmark: Path, ears: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = rows_in(benchmark)
    assert main(arguments(ears, benchmark, "--seed", "7")) == 1
    assert "seed 42 → 7" in capsys.readouterr().err
    assert rows_in(benchmark) == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--models", "gan"], "--models gan: there are pca, vae, autoencoderkl, earteach"),
        (["--minutes", "0"], "--minutes 0.0: must be greater than 0"),
        (["--val", "a b=x.npy"], "write it as NAME=PATH"),
        (["--train", "missing.npy"], "missing.npy: no such file"),
    ],
)
def test_mistakes_give_one_line(
    ears: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main(arguments(ears, tmp_path, *more)) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_foreign_folders_are_not_deleted(ears: Path, tmp_path: Path) -> None:
    (tmp_path / "pca").mkdir()
    (tmp_path / "pca" / "thesis.txt").write_text("mine")
    assert main(arguments(ears, tmp_path, "--models", "pca")) == 1
    assert (tmp_path / "pca" / "thesis.txt").read_text() == "mine"


def test_one_checkpoint_is_kept_per_due_time(tmp_path: Path) -> None:
    source = tmp_path / "last.ckpt"
    keeper = Keeper(source, tmp_path / "curve", [10, 20, 30])
    for content, seconds in (("early", 5), ("a", 12), ("b", 15), ("c", 31), ("end", 40)):
        partial = tmp_path / "partial"
        partial.write_text(content)
        os.utime(partial, (keeper.started + seconds,) * 2)
        partial.replace(source)
        keeper.look(final=content == "end")
        keeper.look()
    assert [kept.path.read_text() for kept in keeper.kept] == ["a", "c", "end"]
