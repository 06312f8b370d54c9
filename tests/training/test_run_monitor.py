"""What is logged of a run's health, against second computations; and that a resumed run keeps it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from earteach.metrics.diagnostics import TrainingSubset as CleanImages

import earteach
from earteach import checkpoint
from earteach.data.arrays import EarArray
from earteach.randomness import validation_noise
from earteach.training.lightning_module import EarVAELightning
from tests.conftest import TINY_RUN, Run, data_options, run_options
from tests.conftest import earteach as command


def records(run: Run) -> list[dict[str, float]]:
    lines = (run.logs / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["metrics"] for line in lines]


def images(path: Path) -> torch.Tensor:
    stored = np.load(path).astype(np.float32) / 255
    return torch.from_numpy(stored.transpose(0, 3, 1, 2).copy())


def codes_of(run: Run, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return earteach.load(run.last).encode(seen)


def noisy_error(run: Run, seen: torch.Tensor) -> float:
    mu, logvar = codes_of(run, seen)
    noise = validation_noise(42, list(range(len(seen))), mu.shape[1])
    with torch.no_grad():
        decoded = earteach.load(run.last).decode(mu + (logvar / 2).exp() * noise)
    return float(((decoded - seen) ** 2).mean())


def test_the_clean_error_is_that_of_training_images_as_they_are(trained: Run, ears: Path) -> None:
    # All 41 of them, as there are no more than 64.
    clean = noisy_error(trained, images(ears / "train_teacher.npy"))
    unseen = noisy_error(trained, images(ears / "val_teacher.npy"))
    logged = records(trained)[-1]
    assert logged["train/clean_recon_loss"] == pytest.approx(clean, rel=1e-5)
    assert logged["val/gap"] == pytest.approx(unseen - clean, rel=1e-4)


def test_active_units_and_klds_are_those_of_the_validation_images(trained: Run, ears: Path) -> None:
    mu, logvar = codes_of(trained, images(ears / "val_teacher.npy"))
    active = int((mu.double().numpy().var(axis=0) > 0.01).sum())
    assert records(trained)[-1]["val/active_units"] == active
    kept = checkpoint.read(trained.last).state["callbacks"]["Recorder"]["codes"]["kld"]
    posterior = torch.distributions.Normal(mu.double(), (logvar.double() / 2).exp())
    wanted = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    np.testing.assert_allclose(kept, wanted.mean(dim=0), rtol=1e-4, atol=1e-5)


def test_the_shares_are_of_what_training_descends(trained: Run) -> None:
    for logged in records(trained):
        terms = {
            "recon": logged["train/recon_loss"],
            "kld": logged["train/kld_weight"] * logged["train/kld"] / 16,
            "ssim": 0.02 * (1 - logged["train/ssim"]),
        }
        for name, term in terms.items():
            share = logged[f"train/share_{name}"]
            assert share == pytest.approx(term / sum(terms.values()), rel=1e-6), name
    assert records(trained)[0]["train/share_kld"] == 0  # at the start of a cycle
    assert records(trained)[1]["train/share_kld"] > 0


def test_tensorboard_has_a_histogram_of_klds_each_epoch(trained: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(trained.logs), size_guidance={"histograms": 0})
    read.Reload()
    histograms = read.Histograms("val/kld_per_dimension")
    scalars = {"val/gap", "val/active_units", "train/clean_recon_loss", "train/share_kld"}
    assert scalars <= set(read.Tags()["scalars"])
    assert len({histogram.step for histogram in histograms}) == len(histograms) == 4
    for histogram, logged in zip(histograms, records(trained), strict=True):
        assert histogram.histogram_value.num == 16
        assert histogram.histogram_value.sum == pytest.approx(logged["val/kld"], rel=1e-4)


def kept_health(run: Path) -> dict[str, Any]:
    return checkpoint.read(run / "checkpoints" / "last.ckpt").state["callbacks"]["Recorder"]


def test_a_resumed_run_knows_what_was_seen_before_wherever_it_logs(
    ears: Path, tmp_path: Path, trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*TINY_RUN, "--epochs", 4]
    steps: list[int] = []
    original = EarVAELightning.training_step

    def step(module: EarVAELightning, *args: Any) -> Any:
        steps.append(1)
        if len(steps) == 15:  # in the third epoch of six steps
            os.kill(os.getpid(), signal.SIGTERM)
        return original(module, *args)

    with monkeypatch.context() as patch:
        patch.setattr(EarVAELightning, "training_step", step)
        stopped = command("train", *data_options(ears), *run_options(tmp_path), *options, "--json")
    assert stopped.json["stopped_by"] == "interrupted"
    assert stopped.json["advice"] == []
    elsewhere = ["--checkpoint-dir", tmp_path / "checkpoints", "--log-dir", tmp_path / "elsewhere"]
    assert command("train", *data_options(ears), *elsewhere, *options).code == 0
    whole, pieces = kept_health(trained.folder), kept_health(tmp_path)
    assert len(whole["history"]) == 4
    assert whole == pieces


def test_a_dry_run_keeps_nothing(ears: Path, tmp_path: Path) -> None:
    result = command(
        "train", *data_options(ears), *run_options(tmp_path), *TINY_RUN, "--fast-dev-run", "--json"
    )
    assert result.code == 0, result.err
    assert result.json["advice"] == []
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def array(tmp_path: Path) -> EarArray:
    """200 random images of 32 pixels with a few strong directions."""
    generator = np.random.default_rng(0)
    axes = np.linalg.qr(generator.normal(size=(3072, 60)))[0] * np.arange(1, 61) ** -0.85 * 9
    flat = 0.5 + generator.normal(size=(200, 60)) @ axes.T
    stored = (flat.clip(0, 1) * 255).round().astype(np.uint8).reshape(200, 32, 32, 3)
    np.save(tmp_path / "many.npy", stored)
    return EarArray.open(tmp_path / "many.npy", "nhwc")


def test_the_spectrum_is_that_of_all_images(array: EarArray) -> None:
    clean = CleanImages(array, size=32, channels=3)
    flat = np.load(array.path).reshape(200, -1) / 255.0
    wanted = np.linalg.svd(flat - flat.mean(axis=0), compute_uv=False) ** 2 / 199
    assert len(clean.eigenvalues) == 16
    np.testing.assert_allclose(clean.eigenvalues, wanted[:16], rtol=0.4)
    assert clean.mean_image_error == pytest.approx(flat.var(axis=0).mean(), rel=0.1)


def test_one_image_has_no_spectrum(array: EarArray, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.load(array.path)[:1])
    clean = CleanImages(EarArray.open(tmp_path / "one.npy", "nhwc"), size=32, channels=3)
    assert clean.eigenvalues == ()
    assert clean.mean_image_error is None
