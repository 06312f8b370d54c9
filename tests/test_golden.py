"""Checkpoints of version 1.0.0 (format 3): they load, compute the same numbers, and resume."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from earteach import checkpoint
from earteach.model.pca_vae import ResidualInputPCAVAE, SideClassifierPCAVAE
from earteach.model.vae import ConvVAE
from earteach.runs import resume
from earteach.training.lightning_module import EarVAELightning

GOLDEN = Path(__file__).with_name("golden")
CLASSES = {
    "pca": ResidualInputPCAVAE, "plain": ConvVAE,
    "pca-mobile": SideClassifierPCAVAE, "plain-mobile": ConvVAE,
}  # fmt: skip


def images() -> torch.Tensor:
    small = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return functional.interpolate(small, size=(32, 32), mode="bilinear")


def outputs(model: ConvVAE) -> dict[str, torch.Tensor]:
    x, codes = images(), torch.randn(3, 8, generator=torch.Generator().manual_seed(2))
    wide = functional.interpolate(x, size=(40, 56))
    with torch.inference_mode():
        mu, logvar = model.encode(x)
        results = {"mu": mu, "logvar": logvar, "decoded": model.decode(codes)}
        results["reconstruction"] = model.reconstruct(x)
        for prefix, maps in (("", model.features(x)), ("wide_", model.features(wide))):
            results |= {f"{prefix}features{level}": map_ for level, map_ in enumerate(maps)}
    return results


@pytest.mark.filterwarnings("ignore:The loaded checkpoint was produced with Lightning")
@pytest.mark.parametrize("kind", CLASSES)
def test_an_old_checkpoint_computes_what_it_did(kind):
    path = GOLDEN / f"{kind}.ckpt"
    model = checkpoint.load(path)
    assert type(model) is CLASSES[kind]
    expected = torch.load(GOLDEN / "outputs.pt", weights_only=True)[kind]
    # The processor that wrote them gives the same bits; others differ in the last ones.
    torch.testing.assert_close(outputs(model), expected, rtol=1e-5, atol=1e-5)
    module = EarVAELightning.load_from_checkpoint(path, weights_only=True, map_location="cpu")
    assert all(torch.equal(module.averaged.state_dict()[name], value)
               for name, value in model.state_dict().items())  # fmt: skip
    assert checkpoint.read(path).task == ("distil" if "mobile" in kind else "train")


def test_a_checkpoint_older_than_the_encoder_option_has_an_attention_encoder(tmp_path):
    state = torch.load(GOLDEN / "pca.ckpt", weights_only=True)
    del state["earteach"]["config"]["model"]["encoder"]
    torch.save(state, tmp_path / "old.ckpt")
    assert type(checkpoint.load(tmp_path / "old.ckpt")) is ResidualInputPCAVAE


def interrupted(kind: str) -> Path:
    """A run of four epochs of version 1.0.0 that ended after two, in the working folder."""
    Path("data").mkdir()
    Path("run").mkdir()
    for name in ("train_teacher.npy", "val_teacher.npy"):
        shutil.copy(GOLDEN / name, "data")
    state = torch.load(GOLDEN / f"{kind}.ckpt", weights_only=True)
    if "mobile" in kind:  # its own teacher was not kept
        teacher = Path(shutil.copy(GOLDEN / "pca.ckpt", "run/teacher.ckpt"))
        state["earteach"]["teacher"]["sha256"] = checkpoint.file_hash(teacher)
    torch.save(state, "run/last.ckpt")
    return Path("run/last.ckpt")


def moments(state: dict[str, Any]) -> list[torch.Tensor]:
    (optimizer,) = state["optimizer_states"]
    return [entry["exp_avg_sq"] for entry in optimizer["state"].values()]


@pytest.mark.parametrize(
    ("kind", "task", "frozen"),
    [
        ("pca", "train", (".pca.",)),
        pytest.param("pca-mobile", "distil", (".pca.", ".decoder."), marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_of_the_old_version_resumes(kind, task, frozen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = interrupted(kind)
    read_old, old = checkpoint.read(path), torch.load(path, weights_only=True)
    start: dict[str, Any] = {}

    def record(module: EarVAELightning) -> None:
        optimizer = module.optimizers().optimizer.state_dict()
        start.update(copy.deepcopy({
            "state_dict": module.state_dict(), "optimizer_states": [optimizer],
        }))  # fmt: skip

    monkeypatch.setattr(EarVAELightning, "on_train_start", record)
    result = resume(path)
    assert (result.epochs_completed, result.global_step, result.stopped_by) == (4, 12, "finished")
    # It started exactly where the old version stopped.
    weights = checkpoint.upgraded(old)["state_dict"]
    assert start["state_dict"].keys() == weights.keys()
    assert all(torch.equal(start["state_dict"][name], value) for name, value in weights.items())
    assert len(moments(start)) == len(moments(old)) > 40
    assert all(map(torch.equal, moments(start), moments(old)))
    # What it wrote is of today's format, and trained on.
    new = torch.load(path, weights_only=True)
    about = new["earteach"]
    assert (about["format"], about["task"], about["epochs_completed"]) == (4, task, 4)
    assert checkpoint.differences(read_old.config, checkpoint.read(path).config) == {}
    (optimizer,) = new["optimizer_states"]
    assert {float(entry["step"]) for entry in optimizer["state"].values()} == {12}
    assert all(value.isfinite().all() for value in new["state_dict"].values())
    assert (new["lr_schedulers"][0]["last_epoch"], new["global_step"]) == (12, 12)
    changed = {n for n, v in weights.items() if not torch.equal(v, new["state_dict"][n])}
    assert changed == {n for n in weights if not any(part in n for part in frozen)}
    lines = (result.log_dir / "metrics.jsonl").read_text().splitlines()
    records = list(map(json.loads, lines))
    assert [record["epoch"] for record in records] == [2, 3]
    # The best checkpoint of the first epochs is not in the folder, so it no longer counts.
    assert result.best["loss"].value == min(r["metrics"]["val/loss"] for r in records)
