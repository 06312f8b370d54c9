"""Options: their defaults, their checks, and TOML files of them."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from earteach.config import (
    GROUPS,
    DataConfig,
    HardwareConfig,
    KLDConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
    read_toml,
)
from earteach.errors import EarTeachError

# Written down here once more: the defaults are a promise to those who rely on them.
DEFAULTS = {
    "train_data": Path("data/preprocessed/train_teacher.npy"),
    "val_data": Path("data/preprocessed/val_teacher.npy"),
    "in_channels": 3,
    "latent_dim": 256,
    "base_channels": 64,
    "image_size": 256,
    "epochs": 200,
    "batch_size": 32,
    "learning_rate": 1e-4,
    "weight_decay": 1e-5,
    "gradient_clip": 1.0,
    "patience": 30,
    "kld_weight": 0.00025,
    "kld_reduction": "mean",
    "kld_anneal_strategy": "cyclic",
    "kld_anneal_cycles": 4,
    "kld_anneal_ratio": 0.5,
    "kld_anneal_start": 0.0,
    "kld_anneal_end": 1.0,
    "accelerator": "auto",
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
    "precision": "32",
    "num_workers": 4,
    "checkpoint_dir": Path("checkpoints"),
    "log_dir": Path("logs"),
    "seed": 42,
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_default(name: str) -> None:
    found = {option.name: value for _, option, value in TrainConfig().options()}
    assert found[name] == DEFAULTS[name]
    assert type(found[name]) is type(DEFAULTS[name]) or isinstance(found[name], Path)


ACCEPTED: list[tuple[type, str, Any, Any]] = [
    (OptimConfig, "learning_rate", 1, 1.0),
    (OptimConfig, "weight_decay", 0, 0.0),
    (OptimConfig, "gradient_clip", 0, 0.0),
    (OptimConfig, "epochs", 1, 1),
    (ModelConfig, "in_channels", 1, 1),
    (ModelConfig, "image_size", 32, 32),
    (ModelConfig, "image_size", 48, 48),
    (KLDConfig, "kld_weight", 0, 0.0),
    (KLDConfig, "kld_anneal_ratio", 1, 1.0),
    (KLDConfig, "kld_anneal_epochs", None, None),
    (HardwareConfig, "precision", 16, "16"),
    (HardwareConfig, "devices", -1, -1),
    (HardwareConfig, "num_workers", 0, 0),
    (DataConfig, "train_data", "a.npy", Path("a.npy")),
    (DataConfig, "layout", None, None),
    (RunConfig, "seed", 2**63 - 1, 2**63 - 1),
]


@pytest.mark.parametrize(("group", "name", "value", "kept"), ACCEPTED)
def test_value_is_accepted(group: Any, name: str, value: Any, kept: Any) -> None:
    found = getattr(group(**{name: value}), name)
    assert found == kept
    assert type(found) is type(kept)


REFUSED: list[tuple[type, str, Any, str]] = [
    (DataConfig, "train_data", 3, "a path"),
    (DataConfig, "layout", "hwc", "nhwc, nchw, nhw"),
    (DataConfig, "augmentation", "heavy", "none, light, full"),
    (DataConfig, "target", "dirty", "clean, augmented"),
    (ModelConfig, "in_channels", 2, "one of 1, 3"),
    (ModelConfig, "latent_dim", 0, "at least 1"),
    (ModelConfig, "base_channels", 0, "at least 1"),
    (ModelConfig, "image_size", 16, "at least 32"),
    (ModelConfig, "image_size", 100, "multiple of 16"),
    (ModelConfig, "encoder", "large", "attention, mobile"),
    (OptimConfig, "epochs", 0, "at least 1"),
    (OptimConfig, "epochs", 2.5, "a whole number"),
    (OptimConfig, "epochs", True, "a whole number"),
    (OptimConfig, "epochs", None, "a whole number"),
    (OptimConfig, "batch_size", -1, "at least 1"),
    (OptimConfig, "learning_rate", 0.0, "greater than 0"),
    (OptimConfig, "learning_rate", 11.0, "at most 10"),
    (OptimConfig, "learning_rate", math.nan, "greater than 0"),
    (OptimConfig, "learning_rate", math.inf, "at most 10"),
    (OptimConfig, "learning_rate", "fast", "a number"),
    (OptimConfig, "weight_decay", -1e-9, "at least 0"),
    (ModelConfig, "pca_init", 1, "true or false"),
    (OptimConfig, "ssim_weight", -0.1, "at least 0"),
    (OptimConfig, "lr_schedule", "step", "cosine, plateau"),
    (OptimConfig, "lr_peak", 0.0, "greater than 0"),
    (OptimConfig, "lr_peak", 1001.0, "at most 1000"),
    (OptimConfig, "lr_warmup_steps", -1, "at least 0"),
    (OptimConfig, "lr_warmup_steps", 2.5, "a whole number"),
    (OptimConfig, "ema_decay", -0.1, "at least 0"),
    (OptimConfig, "ema_decay", 1.0, "at most 0.99999"),
    (OptimConfig, "gradient_clip", math.nan, "at least 0"),
    (OptimConfig, "gradient_clip", True, "a number"),
    (OptimConfig, "patience", 0, "at least 1"),
    (KLDConfig, "kld_weight", -1.0, "at least 0"),
    (KLDConfig, "kld_reduction", "max", "mean, sum"),
    (KLDConfig, "kld_anneal_strategy", "step", "cyclic, linear, monotonic"),
    (KLDConfig, "kld_anneal_cycles", 0, "at least 1"),
    (KLDConfig, "kld_anneal_ratio", 0.0, "greater than 0"),
    (KLDConfig, "kld_anneal_ratio", 1.5, "at most 1"),
    (KLDConfig, "kld_anneal_epochs", 0, "at least 1"),
    (KLDConfig, "kld_anneal_start", -0.1, "at least 0"),
    (KLDConfig, "kld_anneal_end", 1.1, "at most 1"),
    (HardwareConfig, "accelerator", "npu", "auto, gpu, cpu, tpu"),
    (HardwareConfig, "devices", 0, "at least 1, or -1"),
    (HardwareConfig, "devices", -2, "at least -1"),
    (HardwareConfig, "num_nodes", 0, "at least 1"),
    (HardwareConfig, "strategy", 1, "text"),
    (HardwareConfig, "precision", "64", "32, 16, bf16"),
    (HardwareConfig, "num_workers", -1, "at least 0"),
    (RunConfig, "checkpoint_every_n_steps", 0, "at least 1"),
    (RunConfig, "seed", -1, "at least 0"),
    (RunConfig, "seed", 2**63, "at most"),
]


@pytest.mark.parametrize(("group", "name", "value", "words"), REFUSED)
def test_value_is_refused_by_name(group: Any, name: str, value: Any, words: str) -> None:
    with pytest.raises(EarTeachError) as caught:
        group(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"--{name.replace('_', '-')} ")
    assert str(value) in message
    assert words in message


def test_every_option_with_a_bound_is_refused_outside_it() -> None:
    bounded = {
        option.name
        for _, option, _ in TrainConfig().options()
        if any(v is not None for v in (option.opt.at_least, option.opt.above, option.opt.at_most))
    }
    assert bounded <= {name for _, name, _, _ in REFUSED}


def test_no_two_groups_share_an_option() -> None:
    names = [option.name for _, option, _ in TrainConfig().options()]
    assert len(names) == len(set(names))


def test_options_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().optim.epochs = 3  # type: ignore[misc]


def changed() -> TrainConfig:
    return TrainConfig(
        data=DataConfig(train_data=Path("a.npy"), layout="nchw"),
        model=ModelConfig(in_channels=1, image_size=64),
        optim=OptimConfig(epochs=3),
        kld=KLDConfig(kld_anneal_epochs=2),
        hardware=HardwareConfig(precision="bf16"),
        run=RunConfig(seed=7),
    )


@pytest.mark.parametrize("config", [TrainConfig(), changed()])
def test_a_configuration_survives_json(config: TrainConfig) -> None:
    # Safe loading of a checkpoint allows builtin types only; JSON knows no others.
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


BROKEN: list[dict[str, Any]] = [
    {"optim": None},
    {"optim": {**OptimConfig().to_dict(), "momentum": 1}},
    {"optim": {**OptimConfig().to_dict(), "epochs": 0}},
]


@pytest.mark.parametrize("change", BROKEN)
def test_a_broken_configuration_is_the_users_to_fix(change: dict[str, Any]) -> None:
    with pytest.raises(EarTeachError):
        TrainConfig.from_dict({**TrainConfig().to_dict(), **change})


def test_a_configuration_without_a_group_is_the_users_to_fix() -> None:
    values = TrainConfig().to_dict()
    del values["kld"]
    with pytest.raises(EarTeachError, match="another version"):
        TrainConfig.from_dict(values)


def test_changing_options_leaves_the_others() -> None:
    config = changed().with_options({"epochs": 9, "precision": "16"})
    assert (config.optim.epochs, config.hardware.precision) == (9, "16")
    assert config.with_options({"epochs": 3, "precision": "bf16"}) == changed()


def test_changed_options_are_checked() -> None:
    with pytest.raises(EarTeachError, match="--epochs 0: must be at least 1"):
        TrainConfig().with_options({"epochs": 0})


def test_groups_are_those_of_a_configuration() -> None:
    assert list(GROUPS) == [field.name for field in dataclasses.fields(TrainConfig)]


TOML: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ("epochs = 3", {"epochs": 3}),
    ("learning_rate = 1", {"learning_rate": 1.0}),
    ("learning_rate = 1e-3\nseed = 7 # a comment", {"learning_rate": 1e-3, "seed": 7}),
    ("precision = 32", {"precision": "32"}),
    ("precision = 'bf16'", {"precision": "bf16"}),
    ("train_data = 'ä/b.npy'", {"train_data": Path("ä/b.npy")}),
]


@pytest.mark.parametrize(("text", "values"), TOML)
def test_toml_gives_the_options_it_names(
    tmp_path: Path, text: str, values: dict[str, object]
) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    assert read_toml(path) == values


BAD_TOML = [
    ("epochs = 2.5", "--epochs 2.5: must be a whole number"),
    ("epochs = true", "--epochs True: must be a whole number"),
    ("epochs = '3'", "--epochs '3': must be a whole number"),
    ("epochs = [3]", "--epochs [3]: must be a whole number"),
    ("seed = 1979-05-27", "must be a whole number"),
    ("learning_rate = 'fast'", "--learning-rate 'fast': must be a number"),
    ("learning_rate = true", "--learning-rate True: must be a number"),
    ("train_data = 3", "--train-data 3: must be a path"),
    ("precision = 64", "--precision 64: must be one of 32, 16, bf16"),
    ("precision = true", "--precision True: must be one of 32, 16, bf16"),
    ("strategy = 2", "--strategy 2: must be text"),
    ("momentum = 0.9", "unknown key 'momentum'"),
    ("batch-size = 8", "unknown key 'batch-size'"),
    ("fresh = true", "unknown key 'fresh'"),
    ("[optim]\nepochs = 3", "section [optim]"),
    ("optim.epochs = 3", "section [optim]"),
    ("epochs = ", "not TOML"),
    ("epochs = 3\nepochs = 4", "not TOML"),
]


@pytest.mark.parametrize(("text", "words"), BAD_TOML)
def test_bad_toml_is_refused_by_file_and_reason(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(EarTeachError) as caught:
        read_toml(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_a_file_that_is_not_text_is_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EarTeachError, match="not TOML"):
        read_toml(path)


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_toml_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(EarTeachError, match="name a readable file"):
        read_toml(tmp_path / name)


def test_a_code_that_is_the_side_alone_is_refused() -> None:
    with pytest.raises(EarTeachError, match=r"--latent-dim 1: .* --no-pca-init"):
        ModelConfig(latent_dim=1)
    assert ModelConfig(latent_dim=1, pca_init=False).latent_dim == 1


def test_a_number_that_no_float_holds_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "options.toml"
    path.write_text("learning_rate = 1" + 400 * "0")
    with pytest.raises(EarTeachError, match="must be at most 10"):
        read_toml(path)


def test_an_option_that_is_none_is_not_passed_over() -> None:
    with pytest.raises(EarTeachError, match="epoch: is no option of training"):
        TrainConfig().with_options({"epoch": 10})
