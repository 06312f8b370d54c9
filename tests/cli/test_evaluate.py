"""`earteach eval`: what it prints, and that it fits the terminal."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from earteach.metrics.image_quality import Margin
from tests.conftest import TINY_RUN, Run, data_options, earteach, run_options


@pytest.fixture
def place(ears: Path, trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of 80 columns, in which all paths are short."""
    shutil.copytree(trained.checkpoints, tmp_path / "checkpoints")
    shutil.copy(ears / "val_teacher.npy", tmp_path / "val.npy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


EVAL = ["eval", "--data", "val.npy"]


def test_json_of_everything(place: Path) -> None:
    result = earteach(
        *EVAL,
        "--against",
        "checkpoints/last.ckpt",
        "--against",
        "checkpoints",
        "--out",
        "o",
        "--json",
    )
    assert result.code == 0, result.err
    found = result.json
    for entry in (found, found["baselines"]["pca"], *found["against"]):
        metrics = entry.get("metrics", entry)
        for name in ("psnr", "ssim"):
            low, high = entry["intervals"][name]
            assert low < metrics[name] < high
    assert [Path(entry["checkpoint"]).name for entry in found["against"]] == [
        "last.ckpt", Path(found["checkpoint"]).name,
    ]  # fmt: skip
    for name in ("psnr", "ssim"):
        margin = found["over_pca"][name]
        wanted = found["metrics"][name] - found["baselines"]["pca"][name]
        assert margin["difference"] == pytest.approx(wanted, abs=1e-9)
        assert margin["low"] < margin["difference"] < margin["high"]
        assert found["against"][1]["over_it"][name] == {"difference": 0, "low": 0, "high": 0}
    assert found["metrics"]["ms_ssim"] is None
    assert found["files"]["worst"]["path"] == "o/worst.png"
    assert len(found["files"]["best"]["rows"]) == min(8, found["images"])
    assert found["files"]["per_image"] == "o/per_image.csv"


def test_json_without_others(place: Path) -> None:
    found = earteach(*EVAL, "--no-baselines", "--json").json
    assert found["against"] == []
    assert (found["baselines"], found["over_pca"], found["files"]) == (None, None, None)


def test_the_tables_say_the_same_as_json_and_fit_80_columns(place: Path) -> None:
    args = [*EVAL, "--against", "checkpoints/last.ckpt", "--out", "o"]
    found, result = earteach(*args, "--json").json, earteach(*args)
    assert max(map(len, result.out.splitlines())) <= 80
    text = " ".join(result.out.replace("│", " ").split())
    (rival,) = found["against"]
    for metrics in (found["metrics"], rival["metrics"]):
        assert (
            f"{metrics['psnr']:.2f} dB {metrics['ssim']:.4f} {metrics['kld']:.2f} nats "
            f"{metrics['active_units']}/16" in text
        )
    pca = found["baselines"]["pca"]
    assert f"PCA, 16 components {pca['psnr']:.2f} dB {pca['ssim']:.4f} – –" in text
    assert "MS-SSIM" not in text
    for entry in (found, rival, pca):
        (low, high), (bottom, top) = entry["intervals"].values()
        assert f"{low:.2f} to {high:.2f} dB {bottom:.4f} to {top:.4f}" in text
    margin = found["over_pca"]["psnr"]
    assert (
        f" PCA by {abs(margin['difference']):.2f} dB (" in text or "undecided against PCA" in text
    )
    assert (
        "undecided against checkpoints/last.ckpt: " in text or "checkpoints/last.ckpt by " in text
    )
    assert f"o/worst.png: rows {found['files']['worst']['rows'][0]}, " in text
    assert "each image o/per_image.csv" in text


def test_no_checkpoint_named_is_the_best_one(place: Path, trained: Run) -> None:
    result = earteach(*EVAL, "--no-baselines", "--json")
    assert Path(result.json["checkpoint"]).name == Path(trained.result["best"]["loss"]["path"]).name


def test_one_image(place: Path) -> None:
    np.save("one.npy", np.load("val.npy")[:1])
    result = earteach("eval", "--data", "one.npy", "--out", "o")
    assert result.code == 0, result.err
    assert "1 image of one.npy" in result.out
    assert "intervals" not in result.out
    assert " dB, on one image" in result.out
    assert "o/worst.png: row 0" in result.out


def test_ms_ssim_has_a_column_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    assert earteach("prepare", "--synthetic", 8, "--image-size", 176, "--out", "d").code == 0
    small = ["--image-size", 176, "--base-channels", 4, "--latent-dim", 8, "--epochs", 1]
    options = [*data_options(Path("d")), *run_options(Path())]
    assert earteach("train", *options, *TINY_RUN, *small, "--batch-size", 4).code == 0
    found, result = earteach("eval", "--json").json, earteach("eval")
    assert "MS-SSIM" in result.out
    for score in (found["metrics"], found["baselines"]["pca"], found["baselines"]["mean_image"]):
        assert f" {score['ms_ssim']:.4f} " in result.out
    assert max(map(len, result.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("lead", "wanted"),
    [
        (Margin(0.52, 0.47, 0.57), "ahead of PCA by 0.52 dB (0.47 to 0.57)"),
        (Margin(-1.3, -1.35, -1.25), "behind PCA by 1.30 dB (1.25 to 1.35)"),
        (Margin(0.02, -0.03, 0.07), "undecided against PCA: +0.02 dB (-0.03 to +0.07)"),
        (Margin(0.0, 0.0, 0.0), "undecided against PCA: +0.00 dB (+0.00 to +0.00)"),
        (Margin(-2.0, None, None), "behind PCA by 2.00 dB, on one image"),
        (Margin(float("nan"), None, None), "not comparable with PCA: an image without any error"),
    ],
)
def test_the_verdict_is_plain(
    place: Path, monkeypatch: pytest.MonkeyPatch, lead: Margin, wanted: str
) -> None:
    monkeypatch.setattr("earteach.metrics.image_quality.Margin.between", lambda *_: lead)
    assert wanted in earteach(*EVAL).out


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        (["--against", "none.ckpt"], "--against none.ckpt: no such checkpoint"),
        (["--against", "val.npy"], "--against val.npy: is cut short or not a checkpoint"),
        (["--against", "empty"], "--against empty: holds no best-epoch="),
        (["--out", "val.npy"], "val.npy: is a file; name a folder"),
        (["--out", "/proc"], "/proc: cannot be written"),
    ],
)
def test_bad_input_is_one_line(place: Path, args: list[str], wanted: str) -> None:
    Path("empty").mkdir()
    result = earteach(*EVAL, *args)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"error: {wanted}")
    assert result.err.count("\n") == 1
