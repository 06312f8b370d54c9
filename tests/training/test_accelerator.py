"""What a run on a GPU is built of; nothing here needs one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from torch.utils._python_dispatch import TorchDispatchMode

from earteach.config import TrainConfig
from earteach.data.arrays import EarArray
from earteach.data.loaders import training_loader
from earteach.training.lightning_module import EarVAELightning
from earteach.training.trainer import make_trainer

pytestmark = pytest.mark.usefixtures("bf16_everywhere")

TINY = {"image_size": 32, "base_channels": 8, "latent_dim": 16, "num_workers": 0}


def configured(folder: Path, **options: Any) -> TrainConfig:
    run = {"checkpoint_dir": folder / "checkpoints", "log_dir": folder / "logs"}
    return TrainConfig().with_options({**TINY, "accelerator": "cpu", **run, **options})


def trainer_of(folder: Path, **options: Any) -> Any:
    config = configured(folder, **options)
    return make_trainer(config, [], purge_step=0, fast_dev_run=True)


def module_of(folder: Path, device: str = "cpu", precision: str = "32-true") -> EarVAELightning:
    module = EarVAELightning(configured(folder).to_dict())
    module.trainer = SimpleNamespace(  # type: ignore[assignment]
        current_epoch=0, global_step=0, global_rank=0, precision=precision,
        strategy=SimpleNamespace(root_device=torch.device(device)),
        datamodule=SimpleNamespace(steps_per_epoch=lambda: 5),
    )  # fmt: skip
    return module


@pytest.mark.parametrize(
    ("precision", "plugin", "dtype"),
    [("32", Precision, None), ("bf16", MixedPrecision, torch.bfloat16)],
)
def test_a_precision_is_its_plugin(tmp_path, precision, plugin, dtype):
    found = trainer_of(tmp_path, precision=precision).strategy.precision_plugin
    assert type(found) is plugin
    with found.forward_context():
        assert torch.is_autocast_enabled("cpu") == (dtype is not None)
        assert dtype is None or torch.get_autocast_dtype("cpu") is dtype


def test_convolutions_are_searched_for_and_products_stay_exact(tmp_path):
    trainer_of(tmp_path)
    assert torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(("device", "order"), [("cuda", True), ("cpu", False)])
def test_weights_lie_as_tensor_cores_take_them(tmp_path, device, order):
    module = module_of(tmp_path, device)
    module.setup("fit")
    for network in (module.model, module.averaged):
        weight = network.encoder.blocks[0][0].weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == order


@pytest.mark.parametrize(("precision", "fused"), [("bf16-mixed", True), ("16-mixed", False)])
def test_the_step_is_fused_where_gradients_are_not_scaled(tmp_path, precision, fused):
    optimizer = module_of(tmp_path, precision=precision).configure_optimizers()["optimizer"]
    assert optimizer.defaults["fused"] == fused


class Waits(TorchDispatchMode):
    """Notes every value that is taken from a tensor to Python, which waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


def test_a_step_does_not_wait_for_the_device(ears, tmp_path):
    config = configured(tmp_path, batch_size=4)
    batch = next(iter(training_loader(config, EarArray.open(ears / "train_teacher.npy"))))
    assert batch["input"].dtype == batch["target"].dtype == torch.uint8  # floats on the device
    module = module_of(tmp_path)
    optimizer = module.configure_optimizers()["optimizer"]
    with Waits() as waits:
        module.training_step(batch, 0).backward()
        module.configure_gradient_clipping(optimizer, 1.0)
        optimizer.step()
    assert waits.seen == []
