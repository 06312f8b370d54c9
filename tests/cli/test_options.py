"""Every option of `train` does what it says: seen in the files, the checkpoint and the result."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from earteach import checkpoint
from earteach.training import trainer
from tests.conftest import TINY, TINY_RUN, Result, Run, data_options, earteach, run_options

pytestmark = pytest.mark.usefixtures("bf16_everywhere")

TRAIN_IMAGES, VAL_IMAGES = 41, 7
# One step an epoch on images as they are: the quickest run.
QUICK = [*TINY, "--batch-size", "64", "--num-workers", "0", "--augmentation", "none"]

Weights = dict[str, torch.Tensor]


def run(ears: Path, folder: Path, *options: object) -> Run:
    """A finished run; options given twice count as they are given last."""
    result = earteach("train", *data_options(ears), *run_options(folder), *options, "--json")
    assert result.code == 0, result.err
    return Run(folder, result.json)


def tried(ears: Path, folder: Path, *options: object) -> Result:
    return earteach("train", *data_options(ears), *run_options(folder), *QUICK, *options)


def state(run: Run) -> dict[str, Any]:
    return checkpoint.read(run.last).state


def weights(run: Run) -> Weights:
    found: Weights = state(run)["state_dict"]
    return found


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def recorded(run: Run, metric: str) -> list[float]:
    lines = (run.logs / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["metrics"][metric] for line in lines]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# An uncommon value for each option that a run can have anywhere.
CUSTOM = {
    "layout": "nhwc",
    "augmentation": "light",
    "target": "clean",
    "in_channels": 1,
    "latent_dim": 12,
    "base_channels": 6,
    "image_size": 48,
    "epochs": 2,
    "batch_size": 10,
    "learning_rate": 0.003,
    "weight_decay": 0.07,
    "gradient_clip": 0.5,
    "patience": 9,
    "kld_weight": 0.002,
    "kld_reduction": "sum",
    "kld_anneal_strategy": "linear",
    "kld_anneal_cycles": 2,
    "kld_anneal_ratio": 0.75,
    "kld_anneal_epochs": 7,
    "kld_anneal_start": 0.25,
    "kld_anneal_end": 0.5,
    "accelerator": "cpu",
    "strategy": "auto",
    "devices": 1,
    "num_nodes": 1,
    "precision": "bf16",
    "num_workers": 0,
    "checkpoint_every_n_steps": 3,
    "seed": 5,
}


@pytest.fixture(scope="module")
def custom(ears: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in CUSTOM.items()]
    return run(ears, tmp_path_factory.mktemp("custom"), *flags)


@pytest.mark.parametrize("name", CUSTOM)
def test_option_is_kept_in_the_checkpoint_and_shown_in_tensorboard(custom: Run, name: str) -> None:
    config = checkpoint.read(custom.last).config
    assert {option.name: value for _, option, value in config.options()}[name] == CUSTOM[name]
    hyperparameters = (custom.logs / "hparams.yaml").read_text().splitlines()
    shown = {key: text.strip("'\"") for key, text in (line.split(": ") for line in hyperparameters)}
    assert shown[name] == str(CUSTOM[name])


def test_model_options_shape_the_network(custom: Run) -> None:
    model = checkpoint.load(custom.last)
    images = torch.zeros(2, 1, 48, 48)
    assert model.encode(images)[0].shape == (2, 12)
    assert model.reconstruct(images).shape == images.shape
    assert [m.shape[1:] for m in model.features(images)] == [
        (6, 24, 24), (12, 12, 12), (24, 6, 6), (48, 3, 3)
    ]  # fmt: skip


def test_epochs_and_batch_size_make_the_steps(custom: Run) -> None:
    assert custom.result["epochs_completed"] == 2
    assert custom.result["global_step"] == 2 * math.ceil(TRAIN_IMAGES / 10)
    assert len(recorded(custom, "val/loss")) == 2


def test_learning_rate_and_weight_decay_reach_the_optimizer(custom: Run) -> None:
    groups = state(custom)["optimizer_states"][0]["param_groups"]
    assert {(group["initial_lr"], group["weight_decay"]) for group in groups} == {(0.003, 0.07)}


def test_the_weights_stay_float32_under_bf16(custom: Run) -> None:
    assert {value.dtype for value in weights(custom).values()} == {torch.float32}


def test_the_summed_kld_is_weighted_as_it_is(custom: Run) -> None:
    # linear over 7 epochs from 0.25 to 0.5 of 0.002
    expected = [0.002 * (0.25 + 0.25 * epoch / 6) for epoch in range(2)]
    assert recorded(custom, "train/kld_weight") == pytest.approx(expected)
    names = [f"train/{name}" for name in ("loss", "recon_loss", "kld")]
    for weight, *terms in zip(expected, *(recorded(custom, name) for name in names), strict=True):
        assert terms[0] == pytest.approx(terms[1] + weight * terms[2], rel=1e-5)
    terms = [recorded(custom, f"val/{name}")[0] for name in ("loss", "recon_loss", "kld")]
    assert terms[0] == pytest.approx(terms[1] + 0.002 * 0.5 * terms[2], rel=1e-5)


def test_the_mean_kld_is_weighted_per_latent_dimension(ears: Path, tmp_path: Path) -> None:
    made = run(ears, tmp_path, *QUICK, "--epochs", 1, "--kld-weight", 3)
    for part in ("train", "val"):
        loss, recon, kld = (recorded(made, f"{part}/{n}")[0] for n in ("loss", "recon_loss", "kld"))
        assert loss == pytest.approx(recon + 3 * kld / 16, rel=1e-5)


SCHEDULES: list[tuple[str, int, list[float]]] = [
    ("", 4, [0, 1, 0, 1]),  # of four cycles two fit
    ("--kld-anneal-cycles 1", 4, [0, 0.5, 1, 1]),
    ("--kld-anneal-ratio 1", 3, [0, 1 / 3, 2 / 3]),
    ("--kld-anneal-strategy linear", 3, [0, 0.5, 1]),
    ("--kld-anneal-strategy monotonic", 4, [0, 0.25, 0.75, 1]),  # (1 - cos(π · thirds)) / 2
    ("--kld-anneal-strategy linear --kld-anneal-epochs 2", 3, [0, 1, 1]),
    ("--kld-anneal-strategy linear --kld-anneal-start 0.2", 2, [0.2, 1]),
    ("--kld-anneal-strategy linear --kld-anneal-end 0.5", 2, [0, 0.5]),
    ("--kld-weight 3", 1, [3]),
]


@pytest.mark.parametrize(("typed", "epochs", "expected"), SCHEDULES)
def test_the_kld_weight_follows_its_options(
    ears: Path, tmp_path: Path, typed: str, epochs: int, expected: list[float]
) -> None:
    options = ["--kld-weight", 1, *typed.split(), "--epochs", epochs]
    made = run(ears, tmp_path, *QUICK, *options)
    assert recorded(made, "train/kld_weight") == pytest.approx(expected)


def test_arrays_are_those_named(ears: Path, tmp_path: Path) -> None:
    swapped = ["--train-data", ears / "val_teacher.npy", "--val-data", ears / "train_teacher.npy"]
    made = run(ears, tmp_path, *QUICK, "--batch-size", 2, "--epochs", 1, *swapped)
    assert made.result["global_step"] == math.ceil(VAL_IMAGES / 2)
    data = checkpoint.read(made.last).about["data"]
    assert [data[name]["shape"][0] for name in ("train", "val")] == [VAL_IMAGES, TRAIN_IMAGES]


def test_layout_decides_where_the_shape_does_not(ears: Path, tmp_path: Path) -> None:
    path = tmp_path / "either.npy"
    np.save(path, np.arange(8 * 3 * 32 * 3, dtype=np.uint8).reshape(8, 3, 32, 3))
    arrays = ["--train-data", path, "--val-data", path, "--fast-dev-run"]
    undecided = tried(ears, tmp_path, *arrays)
    assert undecided.code == 1
    assert "--layout" in undecided.err
    assert "of 3×32 are" in tried(ears, tmp_path, *arrays, "--layout", "nchw").err
    assert "of 32×3 are" in tried(ears, tmp_path, *arrays, "--layout", "nhwc").err


def norm_of_first_gradient(run: Run) -> float:
    """After one step AdamW's first moment is (1 − β₁) times the gradient, β₁ = 0.9."""
    moments = [entry["exp_avg"] for entry in state(run)["optimizer_states"][0]["state"].values()]
    return float(torch.cat([moment.flatten() for moment in moments]).norm()) / 0.1


def test_the_gradient_is_clipped_to_the_norm_asked_for(ears: Path, tmp_path: Path) -> None:
    norms = {
        clip: norm_of_first_gradient(
            run(ears, tmp_path / str(clip), *QUICK, "--epochs", 1, "--gradient-clip", clip)
        )
        for clip in (0, 1e-4, 1e6)
    }
    assert norms[1e-4] == pytest.approx(1e-4, rel=1e-3)
    assert norms[0] == norms[1e6] > 1e-3


def test_patience_ends_a_run_that_does_not_improve(ears: Path, tmp_path: Path) -> None:
    # No weight changes at this learning rate, so no epoch is better than the first.
    still = ["--learning-rate", 1e-12, "--weight-decay", 0, "--patience", 2, "--epochs", 9]
    made = run(ears, tmp_path, *QUICK, *still)
    assert made.result["stopped_by"] == "early_stopping"
    assert made.result["epochs_completed"] == 3
    assert made.result["best"]["loss"]["epoch"] == 0
    assert checkpoint.read(made.last).about["stopped_by"] == "early_stopping"


@pytest.fixture(scope="module")
def plain(ears: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One epoch of `TINY_RUN`, to compare with."""
    return run(ears, tmp_path_factory.mktemp("plain"), *TINY_RUN, "--epochs", 1)


@pytest.mark.parametrize(
    "changed",
    [
        "--seed 43",
        "--augmentation none",
        "--augmentation full",
        "--no-pca-init",
        "--ssim-weight 0",
        "--lr-schedule plateau",
        "--lr-peak 5",
        "--ema-decay 0.1",
    ],
)
def test_changed_option_changes_what_is_learned(
    ears: Path, tmp_path: Path, plain: Run, changed: str
) -> None:
    made = run(ears, tmp_path, *TINY_RUN, "--epochs", 1, *changed.split())
    assert not same(weights(made), weights(plain))


@pytest.mark.parametrize("changed", ["--seed 42", "--num-workers 1 --patience 3"])
def test_same_options_learn_the_same(ears: Path, tmp_path: Path, plain: Run, changed: str) -> None:
    made = run(ears, tmp_path, *TINY_RUN, "--epochs", 1, *changed.split())
    assert same(weights(made), weights(plain))


def test_at_full_augmentation_the_target_is_what_is_asked_for(ears: Path, tmp_path: Path) -> None:
    made = [
        run(ears, tmp_path / target, *TINY_RUN, "--epochs", 1, "--augmentation", "full",
            "--target", target)
        for target in ("clean", "augmented")
    ]  # fmt: skip
    assert not same(*map(weights, made))


def test_a_network_from_noise_has_no_linear_path_and_stays_one(ears: Path, tmp_path: Path) -> None:
    made = run(ears, tmp_path, *TINY_RUN, "--epochs", 1, "--no-pca-init")
    assert checkpoint.read(made.last).config.model.pca_init is False
    assert not any("linear" in name for name in weights(made))
    longer = earteach("resume", made.last, "--epochs", 2, "--json")
    assert longer.code == 0, longer.err
    assert longer.json["epochs_completed"] == 2
    assert checkpoint.read(made.last).config.model.pca_init is False
    other = earteach("train", *data_options(ears), *run_options(tmp_path), *TINY_RUN, "--epochs", 3)
    assert other.code == 1
    assert "--pca-init" in other.err


def test_a_network_from_noise_can_be_asked_for_in_a_file(ears: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("pca_init = false\nema_decay = 0\n")
    file = ["--config", tmp_path / "run.toml"]
    made = run(ears, tmp_path / "a", *TINY_RUN, "--epochs", 1, *file)
    assert checkpoint.read(made.last).config.model.pca_init is False
    assert not any("linear" in name for name in weights(made))
    made = run(ears, tmp_path / "b", *TINY_RUN, "--epochs", 1, *file, "--pca-init")
    assert checkpoint.read(made.last).config.model.pca_init is True


def test_both_beginnings_are_in_the_help() -> None:
    text = " ".join(earteach("train", "--help").out.split())
    assert "--pca-init" in text
    assert "--no-pca-init" in text


def test_a_checkpoint_of_an_older_format_is_refused_in_one_line(
    ears: Path, tmp_path: Path, trained: Run
) -> None:
    old = torch.load(trained.last, weights_only=True)
    old["earteach"] |= {"format": 1, "version": "0.0.9"}
    last = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint.write(old, last)
    train = ["train", *data_options(ears), *run_options(tmp_path), *TINY_RUN, "--epochs", 1]
    for command in (["resume", last], ["eval", last], train):
        result = earteach(*command)
        assert result.code == 1
        (line,) = [line for line in result.err.splitlines() if line.startswith("error:")]
        assert "earteach 0.0.9, whose networks were others" in line
    assert earteach(*train, "--fresh").code == 0  # as the line says


def test_without_augmentation_the_target_is_the_input(ears: Path, tmp_path: Path) -> None:
    made = [
        run(ears, tmp_path / target, *QUICK, "--epochs", 1, "--target", target)
        for target in ("clean", "augmented")
    ]
    assert same(*map(weights, made))


@pytest.mark.parametrize(
    ("wanted", "cores", "used"), [(0, {0, 1, 2}, 0), (2, {0, 1, 2}, 2), (99, {0}, 1)]
)
def test_workers_are_as_many_as_asked_for_but_never_more_than_the_cores(
    ears: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: int,
    cores: set[int],
    used: int,
) -> None:
    seen = []

    def loader(*args: Any, **kwargs: Any) -> Any:
        made = original(*args, **kwargs)
        seen.append(made.num_workers)
        return made

    original = trainer.training_loader
    monkeypatch.setattr(trainer, "training_loader", loader)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    result = tried(ears, tmp_path, "--num-workers", wanted, "--fast-dev-run")
    assert result.code == 0, result.err
    assert seen == [used]


def test_hardware_options_reach_lightning(
    ears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def trainer(**kwargs: Any) -> NoReturn:
        seen.update(kwargs)
        raise MisconfigurationException("not\nhere")

    monkeypatch.setattr("pytorch_lightning.Trainer", trainer)
    wanted = {"accelerator": "cpu", "devices": 3, "num_nodes": 2, "strategy": "ddp"}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in wanted.items()]
    result = tried(ears, tmp_path, *flags, "--precision", "bf16")
    assert {name: seen[name] for name in wanted} == wanted
    assert seen["precision"] == "bf16-mixed"
    assert result.code == 1
    assert "error: --accelerator cpu --devices 3 --strategy ddp: not here\n" in result.err


def test_missing_gpu_is_a_users_problem(
    ears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    result = tried(ears, tmp_path, "--accelerator", "gpu")
    assert (result.code, result.out) == (1, "")
    assert "error: --accelerator gpu: torch finds no GPU here; use --accelerator cpu" in result.err
    assert list((tmp_path / "checkpoints").glob("*")) == []


MISSING = [
    ("--accelerator tpu", "--accelerator tpu: no TPU|--accelerator auto"),
    ("--accelerator cpu --strategy nonsense", "--strategy nonsense:"),
    ("--accelerator cpu --devices -1", "--devices -1"),
]


@pytest.mark.parametrize(("typed", "words"), MISSING)
def test_hardware_that_is_not_there_is_a_users_problem(
    ears: Path, tmp_path: Path, typed: str, words: str
) -> None:
    result = tried(ears, tmp_path, *typed.split())
    assert (result.code, result.out) == (1, "")
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert result.err.splitlines()[-1] == errors[0]
    for word in words.split("|"):
        assert word in errors[0]


@pytest.mark.parametrize(("precision", "noted"), [("32", False), ("16", True), ("bf16", False)])
def test_precision_16_on_a_cpu_runs_as_bf16_and_says_so(
    ears: Path, tmp_path: Path, precision: str, noted: bool
) -> None:
    result = tried(
        ears, tmp_path, "--accelerator", "cpu", "--precision", precision, "--fast-dev-run"
    )
    assert result.code == 0
    assert ("running as bf16" in result.err) == noted


def test_16_learns_what_bf16_learns_on_a_cpu(ears: Path, tmp_path: Path) -> None:
    options = [*QUICK, "--accelerator", "cpu", "--epochs", 1]
    made = [run(ears, tmp_path / p, *options, "--precision", p) for p in ("16", "bf16", "32")]
    learned = list(map(weights, made))
    assert same(learned[0], learned[1])
    assert not same(learned[0], learned[2])


def test_folders_are_those_named(
    ears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = ["--checkpoint-dir", "my_runs/a_1", "--log-dir", "my_logs"]
    result = tried(ears, tmp_path, "--epochs", 1, *folders)
    assert result.code == 0, result.err
    assert {path.name for path in tmp_path.iterdir()} == {"my_runs", "my_logs"}
    names = sorted(path.name for path in Path("my_runs/a_1").iterdir())
    assert [name.split("=")[0] for name in names] == ["best-epoch", "best-ssim-epoch", "last.ckpt"]
    assert "metrics.jsonl" in {path.name for path in Path("my_logs/ear_vae").iterdir()}


def test_last_is_written_inside_long_epochs_where_it_is_asked_for(
    ears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []

    def write(state: dict[str, Any], path: Path) -> None:
        steps.append(state["global_step"])
        original(state, path)

    original = checkpoint.write
    monkeypatch.setattr(checkpoint, "write", write)
    run(ears, tmp_path, *QUICK, "--batch-size", 8, "--epochs", 1, "--checkpoint-every-n-steps", 2)
    assert steps == [2, 4, 6]
    assert checkpoint.read(tmp_path / "checkpoints" / "last.ckpt").global_step == 6


def test_fresh_moves_the_old_run_aside_and_deletes_nothing(ears: Path, tmp_path: Path) -> None:
    options = [*QUICK, "--epochs", 1, "--fresh"]
    run(ears, tmp_path, *options)
    kept = []
    for number in (1, 2):
        kept.append({name: files(tmp_path / name) for name in ("checkpoints", "logs/ear_vae")})
        made = run(ears, tmp_path, *options, "--seed", number)
        assert made.result["resumed_from"] is None
    for number, old in enumerate(kept, start=1):
        for name, contents in old.items():
            assert files(tmp_path / f"{name}-old-{number}") == contents


def test_fresh_says_where_the_old_run_is(ears: Path, tmp_path: Path) -> None:
    tried(ears, tmp_path, "--epochs", 1)
    result = tried(ears, tmp_path, "--epochs", 1, "--fresh")
    assert f"{tmp_path}/checkpoints to {tmp_path}/checkpoints-old-1" in result.err


@pytest.mark.parametrize("folder", [".", "..", "{here}"])
def test_fresh_moves_no_working_directory(
    ears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "mine.txt").write_text("kept")
    monkeypatch.chdir(here)
    named = folder.format(here=here)
    result = earteach("train", *data_options(ears), *QUICK, "--fresh", "--checkpoint-dir", named)
    assert (result.code, result.out) == (1, "")
    (error,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert error.startswith(f"error: {named}: holds the working directory")
    assert [path.name for path in tmp_path.rglob("*")] == ["here", "mine.txt"]


def test_fresh_without_an_old_run_is_as_usual(ears: Path, tmp_path: Path) -> None:
    assert run(ears, tmp_path, *QUICK, "--epochs", 1, "--fresh").result["epochs_completed"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "logs"}


@pytest.mark.parametrize("option", ["--fast-dev-run", "--dry-run"])
def test_nothing_is_written(
    ears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = earteach("train", *data_options(ears), *TINY_RUN, option, "--json")
    assert result.code == 0, result.err
    assert result.out.count("\n") == 1
    assert isinstance(result.json, dict)
    assert list(tmp_path.iterdir()) == []


def test_fast_dev_run_takes_one_step(ears: Path, tmp_path: Path) -> None:
    made = run(ears, tmp_path, *TINY_RUN, "--fast-dev-run")
    assert made.result["global_step"] == 1
    assert made.result["last"] is None
    assert made.result["best"] == {}


@pytest.mark.parametrize("option", ["--fast-dev-run", "--dry-run"])
@pytest.mark.parametrize("more", [[], ["--latent-dim", "8"]])
def test_an_old_run_is_left_alone(ears: Path, tmp_path: Path, option: str, more: list[str]) -> None:
    run(ears, tmp_path, *QUICK, "--epochs", 1)
    before = files(tmp_path)
    made = run(ears, tmp_path, *QUICK, "--epochs", 1, option, *more)
    assert made.result.get("resumed_from") is None
    assert files(tmp_path) == before


def test_fast_dev_run_with_fresh_moves_nothing(ears: Path, tmp_path: Path) -> None:
    run(ears, tmp_path, *QUICK, "--epochs", 1)
    before = files(tmp_path)
    run(ears, tmp_path, *QUICK, "--epochs", 1, "--fast-dev-run", "--fresh")
    assert files(tmp_path) == before


def test_dry_run_counts(ears: Path, tmp_path: Path) -> None:
    planned = run(ears, tmp_path, *TINY_RUN, "--epochs", 5, "--dry-run").result
    assert (planned["train_images"], planned["val_images"]) == (TRAIN_IMAGES, VAL_IMAGES)
    assert (planned["steps_per_epoch"], planned["steps"]) == (6, 30)
    model = earteach("inspect-model", *TINY, "--json").json
    assert planned["parameters"] == model["parameters"]
    # weight · D / 2, divided by latent_dim under mean
    assert planned["elbo_beta"] == pytest.approx(0.00025 * 3 * 32 * 32 / 2 / 16)


def test_init_from_begins_with_the_weights_and_a_new_optimizer(
    ears: Path, tmp_path: Path, trained: Run
) -> None:
    still = ["--learning-rate", 1e-12, "--weight-decay", 0, "--epochs", 1]
    made = run(ears, tmp_path, *QUICK, *still, "--init-from", trained.last)
    assert made.result["resumed_from"] is None
    assert (made.result["global_step"], made.result["epochs_completed"]) == (1, 1)
    old, new = weights(trained), weights(made)
    for name in (name.removeprefix("averaged.") for name in old if name.startswith("averaged.")):
        for part in ("model", "averaged"):
            begun = new[f"{part}.{name}"]
            assert torch.allclose(old[f"averaged.{name}"], begun, rtol=0, atol=1e-9), name
    steps = [entry["step"] for entry in state(made)["optimizer_states"][0]["state"].values()]
    assert set(map(float, steps)) == {1.0}


@pytest.mark.parametrize(
    ("checkpoint_name", "options", "words"),
    [
        ("last.ckpt", "--latent-dim 8", "is a network of another shape|inspect-model"),
        ("none.ckpt", "", "none.ckpt: no such checkpoint"),
    ],
)
def test_init_from_what_does_not_fit_is_a_users_problem(
    ears: Path, tmp_path: Path, trained: Run, checkpoint_name: str, options: str, words: str
) -> None:
    path = trained.checkpoints / checkpoint_name
    result = tried(ears, tmp_path, "--epochs", 1, "--init-from", path, *options.split())
    assert (result.code, result.out) == (1, "")
    for word in words.split("|"):
        assert word in result.err
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_init_from_does_not_overwrite_a_run(ears: Path, tmp_path: Path, trained: Run) -> None:
    run(ears, tmp_path, *QUICK, "--epochs", 1)
    result = tried(ears, tmp_path, "--epochs", 1, "--init-from", trained.last)
    assert result.code == 1
    assert "--fresh" in result.err
    started = run(ears, tmp_path, *QUICK, "--epochs", 1, "--init-from", trained.last, "--fresh")
    assert started.result["epochs_completed"] == 1


def test_config_file_gives_options_and_flags_win(ears: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        f"train_data = '{ears}/train_teacher.npy'\nval_data = '{ears}/val_teacher.npy'\n"
        "image_size = 32\nbase_channels = 8\nlatent_dim = 10\nbatch_size = 64\nnum_workers = 0\n"
        "learning_rate = 1\nepochs = 7\nprecision = 32\naugmentation = 'none'\n"
    )
    flags = ["--epochs", 1, "--learning-rate", 1e-3, "--config", path]
    result = earteach("train", *run_options(tmp_path), *flags, "--json")
    assert result.code == 0, result.err
    assert (result.json["epochs_completed"], result.json["global_step"]) == (1, 1)
    config = checkpoint.read(tmp_path / "checkpoints" / "last.ckpt").config
    assert (config.model.latent_dim, config.optim.learning_rate) == (10, 1e-3)
    assert config.hardware.precision == "32"
    assert config.data.augmentation == "none"


def test_a_flag_wins_over_the_file_with_its_default_too(ears: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("seed = 7\n")
    config = ["--config", tmp_path / "run.toml", "--epochs", 1]
    for seed, more in ((42, ["--seed", 42]), (7, ["--fresh"])):
        made = run(ears, tmp_path, *QUICK, *config, *more)
        assert checkpoint.read(made.last).config.run.seed == seed


def test_underscores_are_dashes(ears: Path, tmp_path: Path) -> None:
    arrays = ["--train_data", ears / "train_teacher.npy", "--val_data", ears / "val_teacher.npy"]
    options = [str(option).replace("-", "_").replace("__", "--", 1) for option in QUICK]
    folders = ["--checkpoint_dir", tmp_path / "a_b", "--log_dir", tmp_path / "logs"]
    result = earteach("train", *arrays, *options, *folders, "--epochs", 1, "--json")
    assert result.code == 0, result.err
    assert Path(result.json["last"]) == tmp_path / "a_b" / "last.ckpt"
    assert earteach("inspect_model", "--latent_dim", 9, "--json").json["latent_dim"] == 9
