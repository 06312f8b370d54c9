"""`earteach eval`: its JSON and its tables."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from earteach.metrics.eval_metrics import Margin
from tests.conftest import Run, earteach

EVAL = ["eval", "--data", "val.npy"]


@pytest.fixture(scope="module")
def folder(ears: Path, trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval")
    shutil.copytree(trained.checkpoints, folder / "checkpoints")
    shutil.copy(ears / "val_teacher.npy", folder / "val.npy")
    return folder


@pytest.fixture(autouse=True)
def working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short paths in 80 columns."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")


def test_the_tables_match_the_json_and_fit_80_columns(trained: Run) -> None:
    args = [*EVAL, "--against", "checkpoints/last.ckpt", "--out", "o"]
    found, result = earteach(*args, "--json").json, earteach(*args)
    best, (other,), pca = found["checkpoint"], found["against"], found["baselines"]["pca"]
    assert Path(best).name == Path(trained.result["best"]["loss"]["path"]).name
    assert max(map(len, result.out.splitlines())) <= 80
    text = " ".join(result.out.replace("│", " ").split())
    for metrics in (found["metrics"], other["metrics"]):
        assert (
            f"{metrics['psnr']:.2f} dB {metrics['ssim']:.4f} {metrics['kld']:.2f} nats "
            f"{metrics['active_units']}/16" in text
        )
    assert found["metrics"]["ms_ssim"] is None
    assert "MS-SSIM" not in text
    assert f"PCA, 16 components {pca['psnr']:.2f} dB {pca['ssim']:.4f} – –" in text
    for entry in (found, other, pca):
        (low, high), (bottom, top) = entry["intervals"]["psnr"], entry["intervals"]["ssim"]
        assert f"{low:.2f} to {high:.2f} dB {bottom:.4f} to {top:.4f}" in text
        assert low < entry.get("metrics", entry)["psnr"] < high
    for name in ("psnr", "ssim"):
        margin = found["over_pca"][name]
        difference = found["metrics"][name] - pca[name]
        assert margin["difference"] == pytest.approx(difference, abs=1e-9)
        assert set(margin) == {"difference", "low", "high"}
        assert set(other["over_it"][name]) == set(margin)
    rows = found["files"]["worst"]["rows"]
    assert found["files"]["worst"]["path"] == "o/worst.png"
    assert len(found["files"]["best"]["rows"]) == min(8, found["images"])
    assert f"o/worst.png: rows {rows[0]}, " in text
    assert f"each image {found['files']['per_image']}" in text


def test_one_image() -> None:
    np.save("one.npy", np.load("val.npy")[:1])
    result = earteach("eval", "--data", "one.npy", "--out", "one")
    assert result.code == 0, result.err
    assert "1 image from one.npy" in result.out
    assert "intervals" not in result.out
    assert " dB, on one image" in result.out
    assert "one/worst.png: row 0" in result.out


@pytest.mark.parametrize(
    ("margin", "text"),
    [
        (Margin(0.52, 0.47, 0.57), "ahead of PCA by 0.52 dB (0.47 to 0.57)"),
        (Margin(-1.3, -1.35, -1.25), "behind PCA by 1.30 dB (1.25 to 1.35)"),
        (Margin(0.02, -0.03, 0.07), "tied with PCA: +0.02 dB (-0.03 to +0.07)"),
        (Margin(float("nan"), None, None), "not comparable with PCA: an image has zero error"),
    ],
)
def test_the_verdict(monkeypatch: pytest.MonkeyPatch, margin: Margin, text: str) -> None:
    monkeypatch.setattr(Margin, "between", lambda *_: margin)
    assert text in earteach(*EVAL).out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--against", "none.ckpt"], "--against none.ckpt: no such checkpoint"),
        (["--against", "val.npy"], "--against val.npy: is cut short or not a checkpoint"),
        (["--against", "empty"], "--against empty: holds no best-epoch="),
        (["--out", "val.npy"], "val.npy: is a file; name a folder"),
    ],
)
def test_bad_input_is_one_line(args: list[str], message: str) -> None:
    Path("empty").mkdir(exist_ok=True)
    result = earteach(*EVAL, *args)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"error: {message}")
    assert result.err.count("\n") == 1
