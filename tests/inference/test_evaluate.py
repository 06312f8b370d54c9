"""`evaluate` against what training logged and against a second computation."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass
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
from earteach.data.arrays import EarArray
from earteach.errors import EarTeachError
from earteach.inference.evaluate import Evaluation, evaluate
from earteach.randomness import validation_noise
from tests.conftest import TINY_RUN, Run, data_options, run_options
from tests.conftest import earteach as command

pytestmark = pytest.mark.usefixtures("bf16_everywhere")

LOGGED = {
    "loss": "val/loss", "recon_loss": "val/recon_loss", "kld": "val/kld",
    "ssim": "val/ssim", "psnr": "val/psnr",
}  # fmt: skip
# torchmetrics, which training uses, rounds SSIM's windows to about the fifth digit.
WITHIN = dict.fromkeys(LOGGED, 1e-6) | {"ssim": 1e-5}


@pytest.fixture(scope="module")
def trained_in_bf16(
    ears: Path, bf16_everywhere: None, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    folder = tmp_path_factory.mktemp("bf16")
    # Validation in several batches, the last one smaller.
    options = [*TINY_RUN, "--batch-size", 3, "--epochs", 2, "--precision", "bf16"]
    result = command("train", *data_options(ears), *run_options(folder), *options, "--json")
    assert result.code == 0, result.err
    return Run(folder, result.json)


def last(run: Run) -> tuple[Path, int]:
    return run.last, run.result["epochs_completed"] - 1


def best(name: str) -> Callable[[Run], tuple[Path, int]]:
    return lambda run: (Path(run.result["best"][name]["path"]), run.result["best"][name]["epoch"])


@pytest.mark.parametrize("run", ["trained", "trained_in_bf16"])
@pytest.mark.parametrize("choose", [last, best("loss"), best("ssim")], ids=["last", "loss", "ssim"])
def test_values_are_those_that_training_logged(request, run, choose):
    run = request.getfixturevalue(run)
    path, epoch = choose(run)
    records = map(json.loads, (run.logs / "metrics.jsonl").read_text().splitlines())
    (logged,) = [record["metrics"] for record in records if record["epoch"] == epoch]
    # Batches of the same size as in training: sums of bfloat16 depend on how they are grouped.
    batch_size = torch.load(path, weights_only=True)["earteach"]["config"]["optim"]["batch_size"]
    seen = evaluate(path, config=InferenceConfig(batch_size=batch_size), baselines=False)
    for name, scalar in LOGGED.items():
        assert getattr(seen.metrics, name) == pytest.approx(logged[scalar], rel=WITHIN[name]), name


def test_best_values_are_those_in_the_file_names(trained):
    for name in ("loss", "ssim"):
        entry = trained.result["best"][name]
        seen = evaluate(entry["path"], baselines=False).metrics
        assert getattr(seen, name) == pytest.approx(entry["value"], rel=WITHIN[name])


def validation_images(ears: Path) -> torch.Tensor:
    images = np.load(ears / "val_teacher.npy").astype(np.float32) / 255
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def test_values_are_those_of_a_second_computation(trained, ears):
    images = validation_images(ears)
    stored = torch.load(trained.last, weights_only=True)["earteach"]["config"]
    model = earteach.load(trained.last)
    noise = validation_noise(stored["run"]["seed"], list(range(len(images))), 16)
    with torch.no_grad():
        mu, logvar = model.encode(images)
        clean, noisy = model.reconstruct(images), model.decode(mu + (logvar / 2).exp() * noise)
    kld = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(dim=1).mean()
    recon = torch.nn.functional.mse_loss(noisy, images)
    pairs = list(zip(clean.split(1), images.split(1), strict=True))
    wanted = {
        "recon_loss": recon.item(),
        "kld": kld.item(),
        # The final weight, whatever the schedule's is in this epoch; per dimension.
        "loss": (recon + 0.00025 * kld / 16).item(),
        "psnr": np.mean([peak_signal_noise_ratio(*p, data_range=1.0).item() for p in pairs]),
        "ssim": np.mean(
            [structural_similarity_index_measure(*p, data_range=1.0).item() for p in pairs]
        ),
        "active_units": int((np.var(mu.numpy(), axis=0) > 0.01).sum()),
        "latent_dim": 16,
    }
    seen = evaluate(trained.last, baselines=False)
    metrics = asdict(seen.metrics)
    assert metrics.pop("ms_ssim") is None  # 32 pixels
    assert metrics == pytest.approx(wanted, rel=1e-5)
    assert (seen.images, seen.checkpoint, seen.baselines) == (len(images), trained.last, None)
    assert seen.data == ears / "val_teacher.npy"


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_the_batch_size_does_not_matter(trained, batch_size):
    wanted = evaluate(trained.last)
    seen = evaluate(trained.last, config=InferenceConfig(batch_size=batch_size))
    assert numbers(seen.metrics) == pytest.approx(numbers(wanted.metrics), rel=1e-5)
    # Differences between models are small beside what they are differences of.
    assert numbers(seen) == pytest.approx(numbers(wanted), rel=1e-5, abs=2e-5)


def numbers(value: Any) -> list[float]:
    """All numbers in a result but the time it took, in order."""
    if is_dataclass(value):
        entries = [entry.name for entry in fields(value) if entry.name != "seconds"]
        return [number for name in entries for number in numbers(getattr(value, name))]
    if isinstance(value, tuple):
        return [number for entry in value for number in numbers(entry)]
    return [value] if isinstance(value, int | float) else []


def psnr_by_hand(guess: np.ndarray, images: np.ndarray) -> float:
    return float(np.mean(-10 * np.log10(((guess - images) ** 2).mean(axis=(1, 2, 3)))))


def ssim_of(guess: np.ndarray, images: torch.Tensor) -> float:
    guesses = torch.from_numpy(np.broadcast_to(guess, images.shape).astype(np.float32).copy())
    return structural_similarity_index_measure(guesses, images, data_range=1.0).item()


def test_baselines_are_those_of_numpy(trained, ears):
    train = np.load(ears / "train_teacher.npy").astype(np.float64) / 255
    rows = np.concatenate([train, train[:, :, ::-1]]).transpose(0, 3, 1, 2).reshape(
        2 * len(train), -1
    )  # fmt: skip
    images = validation_images(ears)
    flat = images.double().numpy().reshape(len(images), -1)
    mean = rows.mean(axis=0)
    directions = np.linalg.svd(rows - mean, full_matrices=False)[2][:16]
    guesses = {"mean_image": mean[None] + 0 * flat,
               "pca": ((flat - mean) @ directions.T @ directions + mean).clip(0, 1)}  # fmt: skip
    seen = evaluate(trained.last).baselines
    for name, guess in guesses.items():
        guess = guess.reshape(images.shape)
        score = getattr(seen, name)
        assert score.psnr == pytest.approx(psnr_by_hand(guess, images.double().numpy()), abs=0.02)
        assert score.ssim == pytest.approx(ssim_of(guess, images), abs=1e-3)
    assert (seen.pca.components, seen.pca.images) == (16, len(train))


def altered(run: Run, target: Path, **data: str) -> Path:
    """The run's last checkpoint with other paths of arrays in it."""
    state: dict[str, Any] = torch.load(run.last, weights_only=True)
    state["earteach"]["config"]["data"].update(data)
    torch.save(state, target)
    return target


def test_without_the_training_array_there_are_no_baselines(trained, tmp_path, caplog):
    gone = str(tmp_path / "gone.npy")
    path = altered(trained, tmp_path / "x.ckpt", train_data=gone)
    with caplog.at_level(logging.INFO, "earteach"):
        seen = evaluate(path)
    assert seen.baselines is None
    assert f"no baselines: {gone}: no such file" in caplog.text
    assert seen.metrics == evaluate(trained.last, baselines=False).metrics


def test_without_the_validation_array_one_is_asked_for(trained, ears, tmp_path):
    path = altered(trained, tmp_path / "x.ckpt", val_data=str(tmp_path / "gone.npy"))
    with pytest.raises(EarTeachError, match=r"gone\.npy: no such file; name an array with --data"):
        evaluate(path)
    named = evaluate(path, ears / "val_teacher.npy", baselines=False)
    assert named.metrics == evaluate(trained.last, baselines=False).metrics


LAYOUTS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str | None]] = {
    "channels first": (lambda images: images.transpose(0, 3, 1, 2), None),
    "in [0, 1]": (lambda images: (images / 255).astype(np.float32), None),
    "uint16": (lambda images: images.astype(np.uint16) * 257, None),
    "said to be nhwc": (lambda images: images, "nhwc"),
}


@pytest.mark.parametrize(("change", "layout"), LAYOUTS.values(), ids=LAYOUTS)
def test_the_same_images_stored_otherwise_give_the_same(trained, ears, tmp_path, change, layout):
    np.save(tmp_path / "other.npy", change(np.load(ears / "val_teacher.npy")))
    seen = evaluate(trained.last, tmp_path / "other.npy", layout=layout, baselines=False)
    assert seen.metrics == evaluate(trained.last, baselines=False).metrics


def test_a_folder_stands_for_its_best_checkpoint(trained):
    seen: Evaluation = evaluate(trained.checkpoints, baselines=False)
    assert str(seen.checkpoint) == trained.result["best"]["loss"]["path"]


def test_precision_is_that_of_the_run_unless_it_is_given(trained_in_bf16):
    path = trained_in_bf16.last
    as_trained, in_bf16, in_float32 = (
        evaluate(path, baselines=False, config=InferenceConfig(precision=precision)).metrics
        for precision in (None, "bf16", "32")
    )
    assert as_trained == in_bf16
    assert as_trained != in_float32
    assert as_trained.psnr == pytest.approx(in_float32.psnr, abs=0.1)


def test_an_array_with_a_nan_names_the_image(trained, ears, tmp_path):
    images = (np.load(ears / "val_teacher.npy") / 255).astype(np.float32)
    images[2, 0, 0, 0] = np.nan
    np.save(tmp_path / "nan.npy", images)
    with pytest.raises(EarTeachError, match="image 2 holds NaN"):
        evaluate(trained.last, tmp_path / "nan.npy")


# Intervals, and how far the model is ahead.


def values_of(guesses: torch.Tensor, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """PSNR and SSIM of each image by torchmetrics."""
    pairs = list(zip(guesses.float().split(1), images.split(1), strict=True))
    return (
        np.array([peak_signal_noise_ratio(*pair, data_range=1.0).item() for pair in pairs]),
        np.array(
            [structural_similarity_index_measure(*pair, data_range=1.0).item() for pair in pairs]
        ),
    )


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    found = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    return found.low, found.high


def model_and_pca(run: Run, ears: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The validation images, their reconstructions, and those of scikit-learn's PCA."""
    train = np.load(ears / "train_teacher.npy").astype(np.float64) / 255
    rows = np.concatenate([train, train[:, :, ::-1]]).transpose(0, 3, 1, 2)
    images = validation_images(ears)
    pca = PCA(16, svd_solver="full").fit(rows.reshape(len(rows), -1))
    flat = images.double().numpy().reshape(len(images), -1)
    guesses = pca.inverse_transform(pca.transform(flat)).clip(0, 1).reshape(images.shape)
    with torch.no_grad():
        return images, earteach.load(run.last).reconstruct(images), torch.from_numpy(guesses)


def assert_close(seen: tuple[float, float] | None, wanted: tuple[float, float]) -> None:
    assert seen is not None
    # The ends of 2,000 resamples of a few images scatter by about 2 % of the interval's width.
    assert seen == pytest.approx(wanted, abs=0.08 * (wanted[1] - wanted[0]) + 1e-4)


def test_intervals_and_margins_are_those_of_scipy(trained, ears):
    images, by_model, by_pca = model_and_pca(trained, ears)
    ours, theirs = values_of(by_model, images), values_of(by_pca, images)
    seen = evaluate(trained.last)
    for place, name in enumerate(("psnr", "ssim")):
        assert_close(getattr(seen.intervals, name), percentile_interval(ours[place]))
        assert_close(
            getattr(seen.baselines.pca.intervals, name), percentile_interval(theirs[place])
        )
        # Paired: the interval of the differences, and not the difference of the intervals.
        margin, differences = getattr(seen.over_pca, name), ours[place] - theirs[place]
        assert margin.difference == pytest.approx(differences.mean(), abs=2e-4)
        assert_close((margin.low, margin.high), percentile_interval(differences))


def test_one_image_has_no_interval(trained, ears, tmp_path):
    np.save(tmp_path / "one.npy", np.load(ears / "val_teacher.npy")[:1])
    seen = evaluate(trained.last, tmp_path / "one.npy")
    assert (seen.intervals.psnr, seen.intervals.ssim) == (None, None)
    margin = seen.over_pca.psnr
    assert margin.difference == pytest.approx(seen.metrics.psnr - seen.baselines.pca.psnr)
    assert (margin.low, margin.high) == (None, None)


def test_an_image_without_error_has_no_interval_of_psnr(trained, ears, tmp_path, monkeypatch):
    monkeypatch.setattr("earteach.metrics.eigenears.Eigenears.reconstruct", lambda _, x: x.clone())
    seen = evaluate(trained.last, shutil.copy(ears / "val_teacher.npy", tmp_path))
    assert seen.baselines.pca.psnr == np.inf
    assert seen.baselines.pca.intervals.psnr is None
    assert seen.over_pca.psnr.difference == -np.inf
    assert seen.over_pca.ssim.high < 0


# Other checkpoints beside it.


@pytest.fixture(scope="module")
def gray(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A network of gray images that are just large enough for MS-SSIM."""
    folder = tmp_path_factory.mktemp("gray")
    made = command("prepare", "--synthetic", 8, "--image-size", 176, "--gray", "--out", folder)
    assert made.code == 0, made.err
    result = command(
        "train", *data_options(folder), *run_options(folder), "--in-channels", 1,
        "--image-size", 176, "--base-channels", 4, "--latent-dim", 8, "--batch-size", 4,
        "--num-workers", 0, "--epochs", 1, "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    return Run(folder, result.json)


def test_another_checkpoint_has_the_values_that_it_has_alone(trained, trained_in_bf16, ears):
    data = ears / "val_teacher.npy"
    seen = evaluate(trained.last, data, against=[trained_in_bf16.last, trained.checkpoints])
    first, second = seen.against
    alone = evaluate(trained_in_bf16.last, data, baselines=False)
    assert (first.checkpoint, first.metrics, first.intervals) == (
        trained_in_bf16.last, alone.metrics, alone.intervals,
    )  # fmt: skip
    # A folder stands for its best.
    assert str(second.checkpoint) == trained.result["best"]["loss"]["path"]
    assert seen.metrics == evaluate(trained.last, baselines=False).metrics


def test_the_margin_over_another_checkpoint_is_paired(trained, trained_in_bf16, ears):
    images = validation_images(ears)
    as_trained = InferenceConfig(precision="32")
    seen = evaluate(trained.last, against=[trained_in_bf16.last, trained.last], config=as_trained)
    with torch.no_grad():
        ours, theirs = (
            values_of(earteach.load(run.last).reconstruct(images), images)
            for run in (trained, trained_in_bf16)
        )
    for place, name in enumerate(("psnr", "ssim")):
        margin, differences = getattr(seen.against[0].over_it, name), ours[place] - theirs[place]
        assert margin.difference == pytest.approx(differences.mean(), abs=1e-4)
        assert_close((margin.low, margin.high), percentile_interval(differences))
    itself = seen.against[1].over_it
    assert (itself.psnr.difference, itself.psnr.low, itself.psnr.high) == (0, 0, 0)


def test_a_network_of_other_images_is_refused_before_anything_is_measured(
    trained, gray, monkeypatch
):
    monkeypatch.setattr("earteach.inference.evaluate._measure", pytest.fail)
    wanted = r"--against .*last\.ckpt: takes images of 176×176×1, and .*last\.ckpt of 32×32×3"
    with pytest.raises(EarTeachError, match=wanted):
        evaluate(trained.last, against=[trained.last, gray.last])


def test_a_missing_checkpoint_is_named_with_its_option(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("earteach.inference.evaluate._measure", pytest.fail)
    with pytest.raises(EarTeachError, match=r"--against .*none\.ckpt: no such checkpoint"):
        evaluate(trained.last, against=[tmp_path / "none.ckpt"])


def test_ms_ssim_stands_beside_where_the_size_allows(gray):
    images = validation_images(gray.folder)
    with torch.no_grad():
        guesses = earteach.load(gray.last).reconstruct(images)
    wanted = np.mean(
        [
            multiscale_structural_similarity_index_measure(*pair, data_range=1.0).item()
            for pair in zip(guesses.split(1), images.split(1), strict=True)
        ]
    )
    seen = evaluate(gray.last, against=[gray.last])
    assert seen.metrics.ms_ssim == pytest.approx(wanted, abs=1e-5)
    assert seen.against[0].metrics.ms_ssim == seen.metrics.ms_ssim
    assert 0 < seen.baselines.mean_image.ms_ssim < 1
    assert 0 < seen.baselines.pca.ms_ssim < 1


def test_the_array_is_read_once_for_the_model(trained, ears, monkeypatch):
    read, image = [], EarArray.image

    def counted(self: EarArray, index: int, **options: int) -> np.ndarray:
        read.append((self.path.name, index))
        return image(self, index, **options)

    monkeypatch.setattr(EarArray, "image", counted)
    seen = evaluate(trained.last, baselines=False)
    evaluated = [index for name, index in read if name == "val_teacher.npy"]
    assert evaluated == list(range(seen.images))


def test_a_checkpoint_that_was_trained_on_the_images_says_so(trained, ears, caplog):
    with caplog.at_level(logging.INFO, "earteach"):
        evaluate(trained.last, baselines=False)
        assert "was trained on the images" not in caplog.text
        evaluate(trained.last, ears / "train_teacher.npy", baselines=False)
    assert (
        f"{trained.last} was trained on the images of {ears / 'train_teacher.npy'}" in caplog.text
    )


def test_health_is_what_training_logged(trained):
    records = map(json.loads, (trained.logs / "metrics.jsonl").read_text().splitlines())
    logged = list(records)[-1]["metrics"]
    seen = evaluate(trained.last, config=InferenceConfig(batch_size=8), baselines=False)
    assert seen.health.train_recon_loss == pytest.approx(logged["train/clean_recon_loss"], rel=1e-6)
    assert seen.health.gap == pytest.approx(logged["val/gap"], rel=1e-5)
    assert sum(seen.health.kld_per_dimension) == pytest.approx(logged["val/kld"], rel=1e-6)
    assert seen.health.share_kld == pytest.approx(
        0.00025 * logged["val/kld"] / 16 / logged["val/loss"], rel=1e-6
    )
    assert seen.health.share_recon + seen.health.share_kld == pytest.approx(1)


@pytest.mark.parametrize("change", ["gone", "another"])
def test_without_its_training_images_nothing_is_said_of_them(ears, tmp_path, change):
    for name in ("train_teacher.npy", "val_teacher.npy"):
        np.save(tmp_path / name, np.load(ears / name))
    result = command(
        "train", *data_options(tmp_path), *run_options(tmp_path), *TINY_RUN, "--epochs", 1
    )
    assert result.code == 0, result.err
    if change == "gone":
        (tmp_path / "train_teacher.npy").unlink()
    else:
        np.save(tmp_path / "train_teacher.npy", 255 - np.load(ears / "train_teacher.npy"))
    seen = evaluate(tmp_path / "checkpoints", baselines=False)
    assert seen.health.train_recon_loss is None
    assert seen.health.gap is None
    assert len(seen.health.kld_per_dimension) == 16
