"""`evaluate` against what training logged and against second computations."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import PCA
from torch.distributions import Normal, kl_divergence
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

import earteach
from earteach.config import InferenceConfig
from earteach.errors import EarTeachError
from earteach.inference.evaluate import Evaluation, evaluate
from earteach.metrics.diagnostics import Advice
from earteach.randomness import validation_noise
from tests.conftest import TINY_RUN, Run, data_options, run_options
from tests.conftest import earteach as command

pytestmark = pytest.mark.usefixtures("bf16_everywhere")

LOGGED = {
    "loss": "val/loss", "recon_loss": "val/recon_loss", "kld": "val/kld",
    "ssim": "val/ssim", "psnr": "val/psnr",
}  # fmt: skip
# Training uses torchmetrics' SSIM. In float32 both round: of a value of 0.5130285 in float64, one was
# 5e-6 of it too high and the other as much too low.
TOLERANCE = dict.fromkeys(LOGGED, 1e-6) | {"ssim": 2e-5}


def train(data: Path, folder: Path, *options: object) -> Run:
    result = command(
        "train", *data_options(data), *run_options(folder), *TINY_RUN, *options, "--json"
    )
    assert result.code == 0, result.err
    return Run(folder, result.json)


@pytest.fixture(scope="module")
def trained_in_bf16(
    ears: Path, bf16_everywhere: None, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    # Validation in several batches, the last one smaller.
    options = ["--batch-size", 3, "--epochs", 2, "--precision", "bf16"]
    return train(ears, tmp_path_factory.mktemp("bf16"), *options)


@pytest.fixture(scope="module")
def evaluation(trained: Run) -> Evaluation:
    return evaluate(trained.last)


@pytest.mark.parametrize(
    "name", ["trained", pytest.param("trained_in_bf16", marks=pytest.mark.slow)]
)
def test_values_are_those_that_training_logged(request, name):
    run: Run = request.getfixturevalue(name)
    best = run.result["best"]["ssim"]
    records = list(map(json.loads, (run.logs / "metrics.jsonl").read_text().splitlines()))
    for path, epoch in (
        (run.last, run.result["epochs_completed"] - 1), (Path(best["path"]), best["epoch"]),
    ):  # fmt: skip
        (logged,) = [record["metrics"] for record in records if record["epoch"] == epoch]
        # Batches of the same size as in training: sums of bfloat16 depend on their grouping.
        config = torch.load(path, weights_only=True)["earteach"]["config"]
        batch_size = config["optim"]["batch_size"]
        result = evaluate(path, config=InferenceConfig(batch_size=batch_size), baselines=False)
        for metric, scalar in LOGGED.items():
            value = getattr(result.metrics, metric)
            assert value == pytest.approx(logged[scalar], rel=TOLERANCE[metric]), metric
        health = result.health
        assert health.train_recon_loss == logged["train/clean_recon_loss"]
        assert sum(health.kld_per_dimension) == pytest.approx(logged["val/kld"], rel=1e-6)
        share = 0.00025 * logged["val/kld"] / 16 / logged["val/loss"]
        assert health.share_kld == pytest.approx(share, rel=1e-5)


def validation_images(folder: Path) -> torch.Tensor:
    images = np.load(folder / "val_teacher.npy").astype(np.float32) / 255
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def image_values(guesses: torch.Tensor, images: torch.Tensor) -> dict[str, np.ndarray]:
    """PSNR and SSIM of each image by torchmetrics."""
    metrics = {"psnr": peak_signal_noise_ratio, "ssim": structural_similarity_index_measure}
    pairs = list(zip(guesses.float().split(1), images.split(1), strict=True))
    return {
        name: np.array([metric(*pair, data_range=1.0).item() for pair in pairs])
        for name, metric in metrics.items()
    }


def test_values_are_those_of_a_second_computation(trained, ears, evaluation):
    images = validation_images(ears)
    model = earteach.load(trained.last)
    noise = validation_noise(42, list(range(len(images))), 16)
    with torch.no_grad():
        mu, logvar = model.encode(images)
        clean, noisy = model.reconstruct(images), model.decode(mu + (logvar / 2).exp() * noise)
    kld = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(dim=1).mean()
    recon = torch.nn.functional.mse_loss(noisy, images)
    expected = {
        "recon_loss": recon.item(),
        "kld": kld.item(),
        # The final weight, whatever the schedule's is in this epoch; per dimension.
        "loss": (recon + 0.00025 * kld / 16).item(),
        **{name: values.mean() for name, values in image_values(clean, images).items()},
        "active_units": int((np.var(mu.numpy(), axis=0) > 0.01).sum()),
        "latent_dim": 16,
    }
    metrics = asdict(evaluation.metrics)
    assert metrics.pop("ms_ssim") is None  # 32 pixels
    assert metrics == pytest.approx(expected, rel=1e-5)
    assert (evaluation.images, evaluation.checkpoint) == (len(images), trained.last)
    assert evaluation.data == ears / "val_teacher.npy"


def assert_interval(interval: tuple[float, float], values: np.ndarray, tolerance: float) -> None:
    expected = stats.norm.interval(0.95, loc=values.mean(), scale=stats.sem(values))
    assert interval == pytest.approx(expected, abs=tolerance)


def test_baselines_and_margins_are_those_of_scikit_learn_and_scipy(trained, ears, evaluation):
    train = np.load(ears / "train_teacher.npy").astype(np.float64) / 255
    rows = np.concatenate([train, train[:, :, ::-1]]).transpose(0, 3, 1, 2)
    images = validation_images(ears)
    pca = PCA(16, svd_solver="full").fit(rows.reshape(len(rows), -1))
    flat = images.double().numpy().reshape(len(images), -1)
    projected = pca.inverse_transform(pca.transform(flat)).clip(0, 1).reshape(images.shape)
    mean = np.broadcast_to(rows.mean(axis=0), images.shape)
    with torch.no_grad():
        ours = image_values(earteach.load(trained.last).reconstruct(images), images)
    by_pca, by_mean = (image_values(torch.from_numpy(x.copy()), images) for x in (projected, mean))
    baselines = evaluation.baselines
    assert (baselines.pca.components, baselines.pca.images) == (16, len(train))
    for name, tolerance in (("psnr", 0.02), ("ssim", 1e-3)):
        assert getattr(baselines.pca, name) == pytest.approx(by_pca[name].mean(), abs=tolerance)
        score = getattr(baselines.mean_image, name)
        assert score == pytest.approx(by_mean[name].mean(), abs=tolerance)
        assert_interval(evaluation.intervals[name], ours[name], tolerance)
        assert_interval(baselines.pca.intervals[name], by_pca[name], tolerance)
        # The interval of paired differences, not the difference of intervals.
        margin, differences = evaluation.over_pca[name], ours[name] - by_pca[name]
        assert margin.difference == pytest.approx(differences.mean(), abs=2e-4)
        assert_interval((margin.low, margin.high), differences, 5e-4)


# Arrays that are gone or different.


def altered(run: Run, target: Path, **data: str) -> Path:
    """The run's last checkpoint, naming other arrays."""
    state: dict[str, Any] = torch.load(run.last, weights_only=True)
    state["earteach"]["config"]["data"].update(data)
    torch.save(state, target)
    return target


def test_without_the_training_array_there_are_no_baselines(trained, evaluation, tmp_path, caplog):
    gone = str(tmp_path / "gone.npy")
    path = altered(trained, tmp_path / "x.ckpt", train_data=gone)
    with caplog.at_level(logging.INFO, "earteach"):
        result = evaluate(path)
    assert result.baselines is None
    assert f"no baselines: {gone}: no such file" in caplog.text
    assert result.metrics == evaluation.metrics


def test_the_advice_is_what_training_gave(trained, ears, evaluation, tmp_path):
    assert evaluation.advice == ()  # the run is too young
    state: dict[str, Any] = torch.load(trained.last, weights_only=True)
    recorder = state["callbacks"]["Recorder"]
    advice = Advice("plateau", "early plateau; try --learning-rate 0.1", "learning_rate", 0.1)
    recorder["advice"] = [asdict(advice)]
    torch.save(state, tmp_path / "x.ckpt")
    assert evaluate(tmp_path / "x.ckpt", baselines=False).advice == (advice,)
    del recorder["advice"]  # as in older checkpoints
    torch.save(state, tmp_path / "x.ckpt")
    assert evaluate(tmp_path / "x.ckpt", baselines=False).advice == ()


def test_without_the_validation_array_it_asks_for_one(trained, ears, evaluation, tmp_path):
    path = altered(trained, tmp_path / "x.ckpt", val_data=str(tmp_path / "gone.npy"))
    with pytest.raises(EarTeachError, match=r"gone\.npy: no such file; name an array with --data"):
        evaluate(path)
    named = evaluate(path, ears / "val_teacher.npy", baselines=False)
    assert named.metrics == evaluation.metrics


def test_an_explicit_layout_counts(trained, ears, evaluation, tmp_path):
    np.save(tmp_path / "other.npy", np.load(ears / "val_teacher.npy").transpose(0, 3, 1, 2))
    result = evaluate(trained.last, tmp_path / "other.npy", layout="nchw", baselines=False)
    assert result.metrics == evaluation.metrics


def test_precision_defaults_to_that_of_the_run(trained_in_bf16):
    as_trained, in_bf16, in_float32 = (
        evaluate(
            trained_in_bf16.last, baselines=False, config=InferenceConfig(precision=precision)
        ).metrics
        for precision in (None, "bf16", "32")
    )
    assert as_trained == in_bf16
    assert as_trained != in_float32
    assert as_trained.psnr == pytest.approx(in_float32.psnr, abs=0.1)


def test_it_warns_of_images_that_the_network_was_trained_on(trained, ears, caplog):
    with caplog.at_level(logging.INFO, "earteach"):
        evaluate(trained.last, baselines=False)
        assert "was trained on" not in caplog.text
        evaluate(trained.last, ears / "train_teacher.npy", baselines=False)
    assert (
        f"{trained.last} was trained on the images of {ears / 'train_teacher.npy'}" in caplog.text
    )


# Other checkpoints on the same images.


def test_another_checkpoint_has_the_values_that_it_has_alone(trained, trained_in_bf16, ears):
    float32 = InferenceConfig(precision="32")
    result = evaluate(
        trained.last, against=[trained_in_bf16.last, trained.checkpoints], config=float32
    )
    first, second = result.against
    alone = evaluate(trained_in_bf16.last, baselines=False, config=float32)
    assert (first.checkpoint, first.metrics, first.intervals) == (
        trained_in_bf16.last, alone.metrics, alone.intervals,
    )  # fmt: skip
    # A folder stands for its best.
    assert str(second.checkpoint) == trained.result["best"]["loss"]["path"]
    images = validation_images(ears)
    with torch.no_grad():
        ours, theirs = (
            image_values(earteach.load(run.last).reconstruct(images), images)
            for run in (trained, trained_in_bf16)
        )
    for name in ("psnr", "ssim"):
        margin, differences = first.over_it[name], ours[name] - theirs[name]
        assert margin.difference == pytest.approx(differences.mean(), abs=1e-4)
        assert_interval((margin.low, margin.high), differences, 2e-4)


@pytest.mark.slow
def test_networks_of_large_gray_images(trained, tmp_path, monkeypatch):
    """Just large enough for MS-SSIM, which has a column of its own."""
    size = ["--image-size", 176]
    made = command("prepare", "--synthetic", 8, *size, "--gray", "--out", tmp_path)
    assert made.code == 0, made.err
    options = ["--in-channels", 1, "--base-channels", 4, "--latent-dim", 8, "--batch-size", 4]
    gray = train(tmp_path, tmp_path, *size, *options, "--epochs", 1)
    images = validation_images(tmp_path)
    with torch.no_grad():
        pairs = zip(
            earteach.load(gray.last).reconstruct(images).split(1), images.split(1), strict=True
        )
    ms_ssim = multiscale_structural_similarity_index_measure
    expected = np.mean([ms_ssim(*pair, data_range=1.0).item() for pair in pairs])
    result = evaluate(gray.last, against=[gray.last])
    assert result.metrics.ms_ssim == pytest.approx(expected, abs=1e-5)
    assert result.against[0].metrics.ms_ssim == result.metrics.ms_ssim
    shown = command("eval", gray.last).out
    for score in (result.metrics, result.baselines.pca, result.baselines.mean_image):
        assert f" {score.ms_ssim:.4f} " in shown
    # Networks of other images are refused before anything is measured.
    monkeypatch.setattr("earteach.inference.evaluate._measure", pytest.fail)
    text = r"--against .*last\.ckpt: takes 176×176×1 images, but .*last\.ckpt takes 32×32×3"
    with pytest.raises(EarTeachError, match=text):
        evaluate(trained.last, against=[trained.last, gray.last])
