"""Every option of `train` takes effect, as its files, its checkpoint and its result show."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from earteach import checkpoint
from tests.conftest import TINY, TINY_RUN, Run, data_options, earteach, run_options

pytestmark = pytest.mark.usefixtures("bf16_everywhere")

TRAIN_IMAGES, VAL_IMAGES = 41, 7
# One step per epoch without augmentation: the quickest run.
QUICK = [*TINY, "--batch-size", "64", "--num-workers", "0", "--augmentation", "none"]


def train(ears, folder, *options):
    return earteach("train", *data_options(ears), *run_options(folder), *options)


def run(ears, folder, *options):
    """A finished run; of options given twice the last counts."""
    result = train(ears, folder, *options, "--json")
    assert result.code == 0, result.err
    return Run(folder, result.json)


def dry_run(ears, *options):
    return earteach("train", *data_options(ears), *QUICK, *options, "--dry-run", "--json").json


def state(run):
    return checkpoint.read(run.last).state


def weights(run):
    return state(run)["state_dict"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def recorded(run, metric):
    lines = (run.logs / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["metrics"][metric] for line in lines]


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def error_line(result):
    assert (result.code, result.out) == (1, "")
    (line,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert result.err.splitlines()[-1] == line
    return line


# An uncommon value for each option that a run can have on any machine.
CUSTOM = {
    "layout": "nhwc", "augmentation": "light", "target": "clean", "in_channels": 1, "latent_dim": 12,
    "base_channels": 6, "image_size": 48, "epochs": 2, "batch_size": 10, "learning_rate": 0.003,
    "weight_decay": 0.07, "gradient_clip": 0.5, "patience": 9, "kld_weight": 0.002,
    "kld_reduction": "sum", "kld_anneal_strategy": "linear", "kld_anneal_cycles": 2,
    "kld_anneal_ratio": 0.75, "kld_anneal_epochs": 7, "kld_anneal_start": 0.25,
    "kld_anneal_end": 0.5, "accelerator": "cpu", "strategy": "auto", "devices": 1, "num_nodes": 1,
    "precision": "bf16", "num_workers": 0, "checkpoint_every_n_steps": 3, "seed": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def custom(ears, tmp_path_factory):
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in CUSTOM.items()]
    return run(ears, tmp_path_factory.mktemp("custom"), *flags)


def test_options_are_in_the_checkpoint_and_in_tensorboard(custom):
    options = checkpoint.read(custom.last).config.resolved_options()
    assert {name: options[name] for name in CUSTOM} == CUSTOM
    lines = (custom.logs / "hparams.yaml").read_text().splitlines()
    shown = {key: text.strip("'\"") for key, text in (line.split(": ") for line in lines)}
    assert {name: shown[name] for name in CUSTOM} == {k: str(v) for k, v in CUSTOM.items()}


def test_model_options_shape_the_network(custom):
    model = checkpoint.load(custom.last)
    images = torch.zeros(2, 1, 48, 48)
    assert model.encode(images)[0].shape == (2, 12)
    assert [m.shape[1:] for m in model.features(images)] == [
        (6, 24, 24), (12, 12, 12), (24, 6, 6), (48, 3, 3)
    ]  # fmt: skip
    assert {value.dtype for value in weights(custom).values()} == {torch.float32}


def test_optimisation_options_reach_the_optimizer(custom):
    assert custom.result["epochs_completed"] == len(recorded(custom, "val/loss")) == 2
    assert custom.result["global_step"] == 2 * math.ceil(TRAIN_IMAGES / 10)
    groups = state(custom)["optimizer_states"][0]["param_groups"]
    assert {(group["initial_lr"], group["weight_decay"]) for group in groups} == {(0.003, 0.07)}


def test_the_summed_kld_has_the_scheduled_weight(custom):
    # linear over 7 epochs from 0.25 to 0.5 of 0.002
    expected = [0.002 * (0.25 + 0.25 * epoch / 6) for epoch in range(2)]
    assert recorded(custom, "train/kld_weight") == pytest.approx(expected)
    for part, kld_weights in (("train", expected), ("val", 2 * [0.002 * 0.5])):
        names = [f"{part}/{name}" for name in ("loss", "recon_loss", "kld")]
        values = zip(*(recorded(custom, name) for name in names), strict=True)
        for kld_weight, (loss, recon, kld) in zip(kld_weights, values, strict=True):
            assert loss == pytest.approx(recon + kld_weight * kld, rel=1e-5)


SCHEDULES = [
    ("", 4, [0, 1, 0, 1]),  # of four cycles two fit
    ("--kld-anneal-cycles 1", 4, [0, 0.5, 1, 1]),
    ("--kld-anneal-ratio 1", 3, [0, 1 / 3, 2 / 3]),
    ("--kld-anneal-strategy monotonic", 4, [0, 0.25, 0.75, 1]),  # (1 - cos(π · thirds)) / 2
    ("--kld-anneal-strategy linear --kld-anneal-epochs 2", 3, [0, 1, 1]),
    ("--kld-anneal-strategy linear --kld-anneal-start 0.2", 2, [0.2, 1]),
    ("--kld-anneal-strategy linear --kld-anneal-end 0.5", 2, [0, 0.5]),
    ("--kld-weight 3", 1, [3]),
]


@pytest.mark.parametrize(("typed", "epochs", "expected"), SCHEDULES)
def test_annealing_options_shape_the_kld_weight(ears, typed, epochs, expected):
    plan = dry_run(ears, "--kld-weight", 1, *typed.split(), "--epochs", epochs)
    assert plan["schedule"] == pytest.approx(expected)


@pytest.mark.slow
def test_arrays_are_those_named(ears, tmp_path):
    swapped = ["--train-data", ears / "val_teacher.npy", "--val-data", ears / "train_teacher.npy"]
    result = run(ears, tmp_path, *QUICK, "--batch-size", 2, "--epochs", 1, *swapped)
    assert result.result["global_step"] == math.ceil(VAL_IMAGES / 2)
    data = checkpoint.read(result.last).about["data"]
    assert [data[name]["shape"][0] for name in ("train", "val")] == [VAL_IMAGES, TRAIN_IMAGES]


def test_layout_decides_an_ambiguous_shape(ears, tmp_path):
    path = tmp_path / "either.npy"
    np.save(path, np.arange(8 * 3 * 32 * 3, dtype=np.uint8).reshape(8, 3, 32, 3))
    options = [*QUICK, "--train-data", path, "--val-data", path, "--fast-dev-run"]
    assert "--layout" in error_line(train(ears, tmp_path, *options))
    assert "of 3×32 are" in train(ears, tmp_path, *options, "--layout", "nchw").err
    assert "of 32×3 are" in train(ears, tmp_path, *options, "--layout", "nhwc").err


@pytest.mark.parametrize(("clip", "norm"), [(0, None), (1e-4, 1e-4)])
def test_the_gradient_is_clipped_also_in_bf16(ears, tmp_path, clip, norm):
    """After one step AdamW's first moment is (1 − β₁) times the gradient, β₁ = 0.9."""
    options = [*QUICK, "--epochs", 1, "--gradient-clip", clip, "--precision", "bf16"]
    optimizer = state(run(ears, tmp_path, *options))["optimizer_states"][0]["state"]
    moments = [entry["exp_avg"].flatten() for entry in optimizer.values()]
    gradient = float(torch.cat(moments).norm()) / 0.1
    assert gradient > 1e-3 if norm is None else gradient == pytest.approx(norm, rel=1e-3)


@pytest.fixture(scope="module")
def plain(ears, tmp_path_factory):
    """One epoch of `TINY_RUN`, to compare with."""
    return run(ears, tmp_path_factory.mktemp("plain"), *TINY_RUN, "--epochs", 1)


@pytest.mark.parametrize(
    ("changed", "equal"),
    [
        ("--seed 43", False),
        *(
            pytest.param(options, same, marks=pytest.mark.slow)
            for options, same in [
                ("--augmentation full", False),
                ("--no-pca-init", False),
                ("--ssim-weight 0", False),
                ("--teach-weight 0.02", False),
                ("--lr-schedule plateau", False),
                ("--learning-rate 5e-3", False),
                ("--ema-decay 0.1", False),
            ]
        ),
        ("--seed 42 --num-workers 1 --patience 3", True),
    ],
)
def test_what_changes_the_weights(ears, tmp_path, plain, changed, equal):
    other = run(ears, tmp_path, *TINY_RUN, "--epochs", 1, *changed.split())
    assert same(weights(other), weights(plain)) == equal


@pytest.mark.slow
def test_a_network_without_pca_stays_one(ears, tmp_path):
    (tmp_path / "run.toml").write_text("pca_init = false\n")
    first = run(ears, tmp_path, *QUICK, "--epochs", 1, "--config", tmp_path / "run.toml")
    assert not any("linear" in name for name in weights(first))
    assert earteach("resume", first.last, "--epochs", 2, "--json").json["epochs_completed"] == 2
    assert checkpoint.read(first.last).config.model.pca_init is False
    assert "--pca-init" in error_line(train(ears, tmp_path, *QUICK, "--epochs", 3))


MISSING = [
    ("--accelerator gpu", "--accelerator gpu: torch finds no GPU here; use --accelerator cpu"),
    ("--accelerator tpu", "--accelerator tpu: found no TPU|--accelerator auto"),
    ("--accelerator cpu --strategy nonsense", "--strategy nonsense:"),
    ("--accelerator cpu --devices -1", "--devices -1"),
]


@pytest.mark.parametrize(("typed", "words"), MISSING)
def test_missing_hardware_is_a_users_problem(ears, tmp_path, monkeypatch, typed, words):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    error = error_line(train(ears, tmp_path, *QUICK, *typed.split()))
    assert all(word in error for word in words.split("|"))
    assert list((tmp_path / "checkpoints").glob("*")) == []


@pytest.mark.slow
def test_folders_are_those_named(ears, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = ["--checkpoint-dir", "my_runs/a_1", "--log_dir", "my_logs"]  # underscores too
    assert train(ears, tmp_path, *QUICK, "--epochs", 1, *folders).code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"my_runs", "my_logs"}
    names = sorted(path.name for path in Path("my_runs/a_1").iterdir())
    assert [name.split("=")[0] for name in names] == ["best-epoch", "best-ssim-epoch", "last.ckpt"]
    assert "metrics.jsonl" in {path.name for path in Path("my_logs/ear_vae").iterdir()}
    assert earteach("inspect_model", "--latent_dim", 9, "--json").json["latent_dim"] == 9


def test_last_is_written_within_epochs_too(ears, tmp_path, monkeypatch):
    steps, original = [], checkpoint.write

    def write(state, path):
        steps.append(state["global_step"])
        original(state, path)

    monkeypatch.setattr(checkpoint, "write", write)
    run(ears, tmp_path, *QUICK, "--batch-size", 8, "--epochs", 1, "--checkpoint-every-n-steps", 2)
    assert steps == [2, 4, 6]


@pytest.fixture(scope="module")
def quick(ears, tmp_path_factory):
    return run(ears, tmp_path_factory.mktemp("quick"), *QUICK, "--epochs", 1)


@pytest.fixture
def old(quick, tmp_path):
    """A folder with a finished run that a test may change."""
    return shutil.copytree(quick.folder, tmp_path / "old")


def test_fresh_moves_the_old_run_aside_and_deletes_nothing(ears, old):
    for number in (1, 2):
        before = {name: files(old / name) for name in ("checkpoints", "logs/ear_vae")}
        result = train(ears, old, *QUICK, "--epochs", 1, "--fresh", "--seed", number, "--json")
        assert result.json["resumed_from"] is None
        assert f"{old}/checkpoints to {old}/checkpoints-old-{number}" in result.err
        for name, contents in before.items():
            assert files(old / f"{name}-old-{number}") == contents


def test_fresh_leaves_a_folder_of_other_files_where_it_is(ears, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "mine.jpg").write_text("kept")
    result = train(ears, tmp_path, *QUICK, "--epochs", 1, "--fresh")
    assert (result.code, "moved" in result.err) == (0, False)
    assert (tmp_path / "checkpoints" / "mine.jpg").read_text() == "kept"


@pytest.mark.parametrize("folder", [".", "..", "{here}"])
def test_fresh_moves_no_working_directory(ears, tmp_path, monkeypatch, folder):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    named = folder.format(here=here)
    (Path(named) / "last.ckpt").write_text("kept")
    result = earteach("train", *data_options(ears), *QUICK, "--fresh", "--checkpoint-dir", named)
    assert error_line(result).startswith(f"error: {named}: holds the working directory")
    assert [path.name for path in tmp_path.rglob("*")] == ["here", "last.ckpt"]


@pytest.mark.parametrize("option", ["--fast-dev-run", "--dry-run", "--fast-dev-run --fresh"])
def test_trying_out_writes_nothing_and_leaves_an_old_run_alone(ears, old, monkeypatch, option):
    before = files(old)
    for more in ([], ["--latent-dim", 8]):
        assert train(ears, old, *QUICK, "--epochs", 1, *option.split(), *more).code == 0
    assert files(old) == before
    empty = old.parent / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    result = earteach("train", *data_options(ears), *QUICK, *option.split(), "--json")
    assert (result.code, result.out.count("\n")) == (0, 1), result.err
    assert list(empty.iterdir()) == []
    if "--fast-dev-run" in option:
        assert (result.json["global_step"], result.json["last"], result.json["best"]) == (
            1,
            None,
            {},
        )


def test_dry_run_counts(ears):
    plan = dry_run(ears, "--epochs", 5, "--batch-size", 8)
    assert (plan["train_images"], plan["val_images"]) == (TRAIN_IMAGES, VAL_IMAGES)
    assert (plan["steps_per_epoch"], plan["steps"]) == (6, 30)
    assert plan["learning_rate"] == 2e-3
    model = earteach("inspect-model", *TINY, "--json").json
    assert plan["parameters"] == model["parameters"]
    # weight · D / 2, divided by latent_dim under mean
    assert plan["elbo_beta"] == pytest.approx(0.00025 * 3 * 32 * 32 / 2 / 16)


def test_init_from_begins_with_the_weights_and_a_new_optimizer(ears, tmp_path, trained):
    still = ["--learning-rate", 1e-12, "--weight-decay", 0, "--epochs", 1]
    started = run(ears, tmp_path, *QUICK, *still, "--init-from", trained.last)
    assert started.result["resumed_from"] is None
    assert (started.result["global_step"], started.result["epochs_completed"]) == (1, 1)
    old, new = weights(trained), weights(started)
    for name in (name.removeprefix("averaged.") for name in old if name.startswith("averaged.")):
        for part in ("model", "averaged"):
            start = new[f"{part}.{name}"]
            assert torch.allclose(old[f"averaged.{name}"], start, rtol=0, atol=1e-9), name
    steps = [entry["step"] for entry in state(started)["optimizer_states"][0]["state"].values()]
    assert set(map(float, steps)) == {1.0}


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("last.ckpt", "--latent-dim 8", "its network does not match these options|inspect-model"),
        ("none.ckpt", "", "none.ckpt: no such checkpoint"),
    ],
)
def test_init_from_what_does_not_fit(ears, tmp_path, trained, name, options, words):
    init = ["--init-from", trained.checkpoints / name]
    error = error_line(train(ears, tmp_path, *QUICK, "--epochs", 1, *init, *options.split()))
    assert all(word in error for word in words.split("|"))
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_init_from_overwrites_no_run(ears, old, trained):
    before = files(old)
    options = [*QUICK, "--epochs", 1, "--init-from", trained.last]
    assert "--fresh" in error_line(train(ears, old, *options))
    assert files(old) == before


def test_flags_take_precedence_over_a_config_file(ears, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        f"train_data = '{ears}/train_teacher.npy'\nval_data = '{ears}/val_teacher.npy'\n"
        "image_size = 32\nbase_channels = 8\nlatent_dim = 10\nbatch_size = 7\nnum_workers = 0\n"
        "learning_rate = 1\nepochs = 7\nprecision = 32\n"
    )
    # `--epochs 200` is the default, and counts all the same.
    flags = ["--epochs", 200, "--learning-rate", 1e-3, "--config", path]
    plan = earteach("train", *run_options(tmp_path), *flags, "--dry-run", "--json").json
    assert (plan["latent_dim"], plan["batch_size"]) == (10, 7)
    assert (plan["epochs"], plan["learning_rate"]) == (200, 1e-3)
