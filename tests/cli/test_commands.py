"""Each command's happy path: the JSON that scripts rely on, and a table with the same numbers."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import TINY_RUN, Run, data_options, earteach

# What a finished run gives; under `--fast-dev-run` there are no files, and so no best.
ENDED = "epochs_completed global_step stopped_by last resumed_from best"
TRAINED = f"{ENDED} " + " ".join(
    f"best.{which}.{key}" for which in ("loss", "ssim") for key in ("path", "value", "epoch")
)
ARRAY = (
    "path images height width channels layout dtype min max mean std non_finite constant duplicates"
)


@dataclass(frozen=True)
class Case:
    """A command line, the JSON keys promised, and what its table shows of that JSON."""

    typed: str
    keys: str
    shown: tuple[str, ...]
    before: str = ""  # a command line that prepares the folder


RUN = "{data} {tiny}"
CASES = {
    "train": Case(
        f"train {RUN} --epochs 1", TRAINED, ("{epochs_completed} (finished)", "{best[loss][path]}")
    ),
    "train --fast-dev-run": Case(
        f"train {RUN} --fast-dev-run", ENDED, ("{epochs_completed} (finished)", "nothing")
    ),
    "train --dry-run": Case(
        f"train {RUN} --dry-run",
        "train_images val_images parameters multiply_adds steps_per_epoch steps elbo_beta",
        ("{train_images:,} (", "{parameters:,}", "{steps:,} in total"),
    ),
    "train --resume": Case(
        "train --resume checkpoints/last.ckpt --epochs 2",
        TRAINED,
        ("{epochs_completed} (finished)",),
        before=f"train {RUN} --epochs 1",
    ),
    "resume": Case(
        "resume --epochs 2",
        TRAINED,
        ("{epochs_completed} (finished)", "{global_step:,}"),
        before=f"train {RUN} --epochs 1",
    ),
    "eval": Case(
        "eval {folder}",
        "checkpoint data images metrics.loss metrics.recon_loss metrics.kld metrics.ssim "
        "metrics.psnr metrics.active_units metrics.latent_dim baselines.mean_image.psnr "
        "baselines.mean_image.ssim baselines.pca.psnr baselines.pca.ssim baselines.pca.components",
        (
            "{metrics[psnr]:.2f} dB",
            "{metrics[ssim]:.4f}",
            "{metrics[loss]:.6f}",
            "{metrics[kld]:.2f} nats",
            "{baselines[pca][psnr]:.2f} dB",
            "{baselines[mean_image][ssim]:.4f}",
            "{data}",
        ),
    ),
    "eval --data --no-baselines": Case(
        "eval {folder} --data {ears}/train_teacher.npy --no-baselines",
        "checkpoint data images metrics.psnr baselines",
        ("{images:,} images", "{metrics[psnr]:.2f} dB"),
    ),
    "reconstruct": Case(
        "reconstruct {folder} --input {ears}/val_teacher.npy -n 2 --out out",
        "checkpoint images.0.input images.0.output images.0.psnr images.0.ssim",
        ("{images[0][output]}", "{images[1][psnr]:.2f} dB", "{images[1][ssim]:.4f}"),
    ),
    "reconstruct --jitter": Case(
        "reconstruct {folder} --input {ears}/val_teacher.npy -n 2 --jitter 2 --variations 3 --out out",
        "checkpoint jitter seed images.5.input images.5.output images.5.psnr images.5.ssim",
        ("6 variations, 2 sigma", "{images[5][output]}", "{images[5][psnr]:.2f} dB"),
    ),
    "sample": Case(
        "sample {folder} -n 3 --out out",
        "checkpoint seed sampler images.2 grid",
        ("{images[0]}", "{grid}", "seed {seed}"),
    ),
    "export": Case(
        "export {folder} --format safetensors --part encoder --out out",
        "checkpoint format part path bytes inputs outputs parity.images parity.max_abs_error "
        "parity.passed",
        ("{path}", "{parity[images]} images", "safetensors encoder of"),
    ),
    "export in 8 bits": Case(
        "export {folder} --format onnx --quantize int8 --out out",
        "quantization.psnr quantization.float_psnr quantization.psnr_loss",
        (
            "{quantization[psnr_loss]:.3f} dB of PSNR, {quantization[float_psnr]:.2f} to",
            "signal-to-noise ratio {quantization[signal_to_noise]:.1f} dB",
        ),
    ),
    "embed": Case(
        "embed {folder} --input {ears}/val_teacher.npy --features --out codes.npz",
        "checkpoint path images latent_dim features",
        ("{path}", "{images} from", "{latent_dim} values each", "{features:,} values each"),
    ),
    "inspect-data": Case(
        "inspect-data {ears}/train_teacher.npy {ears}/val_teacher.npy --image-size 32",
        " ".join(f"{name}.{key}" for name in ("train", "val") for key in ARRAY.split())
        + " leakage.exact leakage.near problems forecast.psnr forecast.alive_units",
        (
            "{train[path]}",
            "{val[images]}",
            "{leakage[exact]} exact copies",
            "{forecast[components]} components: {forecast[psnr]:.2f} dB",
            "about {forecast[alive_units]} of 256",
            "red {train[channel_means][0]:.3f} ± {train[channel_stds][0]:.3f}",
        ),
    ),
    "inspect-model": Case(
        "inspect-model",
        "parameters parts multiply_adds latent_dim image_size",
        ("{parameters:,} parameters", "{multiply_adds:,} multiply-adds", "{latent_dim} dimensions"),
    ),
    "inspect-model of a checkpoint": Case(
        "inspect-model {run}/checkpoints/last.ckpt",
        "parameters parts multiply_adds latent_dim image_size",
        ("{parameters:,} parameters", "{image_size}×{image_size}×3"),
    ),
    "prepare": Case(
        "prepare --synthetic 6 --image-size 32 --out out",
        "train.path train.images val.path val.images rejected",
        ("{train[images]} images in {train[path]}", "{val[images]} images in"),
    ),
    "info": Case("info", "earteach python torch cores", ("{earteach}", "{python}", "{torch}")),
}  # fmt: skip


def arguments(typed: str, ears: Path, run: Run) -> list[str]:
    names = {
        "data": " ".join(data_options(ears)),
        "tiny": " ".join(TINY_RUN),
        "folder": f"--checkpoint-dir {run.checkpoints}",
        "ears": ears,
        "run": run.folder,
    }
    return typed.format(**names).split()


def has(value: Any, key: str) -> bool:
    """Whether `value` holds the dotted `key`; whole numbers index lists."""
    try:
        for part in key.split("."):
            value = value[int(part) if isinstance(value, list) else part]
    except (LookupError, TypeError):
        return False
    return True


SLOW = {"export in 8 bits", "train --resume"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in CASES],
)
def test_command(ears, trained, tmp_path, monkeypatch, name):
    case = CASES[name]
    results = []
    (tmp_path / "prepared").mkdir()
    monkeypatch.chdir(tmp_path / "prepared")
    if case.before:
        assert earteach(*arguments(case.before, ears, trained)).code == 0
    for mode in (["--json"], []):
        # Under the same name, so that both say the same.
        shutil.copytree(tmp_path / "prepared", tmp_path / "place")
        monkeypatch.chdir(tmp_path / "place")
        results.append(earteach(*arguments(case.typed, ears, trained), *mode))
        monkeypatch.chdir(tmp_path)
        shutil.rmtree("place")
    as_json, as_table = results
    assert (as_json.code, as_table.code) == (0, 0), as_json.err
    assert as_json.out.count("\n") == 1
    assert not [key for key in case.keys.split() if not has(as_json.json, key)]
    assert "NaN" not in as_json.out
    for text in case.shown:
        assert text.format(**as_json.json) in as_table.out
    assert "{" not in as_table.out
    for result in results:
        assert "Traceback" not in result.err
        assert "error:" not in result.err


def test_notes_go_to_stderr(ears, trained, tmp_path):
    np.save(tmp_path / "big.npy", np.zeros((2, 48, 48), np.uint8))
    result = earteach(
        "eval", "--checkpoint-dir", trained.checkpoints, "--data", tmp_path / "big.npy",
        "--no-baselines", "--json",
    )  # fmt: skip
    assert result.json["images"] == 2
    notes = result.err.splitlines()
    assert len(notes) == 2
    assert all(line.startswith("note: ") for line in notes)
    assert "resized" in result.err
    assert "gray" in result.err


def test_baselines_are_null_with_a_note_where_the_training_array_is_gone(
    ears, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ears, "data/preprocessed")
    assert earteach("train", *TINY_RUN, "--epochs", 1).code == 0
    Path("data/preprocessed/train_teacher.npy").unlink()
    result = earteach("eval", "--json")
    assert result.code == 0, result.err
    assert result.json["baselines"] is None
    assert "note: no baselines: data/preprocessed/train_teacher.npy" in result.err


def test_every_path_has_its_default(ears, tmp_path, monkeypatch):
    """The chain as a newcomer types it, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    small = ["--image-size", 32]
    assert earteach("prepare", "--synthetic", 16, *small).code == 0
    assert earteach("train", *TINY_RUN, "--epochs", 1).code == 0
    for args in (["eval"], ["sample", "--out", "s"], ["inspect-data", *small], ["inspect-model"]):
        result = earteach(*args, "--json")
        assert result.code == 0, result.err
    assert {path.name for path in tmp_path.iterdir()} == {"data", "checkpoints", "logs", "s"}


@pytest.mark.parametrize(
    ("typed", "code"), [("{ears}/train_teacher.npy", 0), ("bad.npy", 1)]
)  # fmt: skip
def test_strict_inspection_exits_with_1_where_there_are_errors(
    ears, tmp_path, monkeypatch, typed, code
):
    monkeypatch.chdir(tmp_path)
    np.save("bad.npy", np.full((4, 32, 32, 3), np.nan, np.float32))
    path = typed.format(ears=ears)
    args = ["inspect-data", path, "--json", "--image-size", 32]
    plain, strict = (earteach(*args, *more) for more in ([], ["--strict"]))
    assert (plain.code, strict.code) == (0, code)
    assert plain.json == strict.json
    assert code == any(problem["severity"] == "error" for problem in plain.json["problems"])


@pytest.mark.parametrize("augmented", [False, True])
def test_inspection_draws_sheets_where_it_is_asked_to(ears, tmp_path, monkeypatch, augmented):
    monkeypatch.chdir(tmp_path)
    more = ["--augmented"] if augmented else ["--out", "sheets"]
    arrays = [ears / "train_teacher.npy", ears / "val_teacher.npy"]
    result = earteach("inspect-data", *arrays, "--image-size", 32, *more)
    assert result.code == 0, result.err
    names = {"train.png", "val.png", "plots.svg"} | ({"augmented.png"} if augmented else set())
    folder = Path("inspection" if augmented else "sheets")
    assert {path.name for path in folder.iterdir()} == names
    assert all(str(folder / name) in result.out for name in names)
