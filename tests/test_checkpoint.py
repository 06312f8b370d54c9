"""Checkpoints: nothing in one can run, none is half written, and what is wrong is said in a line."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import earteach
from earteach import checkpoint
from earteach.config import TrainConfig
from earteach.errors import EarTeachError
from tests.bad_input.files import torch_saved
from tests.conftest import Run, files_of_at_most


def complaint(path: Path, read: Callable[[Path], Any] = checkpoint.read) -> str:
    """The one line that reading `path` is refused with."""
    with pytest.raises(EarTeachError) as caught:
        read(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


class Plain:
    """An ordinary object; loading it would import and build it."""


def test_objects_are_named_as_what_was_refused(tmp_path):
    path = tmp_path / "object.ckpt"
    path.write_bytes(torch_saved({"earteach": {}, "state_dict": {"a": Plain()}}))
    assert "more than tensors and plain values" in complaint(path)


def test_a_missing_file_and_a_folder(trained, tmp_path):
    assert "no such checkpoint; `earteach train` writes one" in complaint(tmp_path / "none.ckpt")
    assert "is a folder" in complaint(trained.checkpoints)
    assert "holds no best-epoch" in complaint(tmp_path, earteach.load)


BUILTIN = (dict, list, tuple, str, int, float, bool, type(None), torch.Tensor)


def foreign_types(value: Any, where: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from foreign_types(key, f"{where} key")
            yield from foreign_types(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from foreign_types(inner, f"{where}[{place}]")
    # torch and Lightning keep weights in an OrderedDict; nothing else may be a mere subclass.
    if type(value) not in BUILTIN and type(value).__name__ != "OrderedDict":
        yield f"{where}: {type(value)}"


def test_training_writes_builtin_types_only(trained):
    paths = sorted(trained.checkpoints.glob("*.ckpt"))
    assert len(paths) == 3
    for path in paths:
        # Without care, so that whatever the file holds is seen.
        assert list(foreign_types(torch.load(path, weights_only=False))) == []


def test_what_training_wrote_can_be_read(trained):
    found = checkpoint.read(trained.last)
    assert found.epochs_completed == trained.result["epochs_completed"] == 4
    assert found.global_step == trained.result["global_step"]
    assert (found.config.model.image_size, found.config.model.latent_dim) == (32, 16)
    model = found.model()
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    weights = found.state["state_dict"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[f"averaged.{name}"]), name
        assert f"model.{name}" in weights
    # The average is not the last step's network; what is not trained is the same in both.
    differing = [
        n for n, v in model.state_dict().items() if not torch.equal(v, weights[f"model.{n}"])
    ]
    assert set(differing) == {name for name, _ in model.named_parameters()}


def test_of_a_run_without_averages_the_trained_network_is_read(trained, tmp_path):
    state = torch.load(trained.last, weights_only=True)
    weights = {n: v for n, v in state["state_dict"].items() if not n.startswith("averaged.")}
    checkpoint.write({**state, "state_dict": weights}, tmp_path / "x.ckpt")
    for name, value in earteach.load(tmp_path / "x.ckpt").state_dict().items():
        assert torch.equal(value, weights[f"model.{name}"]), name


def test_a_folder_stands_for_its_best_checkpoint(trained):
    best = trained.result["best"]["loss"]["path"]
    assert str(checkpoint.best(trained.checkpoints)) == best
    images = torch.rand(2, 3, 32, 32)
    by_folder, by_file = (
        earteach.load(path).reconstruct(images) for path in (str(trained.checkpoints), best)
    )
    assert torch.equal(by_folder, by_file)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["best-epoch=002-loss=0.1.ckpt", "best-epoch=010-loss=0.2.ckpt"], 1),
        (["best-epoch=999-loss=0.1.ckpt", "best-epoch=1000-loss=0.1.ckpt"], 1),
        (["best-epoch=001-loss=0.1.ckpt", "best-ssim-epoch=900-ssim=0.9.ckpt", "last.ckpt"], 0),
        (["best-epoch=003-loss=0.1.ckpt", ".best-epoch=009-loss=0.1.ckpt.12.partial"], 0),
    ],
)
def test_the_best_is_the_latest_epoch_by_loss(tmp_path, names, chosen):
    for name in names:
        (tmp_path / name).touch()
    assert checkpoint.best(tmp_path).name == names[chosen]


def test_epochs_are_compared_as_numbers(tmp_path):
    for epochs in ((2, 10), (999, 1000, 99), (7, 1, 3, 4, 5, 6, 0, 2)):
        folder = tmp_path / str(len(epochs))
        folder.mkdir()
        for epoch in epochs:
            (folder / f"best-epoch={epoch}-loss=0.1.ckpt").touch()
        (folder / "best-of-all.ckpt").touch()  # someone's own
        assert checkpoint.best(folder).name == f"best-epoch={max(epochs)}-loss=0.1.ckpt"


def test_without_a_best_or_a_last_the_folder_is_named(tmp_path):
    (tmp_path / checkpoint.best_ssim_name(3, 0.5)).touch()
    assert "holds no best-epoch" in complaint(tmp_path, checkpoint.best)
    assert "holds no last.ckpt" in complaint(tmp_path, checkpoint.last)
    (tmp_path / "last.ckpt").touch()
    assert checkpoint.last(tmp_path) == tmp_path / "last.ckpt"


def test_names_are_those_of_the_design():
    assert checkpoint.best_loss_name(12, 0.001234) == "best-epoch=012-loss=0.001234.ckpt"
    assert checkpoint.best_ssim_name(12, 0.81234) == "best-ssim-epoch=012-ssim=0.8123.ckpt"


def test_write_makes_the_folder_and_leaves_nothing_beside_the_file(tmp_path):
    path = tmp_path / "a" / "b" / "x.ckpt"
    for value in (1.5, 2.5):
        checkpoint.write({"value": value}, path)
        assert torch.load(path, weights_only=True) == {"value": value}
        assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_as_torch_reports_it(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"old")

    def fail(state: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(EarTeachError, match="the disk is full; free space, then `earteach resume"):
        checkpoint.write({}, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "last.ckpt"
    checkpoint.write({"weights": torch.zeros(10)}, path)
    with pytest.raises(EarTeachError) as caught, files_of_at_most(100_000):
        checkpoint.write({"weights": torch.rand(1_000_000)}, path)
    assert "the disk is full; free space, then `earteach resume" in str(caught.value)
    assert torch.load(path, weights_only=True)["weights"].tolist() == [0] * 10
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("links", [True, False])
def test_another_name_outlives_what_becomes_of_the_first(tmp_path, monkeypatch, links):
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


def test_a_folder_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "last.ckpt"
    with pytest.raises(EarTeachError, match="is a file; name a folder"):
        checkpoint.write({}, path)


OTHER_VALUES = {
    "layout": "nhwc", "augmentation": "full", "target": "clean", "in_channels": 1,
    "kld_reduction": "sum", "kld_anneal_strategy": "linear", "kld_anneal_epochs": 3,
    "accelerator": "cpu", "precision": "bf16", "strategy": "ddp", "checkpoint_every_n_steps": 7,
    "gradient_clip": 0.5, "image_size": 64, "train_data": Path("a.npy"), "val_data": Path("b.npy"),
    "checkpoint_dir": Path("c"), "log_dir": Path("d"), "kld_anneal_ratio": 0.25,
    "kld_anneal_start": 0.5, "kld_anneal_end": 0.5, "learning_rate": 0.5, "pca_init": False,
    "lr_schedule": "plateau", "ema_decay": 0.5, "encoder": "mobile",
}  # fmt: skip
UNDECIDING = {
    "accelerator", "devices", "num_nodes", "strategy", "precision", "num_workers",
    "checkpoint_dir", "log_dir", "checkpoint_every_n_steps",
}  # fmt: skip
OPTIONS = list(TrainConfig().resolved_options().items())


@pytest.mark.parametrize(("name", "value"), OPTIONS, ids=[name for name, _ in OPTIONS])
def test_differences_are_the_options_that_decide_what_is_computed(name, value):
    other = OTHER_VALUES.get(name, value + 1 if isinstance(value, int | float) else None)
    assert other is not None, f"give {name} another value in OTHER_VALUES"
    assert other != value
    old, new = TrainConfig(), TrainConfig().with_options({name: other})
    assert checkpoint.differences(old, old) == {}
    wanted = {} if name in UNDECIDING else {name: (value, other)}
    assert checkpoint.differences(old, new) == wanted


def test_an_unset_learning_rate_is_that_of_its_schedule():
    given = TrainConfig().with_options({"learning_rate": 2e-3})
    assert checkpoint.differences(TrainConfig(), given) == {}


def test_all_differences_are_given():
    old = TrainConfig()
    new = replace(old.with_options({"epochs": 3, "seed": 1}), hardware=old.hardware)
    assert checkpoint.differences(old, new) == {"epochs": (200, 3), "seed": (42, 1)}


def test_a_configuration_survives_its_checkpoint(tmp_path, trained: Run):
    config = TrainConfig().with_options(
        {"kld_anneal_epochs": 9, "layout": "nchw", "seed": 2**63 - 1}
    )
    weights = torch.load(trained.last, weights_only=True)["state_dict"]
    state = {"earteach": checkpoint.about(config, {}, note="x"), "state_dict": weights}
    checkpoint.write(state, tmp_path / "x.ckpt")
    found = checkpoint.read(tmp_path / "x.ckpt")
    assert found.config == config
    assert found.about["version"] == earteach.__version__
    assert found.about["note"] == "x"
