"""Checkpoints: nothing in one can run, none is half written, and errors are one line."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import earteach
from earteach import checkpoint
from earteach.config import TrainConfig
from earteach.errors import EarTeachError
from tests.bad_input.files import torch_saved
from tests.conftest import files_of_at_most


def error_of(path: Path, read: Callable[[Path], Any] = checkpoint.read) -> str:
    """The one line that reading `path` is refused with."""
    with pytest.raises(EarTeachError) as caught:
        read(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


class Plain:
    """An ordinary object; loading it would import and build it."""


def test_objects_are_refused(tmp_path):
    path = tmp_path / "object.ckpt"
    path.write_bytes(torch_saved({"earteach": {}, "state_dict": {"a": Plain()}}))
    assert "more than tensors and plain values" in error_of(path)


def test_a_missing_file_and_a_folder(trained, tmp_path):
    assert "no such checkpoint; `earteach train` writes one" in error_of(tmp_path / "none.ckpt")
    assert "is a folder" in error_of(trained.checkpoints)


@pytest.mark.parametrize(("version", "words"), [(5, "newer than this"), (2, "train again with")])
def test_other_formats_are_refused(trained, tmp_path, version, words):
    state = torch.load(trained.last, weights_only=True)
    state["earteach"]["format"] = version
    checkpoint.write(state, tmp_path / "x.ckpt")
    assert words in error_of(tmp_path / "x.ckpt")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_weights_of_another_precision_become_float32(trained, tmp_path, dtype):
    state = torch.load(trained.last, weights_only=True)
    state["state_dict"] = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in state["state_dict"].items()
    }
    torch.save(state, tmp_path / "x.ckpt")
    network = checkpoint.load(tmp_path / "x.ckpt")
    image = torch.rand(1, 3, network.image_size, network.image_size)
    torch.testing.assert_close(
        network.reconstruct(image),
        checkpoint.load(trained.last).reconstruct(image),
        atol=0.02,
        rtol=0,
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(trained, tmp_path, value):
    state = torch.load(trained.last, weights_only=True)
    name = next(name for name in state["state_dict"] if name.endswith("weight"))
    for prefix in ("model.", "averaged."):
        state["state_dict"][prefix + name.partition(".")[2]].flatten()[0] = value
    torch.save(state, tmp_path / "x.ckpt")
    assert "holds NaN or infinite weights" in error_of(tmp_path / "x.ckpt", checkpoint.load)


def test_a_value_without_end_is_shown_in_short(trained, tmp_path):
    state = torch.load(trained.last, weights_only=True)
    endless: list[Any] = []
    for _ in range(60):  # its text would have 2^60 parts
        endless = [endless, endless]
    for option, group in (("image_size", "model"), ("augmentation", "data")):
        state["earteach"]["config"][group][option] = endless
        torch.save(state, tmp_path / "x.ckpt")
        assert len(error_of(tmp_path / "x.ckpt")) < 1000


BUILTIN = (dict, list, tuple, str, int, float, bool, type(None), torch.Tensor)


def foreign_types(value: Any, where: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from foreign_types(key, f"{where} key")
            yield from foreign_types(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from foreign_types(inner, f"{where}[{index}]")
    # torch and Lightning keep weights in an OrderedDict; nothing else may be a mere subclass.
    if type(value) not in BUILTIN and type(value).__name__ != "OrderedDict":
        yield f"{where}: {type(value)}"


def test_training_writes_builtin_types_only(trained):
    paths = sorted(trained.checkpoints.glob("*.ckpt"))
    assert len(paths) == 3
    for path in paths:
        # Unsafe loading, which reads whatever the file holds.
        assert list(foreign_types(torch.load(path, weights_only=False))) == []


def test_training_writes_what_can_be_read(trained):
    assert str(checkpoint.best(trained.checkpoints)) == trained.result["best"]["loss"]["path"]
    read = checkpoint.read(trained.last)
    assert read.epochs_completed == trained.result["epochs_completed"] == 4
    assert read.global_step == trained.result["global_step"]
    assert (read.config.model.image_size, read.config.model.latent_dim) == (32, 16)
    model = read.model()
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    weights = read.state["state_dict"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[f"averaged.{name}"]), name
    # The average is not the last step's network; what is not trained is the same in both.
    differing = {
        n for n, v in model.state_dict().items() if not torch.equal(v, weights[f"model.{n}"])
    }
    assert differing == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["best-epoch=002-loss=0.1.ckpt", "best-epoch=010-loss=0.2.ckpt"], 1),
        (["best-epoch=999-loss=0.1.ckpt", "best-epoch=1000-loss=0.1.ckpt"], 1),
        (["best-epoch=2-loss=0.1.ckpt", "best-epoch=10-loss=0.1.ckpt", "best-of-all.ckpt"], 1),
        (["best-epoch=001-loss=0.1.ckpt", "best-ssim-epoch=900-ssim=0.9.ckpt", "last.ckpt"], 0),
        (["best-epoch=003-loss=0.1.ckpt", ".best-epoch=009-loss=0.1.ckpt.12.partial"], 0),
    ],
)
def test_the_best_is_the_latest_epoch_by_loss(tmp_path, names, chosen):
    for name in names:
        (tmp_path / name).touch()
    assert checkpoint.best(tmp_path).name == names[chosen]


def test_names(tmp_path):
    assert checkpoint.best_loss_name(12, 0.001234) == "best-epoch=012-loss=0.001234.ckpt"
    assert checkpoint.best_ssim_name(12, 0.81234) == "best-ssim-epoch=012-ssim=0.8123.ckpt"
    (tmp_path / checkpoint.best_ssim_name(3, 0.5)).touch()
    assert "holds no best-epoch" in error_of(tmp_path, earteach.load)
    assert "holds no last.ckpt" in error_of(tmp_path, checkpoint.last)
    (tmp_path / "last.ckpt").touch()
    assert checkpoint.last(tmp_path) == tmp_path / "last.ckpt"


def test_write_makes_the_folder_and_leaves_nothing_beside_the_file(tmp_path):
    path = tmp_path / "a" / "b" / "x.ckpt"
    for value in (1.5, 2.5):
        checkpoint.write({"value": value}, path)
        assert torch.load(path, weights_only=True) == {"value": value}
        assert list(path.parent.iterdir()) == [path]
    assert "is a file; name a folder" in error_of(
        path, lambda path: checkpoint.write({}, path / "last.ckpt")
    )


@pytest.mark.parametrize("reported_by_torch", [True, False])
def test_a_full_disk_is_one_line_and_keeps_the_old_file(tmp_path, monkeypatch, reported_by_torch):
    path = tmp_path / "last.ckpt"
    checkpoint.write({"weights": torch.zeros(10)}, path)

    def fail(state: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    if reported_by_torch:
        monkeypatch.setattr(torch, "save", fail)
    with files_of_at_most(100_000):
        error = error_of(path, lambda path: checkpoint.write({"w": torch.rand(1_000_000)}, path))
    assert "the disk is full; free space, then `earteach resume" in error
    assert torch.load(path, weights_only=True)["weights"].tolist() == [0] * 10
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("links", [True, False])
def test_another_name_outlives_changes_of_the_first(tmp_path, monkeypatch, links):
    def refused(path: Path, target: Path) -> None:
        raise OSError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refused)
    best, last = tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    checkpoint.write({"epoch": 0}, last)
    checkpoint.write({"epoch": 1}, best)
    checkpoint.name_again(best, last)
    assert best.samefile(last) == links
    assert torch.load(last, weights_only=True) == {"epoch": 1}
    checkpoint.write({"epoch": 2}, last)
    assert torch.load(best, weights_only=True) == {"epoch": 1}
    assert sorted(tmp_path.iterdir()) == [best, last]


OTHER_VALUES = {
    "layout": "nhwc", "augmentation": "full", "target": "clean", "in_channels": 1,
    "kld_reduction": "sum", "kld_anneal_strategy": "linear", "kld_anneal_epochs": 3,
    "accelerator": "cpu", "precision": "bf16", "strategy": "ddp", "checkpoint_every_n_steps": 7,
    "gradient_clip": 0.5, "image_size": 64, "train_data": Path("a.npy"), "val_data": Path("b.npy"),
    "checkpoint_dir": Path("c"), "log_dir": Path("d"), "kld_anneal_ratio": 0.25,
    "kld_anneal_start": 0.5, "kld_anneal_end": 0.5, "learning_rate": 0.5, "pca_init": False,
    "residual_input": True,
    "lr_schedule": "plateau", "ema_decay": 0.5, "encoder": "mobile", "sharpen_steps": 7,
}  # fmt: skip
IRRELEVANT = {
    "accelerator", "devices", "num_nodes", "strategy", "precision", "num_workers",
    "checkpoint_dir", "log_dir", "checkpoint_every_n_steps", "sharpen_steps",
}  # fmt: skip


def test_an_unset_learning_rate_is_that_of_its_schedule():
    given = TrainConfig().with_options({"learning_rate": 2e-3})
    assert checkpoint.differences(TrainConfig(), given) == {}


def test_differences_are_the_options_that_decide_what_is_computed():
    old = TrainConfig()
    assert checkpoint.differences(old, old) == {}
    changes, expected = {}, {}
    for _, option, value in old.options():
        other = OTHER_VALUES.get(option.name, value + 1 if isinstance(value, int | float) else None)
        assert other is not None, f"give {option.name} another value in OTHER_VALUES"
        assert other != value
        changes[option.name] = other
        if option.name not in IRRELEVANT:
            expected[option.name] = (old.resolved_options()[option.name], other)
    assert checkpoint.differences(old, old.with_options(changes)) == expected
