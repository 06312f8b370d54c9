"""What a run logs: pictures, hyperparameters and advice; and what a resumed run remembers."""

from __future__ import annotations

import json
import os
import shutil
import signal
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata, plugin_data_pb2

import earteach
from earteach import checkpoint
from earteach.data.arrays import EarArray
from earteach.metrics.diagnostics import TrainingSubset
from earteach.randomness import validation_noise
from earteach.training.lightning_module import EarVAELightning
from tests.conftest import TEACHING, TINY_RUN, Result, Run, data_options, run_options
from tests.conftest import earteach as command

SIDE, GAP = 32, 2


@pytest.fixture(scope="module")
def events(trained: Run) -> EventAccumulator:
    found = EventAccumulator(str(trained.logs), size_guidance={"images": 0})
    return found.Reload()


def pictures(events: EventAccumulator, tag: str) -> list[np.ndarray]:
    return [
        np.asarray(Image.open(BytesIO(event.encoded_image_string))) for event in events.Images(tag)
    ]


def tile(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    top, left = (GAP + place * (SIDE + GAP) for place in (row, column))
    return sheet[top : top + SIDE, left : left + SIDE]


def pixels(images: torch.Tensor) -> np.ndarray:
    return (images.detach() * 255).round().byte().permute(0, 2, 3, 1).numpy()


def test_each_epoch_has_its_reconstructions_and_samples(trained: Run, events: EventAccumulator):
    epochs = trained.result["epochs_completed"]
    for tag in ("val/reconstructions", "samples"):
        assert len(pictures(events, tag)) == epochs
    model, seed = earteach.load(trained.last), 42
    wanted = pixels(model.sample(8, torch.Generator().manual_seed(seed)))
    sheet = pictures(events, "samples")[-1]
    for place, ear in enumerate(wanted):
        assert np.abs(tile(sheet, *divmod(place, 4)).astype(int) - ear).max() <= 1


def test_the_curves_of_a_run(events: EventAccumulator):
    curves = {"train/loss", "val/loss", "val/psnr", "val/ssim", "val/kld", "lr"}
    assert curves <= set(events.Tags()["scalars"])
    assert set(events.Tags()["images"]) == {"val/reconstructions", "samples"}


def test_the_table_of_runs_has_the_options_beside_the_results(events: EventAccumulator):
    contents = events.PluginTagToContent(metadata.PLUGIN_NAME)
    parsed = {
        tag: plugin_data_pb2.HParamsPluginData.FromString(content)
        for tag, content in contents.items()
    }
    start = parsed[metadata.SESSION_START_INFO_TAG].session_start_info
    assert start.hparams["latent_dim"].number_value == 16
    names = {info.name.tag for info in parsed[metadata.EXPERIMENT_TAG].experiment.metric_infos}
    assert names == {"val/loss", "val/psnr", "val/ssim", "val/kld"}
    assert names <= set(events.Tags()["scalars"])


# Eleven steps an epoch on the 41 drawn ears.
SMALL = [
    "--image-size", 32, "--base-channels", 4, "--latent-dim", 16, "--batch-size", 4,
    "--num-workers", 0, "--accelerator", "cpu",
]  # fmt: skip
PLAIN = ["--augmentation", "none"]
RATE_1 = ["--learning-rate", 1, "--lr-schedule", "plateau"]
SICK = {
    "kld_weight_high": [*PLAIN, "--epochs", 12, "--kld-reduction", "sum", "--kld-weight", 0.025],
    "learning_rate_high": [*PLAIN, *RATE_1, "--epochs", 10],
    "learning_rate_low": [*PLAIN, "--epochs", 10, "--learning-rate", 1e-7],
    "still_improving": [
        *PLAIN, "--no-pca-init", "--lr-schedule", "plateau", "--learning-rate", 1e-3, "--epochs", 12,
    ],
}  # fmt: skip


def train(data: Path, folder: Path, *options: object) -> Result:
    result = command("train", *data_options(data), *run_options(folder), *SMALL, *options, "--json")
    assert result.code == 0, result.err
    return result


def codes(result: Result) -> list[str]:
    return [advice["code"] for advice in result.json["advice"]]


def notes(result: Result, start: str) -> list[str]:
    return [line for line in result.err.splitlines() if line.startswith(f"note: {start}")]


@pytest.mark.slow
@pytest.mark.parametrize("code", SICK)
def test_a_sick_run_gets_advice_that_cures_it(ears: Path, tmp_path: Path, code: str) -> None:
    result = train(ears, tmp_path / "sick", *SICK[code])
    assert codes(result) == [code]
    (advice,) = result.json["advice"]
    assert set(advice) == {"code", "message", "option", "value"}
    flag = f"--{advice['option'].replace('_', '-')}"
    cured = train(ears, tmp_path / "cured", *SICK[code], flag, advice["value"])
    assert set(codes(cured)) <= {"still_improving"}


@pytest.mark.slow
def test_a_network_overfits_eight_images(ears: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "train_teacher.npy", np.load(ears / "train_teacher.npy")[:8])
    shutil.copy(ears / "val_teacher.npy", tmp_path)
    result = train(tmp_path, tmp_path, *PLAIN, "--batch-size", 1, "--epochs", 13)
    assert codes(result) == ["overfitting"]
    assert len(notes(result, "overfitting")) == 1


@pytest.fixture(scope="module")
def unweighted(ears: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A run almost without a KLD weight, fully annealed from the second epoch on."""
    folder = tmp_path_factory.mktemp("unweighted")
    flat = ["--kld-anneal-cycles", 1, "--kld-anneal-ratio", 0.1]
    options = [*PLAIN, *flat, "--kld-weight", 1e-9, "--epochs", 12]
    return folder / "checkpoints" / "last.ckpt", train(ears, folder, *options)


@pytest.mark.slow
def test_advice_is_logged_once_when_it_first_applies(unweighted: tuple[Path, Result]) -> None:
    _, result = unweighted
    assert codes(result) == ["kld_weight_low"]
    (note,) = notes(result, "the KLD weight is too low")
    # After the epoch that reaches a hundred steps.
    lines = result.err.splitlines()
    before = [line.split()[1] for line in lines[: lines.index(note)] if line.startswith("epoch")]
    assert before[-1] == "10/12"


@pytest.mark.slow
def test_a_resumed_run_shows_old_advice_without_logging_it_again(
    unweighted: tuple[Path, Result], tmp_path: Path
) -> None:
    shutil.copytree(unweighted[0].parent, tmp_path / "checkpoints")
    longer = command("resume", tmp_path / "checkpoints" / "last.ckpt", "--epochs", 13)
    assert longer.code == 0, longer.err
    assert notes(longer, "the KLD weight is too low") == []
    assert "try --kld-weight" in " ".join(longer.out.replace("│", " ").split())


@pytest.mark.slow
def test_eval_gives_the_same_advice(unweighted: tuple[Path, Result]) -> None:
    last, result = unweighted
    assert command("eval", last, "--no-baselines", "--json").json["advice"] == result.json["advice"]


def records(run: Run) -> list[dict[str, float]]:
    lines = (run.logs / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["metrics"] for line in lines]


def noisy_error(run: Run, path: Path) -> float:
    stored = np.load(path).astype(np.float32) / 255
    images = torch.from_numpy(stored.transpose(0, 3, 1, 2).copy())
    model = earteach.load(run.last)
    with torch.no_grad():
        mu, logvar = model.encode(images)
        noise = validation_noise(42, list(range(len(images))), mu.shape[1])
        decoded = model.decode(mu + (logvar / 2).exp() * noise)
    return float(((decoded - images) ** 2).mean())


def test_the_clean_error_is_that_of_training_images_without_augmentation(
    trained: Run, ears: Path
) -> None:
    # All 41 of them, as there are fewer than 64.
    clean = noisy_error(trained, ears / "train_teacher.npy")
    logged = records(trained)[-1]
    assert logged["train/clean_recon_loss"] == pytest.approx(clean, rel=1e-5)


def recorder_state(folder: Path) -> dict[str, Any]:
    path = folder / "checkpoints" / "last.ckpt"
    state: dict[str, Any] = checkpoint.read(path).state["callbacks"]["Recorder"]
    return state


@pytest.mark.slow
def test_a_resumed_run_remembers_its_history_wherever_it_logs(
    ears: Path, tmp_path: Path, trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*TINY_RUN, *TEACHING, "--epochs", 4]
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
    elsewhere = ["--checkpoint-dir", tmp_path / "checkpoints", "--log-dir", tmp_path / "elsewhere"]
    assert command("train", *data_options(ears), *elsewhere, *options).code == 0
    whole, pieces = recorder_state(trained.folder), recorder_state(tmp_path)
    # The names that checkpoints store.
    assert set(whole) == {"history", "codes", "told", "advice"}
    assert set(whole["codes"]) == {"kld", "variance"}
    assert [set(epoch) for epoch in whole["history"]] == [
        {"train_recon", "clean_recon", "val_recon", "val_loss", "learning_rate"}
    ] * 4
    assert whole == pieces


def test_the_spectrum_of_a_subset_is_that_of_all_images(tmp_path: Path) -> None:
    """200 random images of 32 pixels with a few strong directions."""
    generator = np.random.default_rng(0)
    axes = np.linalg.qr(generator.normal(size=(3072, 60)))[0] * np.arange(1, 61) ** -0.85 * 9
    images = (0.5 + generator.normal(size=(200, 60)) @ axes.T).clip(0, 1)
    stored = (images * 255).round().astype(np.uint8).reshape(200, 32, 32, 3)
    np.save(tmp_path / "many.npy", stored)
    subset = TrainingSubset(EarArray.open(tmp_path / "many.npy", "nhwc"), size=32, channels=3)
    flat = stored.reshape(200, -1) / 255.0
    expected = np.linalg.svd(flat - flat.mean(axis=0), compute_uv=False) ** 2 / 199
    assert len(subset.eigenvalues) == 16
    np.testing.assert_allclose(subset.eigenvalues, expected[:16], rtol=0.4)
    assert subset.mean_image_error == pytest.approx(flat.var(axis=0).mean(), rel=0.1)
    np.save(tmp_path / "one.npy", stored[:1])
    one = TrainingSubset(EarArray.open(tmp_path / "one.npy", "nhwc"), size=32, channels=3)
    assert (one.eigenvalues, one.mean_image_error) == ((), None)
