"""Options: their defaults, their checks, and TOML files of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from earteach.config import (
    DataConfig,
    HardwareConfig,
    InferenceConfig,
    KLDConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
    read_toml,
)
from earteach.errors import EarTeachError

ACCEPTED = [
    (OptimConfig, "learning_rate", 1, 1.0),
    (ModelConfig, "in_channels", 1, 1),
    (ModelConfig, "image_size", 48, 48),
    (KLDConfig, "kld_anneal_ratio", 1, 1.0),
    (KLDConfig, "kld_anneal_epochs", None, None),
    (HardwareConfig, "precision", 16, "16"),
    (HardwareConfig, "devices", -1, -1),
    (DataConfig, "train_data", "a.npy", Path("a.npy")),
    (RunConfig, "seed", 2**63 - 1, 2**63 - 1),
]


@pytest.mark.parametrize(("group", "name", "value", "stored"), ACCEPTED)
def test_accepted_value(group, name, value, stored):
    result = getattr(group(**{name: value}), name)
    assert result == stored
    assert type(result) is type(stored)


REFUSED = [
    (DataConfig, "train_data", 3, "a path"),
    (DataConfig, "layout", "hwc", "nhwc, nchw, nhw"),
    (ModelConfig, "in_channels", 2, "one of 1, 3"),
    (ModelConfig, "latent_dim", 0, "at least 1"),
    (ModelConfig, "base_channels", 0, "at least 1"),
    (ModelConfig, "image_size", 16, "at least 32"),
    (ModelConfig, "pyramid_channels", -1, "at least 0"),
    (ModelConfig, "landmarks", -1, "at least 0"),
    (ModelConfig, "image_size", 100, "multiple of 16"),
    (OptimConfig, "epochs", 0, "at least 1"),
    (OptimConfig, "epochs", 10**6 + 1, "at most 1000000"),
    (OptimConfig, "epochs", True, "a whole number"),
    (OptimConfig, "batch_size", -1, "at least 1"),
    (OptimConfig, "learning_rate", 11.0, "at most 10"),
    (OptimConfig, "learning_rate", math.nan, "greater than 0"),
    (OptimConfig, "learning_rate", "fast", "a number"),
    (OptimConfig, "weight_decay", -1e-9, "at least 0"),
    (ModelConfig, "pca_init", 1, "true or false"),
    (OptimConfig, "ssim_weight", -0.1, "at least 0"),
    (OptimConfig, "teach_weight", -0.1, "at least 0"),
    (OptimConfig, "lr_warmup_steps", -1, "at least 0"),
    (OptimConfig, "ema_decay", -0.1, "at least 0"),
    (OptimConfig, "ema_decay", 1.0, "at most 0.99999"),
    (OptimConfig, "gradient_clip", math.nan, "at least 0"),
    (OptimConfig, "patience", 0, "at least 1"),
    (KLDConfig, "kld_weight", -1.0, "at least 0"),
    (KLDConfig, "kld_anneal_cycles", 0, "at least 1"),
    (KLDConfig, "kld_anneal_ratio", 0.0, "greater than 0"),
    (KLDConfig, "kld_anneal_ratio", 1.5, "at most 1"),
    (KLDConfig, "kld_anneal_epochs", 0, "at least 1"),
    (KLDConfig, "kld_anneal_start", -0.1, "at least 0"),
    (KLDConfig, "kld_anneal_end", 1.1, "at most 1"),
    (HardwareConfig, "devices", 0, "at least 1, or -1"),
    (HardwareConfig, "devices", -2, "at least -1"),
    (HardwareConfig, "num_nodes", 0, "at least 1"),
    (HardwareConfig, "strategy", 1, "text"),
    (HardwareConfig, "precision", "64", "32, 16, bf16"),
    (HardwareConfig, "num_workers", -1, "at least 0"),
    (RunConfig, "checkpoint_every_n_steps", 0, "at least 1"),
    (RunConfig, "sharpen_steps", -1, "at least 0"),
    (RunConfig, "seed", -1, "at least 0"),
    (RunConfig, "seed", 2**63, "at most"),
]


@pytest.mark.parametrize(("group", "name", "value", "words"), REFUSED)
def test_refused_value(group, name, value, words):
    with pytest.raises(EarTeachError) as caught:
        group(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"--{name.replace('_', '-')} ")
    assert str(value) in message
    assert words in message


def test_every_bound_is_tested():
    bounded = {
        option.name
        for _, option, _ in TrainConfig().options()
        if any(v is not None for v in (option.at_least, option.above, option.at_most))
    }
    assert bounded <= {name for _, name, _, _ in REFUSED}


def test_groups_share_no_option_name():
    names = [option.name for _, option, _ in TrainConfig().options()]
    assert len(names) == len(set(names))


CHANGED = TrainConfig(
    data=DataConfig(train_data=Path("a.npy"), layout="nchw"),
    model=ModelConfig(in_channels=1, image_size=64),
    optim=OptimConfig(epochs=3, learning_rate=1e-3),
    kld=KLDConfig(kld_anneal_epochs=2),
    hardware=HardwareConfig(precision="bf16"),
    run=RunConfig(seed=7),
)


@pytest.mark.parametrize("config", [TrainConfig(), CHANGED])
def test_a_configuration_survives_json(config):
    # Safe loading of a checkpoint allows builtin types only; JSON knows no others.
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optim": None}, "another version"),
        ({"optim": {**OptimConfig().to_dict(), "momentum": 1}}, "another version"),
        ({"optim": {**OptimConfig().to_dict(), "epochs": 0}}, "--epochs 0"),
        ({"kld": {"weight": 1}}, "another version"),
        ({"kld": {"we\night": 1}}, "unexpected keyword argument 'we ight'"),
    ],
)
def test_a_broken_configuration_is_a_users_problem(change, words):
    with pytest.raises(EarTeachError, match=words):
        TrainConfig.from_dict({**TrainConfig().to_dict(), **change})


def test_with_options_changes_only_those():
    config = CHANGED.with_options({"epochs": 9, "precision": "16"})
    assert (config.optim.epochs, config.hardware.precision) == (9, "16")
    assert config.with_options({"epochs": 3, "precision": "bf16"}) == CHANGED


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 0}, "--epochs 0: must be at least 1"),
        ({"epoch": 10}, "epoch: is not a training option"),
        ({"latent_dim": 1}, r"--latent-dim 1: .* --no-pca-init"),
    ],
)
def test_with_options_checks_them(options, words):
    with pytest.raises(EarTeachError, match=words):
        TrainConfig().with_options(options)


@pytest.mark.parametrize(
    ("options", "peak"),
    [({}, 2e-3), ({"lr_schedule": "plateau"}, 1e-4), ({"learning_rate": 0.5}, 0.5),
     ({"learning_rate": 0.5, "lr_schedule": "plateau"}, 0.5)],
)  # fmt: skip
def test_the_learning_rate_is_the_peak(options, peak):
    assert OptimConfig(**options).peak_learning_rate == peak


@pytest.mark.parametrize(
    ("schedule", "rate", "lr_peak", "peak"),
    [("cosine", 1e-4, 20.0, 2e-3), ("cosine", 1e-3, 4.0, 4e-3), ("plateau", 1e-4, 20.0, 1e-4)],
)
def test_a_configuration_of_version_1_0_keeps_its_rates(schedule, rate, lr_peak, peak):
    optim = {**OptimConfig(lr_schedule=schedule, learning_rate=rate).to_dict(), "lr_peak": lr_peak}
    config = TrainConfig.from_dict({**TrainConfig().to_dict(), "optim": optim})
    assert config.optim.peak_learning_rate == peak


TOML = [
    ("", {}),
    ("epochs = 3", {"epochs": 3}),
    ("learning_rate = 1", {"learning_rate": 1.0}),
    ("learning_rate = 1e-3\nseed = 7 # a comment", {"learning_rate": 1e-3, "seed": 7}),
    ("precision = 32", {"precision": "32"}),
    ("precision = 'bf16'", {"precision": "bf16"}),
    ("train_data = 'ä/b.npy'", {"train_data": Path("ä/b.npy")}),
    ("lr_peak = 5", {"learning_rate": 5e-4}),
    ("lr_peak = 5\nlearning_rate = 1e-3", {"learning_rate": 5e-3}),
]


@pytest.mark.parametrize(("text", "values"), TOML)
def test_toml(tmp_path, caplog, text, values):
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    caplog.set_level("INFO", "earteach")
    assert read_toml(tmp_path / "run.toml") == values
    assert [f"use --learning-rate {values['learning_rate']:g}" in m for m in caplog.messages] == (
        [True] if "lr_peak" in text else []
    )


BAD_TOML = [
    ("epochs = 2.5", "--epochs 2.5: must be a whole number"),
    ("epochs = [3]", "--epochs [3]: must be a whole number"),
    ("seed = 1979-05-27", "must be a whole number"),
    ("learning_rate = 'fast'", "--learning-rate 'fast': must be a number"),
    ("learning_rate = 1" + 400 * "0", "must be at most 10"),  # more than a float holds
    ("lr_peak = 1001", "--lr-peak 1001.0: must be at most 1000"),
    ("momentum = 0.9", "unknown key 'momentum'"),
    ("residual_input = true", "unknown key 'residual_input'"),  # only checkpoints have it
    ("optim.epochs = 3", "section [optim]"),
    ("epochs = ", "not TOML"),
    ("epochs = 3\nepochs = 4", "not TOML"),
]


@pytest.mark.parametrize(("text", "words"), BAD_TOML)
def test_bad_toml(tmp_path, text, words):
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(EarTeachError) as caught:
        read_toml(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("16-mixed", "16"),
        ("bf16-mixed", "bf16"),
        ("32-true", "32"),
        ("fp32", "32"),
        ("bfloat16", "bf16"),
    ],
)
def test_a_precision_may_be_called_as_elsewhere(name, means):
    assert HardwareConfig(precision=name).precision == means
    assert InferenceConfig(precision=name).precision == means


@pytest.mark.parametrize("name", ["16-true", "bf16-true", "64-true"])
def test_a_precision_that_means_something_else_is_refused(name):
    with pytest.raises(EarTeachError, match="must be one of 32, 16, bf16"):
        HardwareConfig(precision=name)


def test_toml_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "c.toml").write_text("epochs = 7\n", encoding="utf-8-sig")
    assert read_toml(tmp_path / "c.toml")["epochs"] == 7
