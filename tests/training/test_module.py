"""The Lightning module: what it learns from, what it logs, how its learning rate falls."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

import earteach
from earteach.config import TrainConfig
from earteach.data.randomness import training_noise, validation_noise
from earteach.errors import EarTeachError
from earteach.training.module import EarVAELightning
from tests.conftest import Run

TINY = {"image_size": 32, "base_channels": 8, "latent_dim": 16}


def lightning(**options: object) -> EarVAELightning:
    torch.manual_seed(0)
    return EarVAELightning(TrainConfig().with_options({**TINY, **options}).to_dict())


def batch_of(number: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (number, 3, 32, 32)
    given, wanted = (
        torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for _ in range(2)
    )
    return {"input": given, "target": wanted, "index": torch.arange(number)}


@pytest.fixture
def images(ears: Path) -> torch.Tensor:
    stored = np.load(ears / "val_teacher.npy").astype(np.float32) / 255
    return torch.from_numpy(stored.transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("safe", [True, None])
@pytest.mark.parametrize("name", ["last", "loss", "ssim"])
def test_a_checkpoint_loads_safely_and_reconstructs_as_load_does(trained, images, name, safe):
    path = trained.last if name == "last" else trained.result["best"][name]["path"]
    module = EarVAELightning.load_from_checkpoint(path, weights_only=safe, map_location="cpu")
    with torch.no_grad():
        assert torch.equal(module.reconstruct(images), earteach.load(path).reconstruct(images))


def test_the_calls_of_the_module(trained, images):
    module = EarVAELightning.load_from_checkpoint(trained.last).train()
    model = earteach.load(trained.last)
    with torch.no_grad():
        codes = module.encode(images)
        assert isinstance(codes, torch.Tensor)
        assert torch.equal(codes, model.encode(images)[0])
        assert torch.equal(module.decode(codes), module.reconstruct(images))
        seen = module.sample(3, torch.Generator().manual_seed(2))
        assert torch.equal(seen, model.sample(3, torch.Generator().manual_seed(2)))
        for a, b in zip(module.features(images), model.features(images), strict=True):
            assert torch.equal(a, b)
    assert all(part.training for part in module.modules())


def test_the_validation_of_a_run_is_that_of_a_second_computation(trained: Run, images):
    logged = json.loads((trained.logs / "metrics.jsonl").read_text().splitlines()[-1])["metrics"]
    model = earteach.load(trained.last)
    noise = validation_noise(42, list(range(len(images))), 16)
    with torch.no_grad():
        mu, logvar = model.encode(images)
        noisy, clean = model.decode(mu + (logvar / 2).exp() * noise), model.decode(mu)
    recon = torch.nn.functional.mse_loss(noisy, images).item()
    kld = (0.5 * (mu**2 + logvar.exp() - 1 - logvar)).sum(dim=1).mean().item()
    pairs = list(zip(clean.split(1), images.split(1), strict=True))
    wanted = {
        "val/recon_loss": recon,
        "val/kld": kld,
        "val/loss": recon + 0.00025 * kld / 16,
        "val/psnr": np.mean([peak_signal_noise_ratio(*p, data_range=1.0).item() for p in pairs]),
        "val/ssim": structural_similarity_index_measure(clean, images, data_range=1.0).item(),
    }
    assert {name: logged[name] for name in wanted} == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("reduction", "share"), [("mean", 0.5 / 16), ("sum", 0.5)]
)  # of the KLD's weight, which is 0.5 in a run of one epoch
def test_a_step_takes_the_loss_of_its_batch(monkeypatch, reduction, share):
    module = lightning(kld_weight=0.5, kld_reduction=reduction, epochs=1, seed=7)
    batch = batch_of(3)
    loss = module.training_step(batch, 0)
    given, wanted = (batch[name].float() / 255 for name in ("input", "target"))
    with torch.no_grad():
        mu, logvar = module.model.encode(given)
        noise = training_noise(7, 0, 0, (3, 16))
        decoded = module.decode(mu + (logvar / 2).exp() * noise)
    kld = (0.5 * (mu**2 + logvar.exp() - 1 - logvar)).sum(dim=1).mean().item()
    recon = ((decoded - wanted) ** 2).mean().item()
    assert loss.item() == pytest.approx(recon + share * kld, rel=1e-5)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_the_weight_of_an_epoch_is_what_training_logged(trained: Run):
    lines = map(json.loads, (trained.logs / "metrics.jsonl").read_text().splitlines())
    # Four epochs have room for two cycles of two epochs, each beginning at no weight.
    assert [line["metrics"]["train/kld_weight"] for line in lines] == [0, 0.00025, 0, 0.00025]


def test_the_optimizer_is_adamw_as_asked_for():
    module = lightning(learning_rate=3e-3, weight_decay=0.02)
    optimizer = module.configure_optimizers()["optimizer"]
    assert type(optimizer) is AdamW
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (3e-3, 0.02)
    assert {id(p) for p in group["params"]} == {id(p) for p in module.parameters()}


def test_the_learning_rate_halves_after_ten_epochs_without_a_better_loss():
    made = lightning(learning_rate=1e-2).configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert made["lr_scheduler"]["monitor"] == "val/loss"
    optimizer.step()
    rates = []
    for loss in [1.0, 0.5, *[0.6] * 22]:
        scheduler.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-2] * 12 + [5e-3] * 11 + [2.5e-3])


def validated(module: EarVAELightning, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    logged: dict[str, torch.Tensor] = {}
    optimizer = module.configure_optimizers()
    monkeypatch.setattr(module, "log_dict", lambda values, **_: logged.update(values))
    monkeypatch.setattr(module, "lr_schedulers", lambda: optimizer["lr_scheduler"]["scheduler"])
    module.trainer = type("Trainer", (), {"current_epoch": 0})()
    module.validation_step(batch_of(4), 0)
    module.on_validation_epoch_end()
    return logged


@pytest.mark.parametrize("strategy", ["cyclic", "linear", "monotonic"])
def test_validation_judges_by_the_final_weight(monkeypatch, strategy):
    # In epoch 0 each schedule is at its start, where the weight is zero.
    module = lightning(kld_weight=0.5, kld_anneal_strategy=strategy, kld_anneal_end=0.8)
    logged = validated(module, monkeypatch)
    assert module.kld_weight == 0
    wanted = logged["val/recon_loss"] + 0.8 * 0.5 * logged["val/kld"] / 16
    assert logged["val/loss"].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_metrics_in_autocast_are_those_of_float32(monkeypatch):
    """SSIM's small differences drown in bfloat16."""
    module = lightning()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logged = validated(module, monkeypatch)
        with torch.no_grad():
            images = batch_of(4)["input"].float() / 255
            seen = module.reconstruct(images)
    wanted = structural_similarity_index_measure(seen, images, data_range=1.0)
    assert logged["val/ssim"].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_a_validation_loss_that_is_no_number_stops_the_run(monkeypatch):
    module = lightning(learning_rate=5.0)
    with torch.no_grad():
        module.model.encoder.to_code.mu.bias.fill_(float("nan"))
    with pytest.raises(EarTeachError, match=r"epoch 1 is not finite.*--learning-rate than 5"):
        validated(module, monkeypatch)


def test_the_plateau_is_counted_on_the_validation_loss(trained: Run):
    (state,) = torch.load(trained.last, weights_only=True)["lr_schedulers"]
    assert isinstance(lightning().configure_optimizers()["lr_scheduler"]["scheduler"],
                      ReduceLROnPlateau)  # fmt: skip
    lines = map(json.loads, (trained.logs / "metrics.jsonl").read_text().splitlines())
    losses = [line["metrics"]["val/loss"] for line in lines]
    assert state["last_epoch"] == len(losses)  # stepped once in each epoch
    assert state["best"] == pytest.approx(min(losses), rel=1e-3)  # within its threshold
