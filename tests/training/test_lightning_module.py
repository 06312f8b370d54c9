"""The Lightning module: what it learns from, what it logs, how its learning rate falls."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

import earteach
from earteach.config import TrainConfig
from earteach.errors import EarTeachError
from earteach.randomness import training_noise, validation_noise
from earteach.training.lightning_module import EarVAELightning
from tests.conftest import TINY_RUN, Run, data_options, run_options
from tests.conftest import earteach as command

TINY = {"image_size": 32, "base_channels": 8, "latent_dim": 16}


def lightning(**options: object) -> EarVAELightning:
    torch.manual_seed(0)
    module = EarVAELightning(TrainConfig().with_options({**TINY, **options}).to_dict())
    module.trainer = SimpleNamespace(  # type: ignore[assignment]
        current_epoch=0, global_step=0, global_rank=0, precision="32-true",
        datamodule=SimpleNamespace(steps_per_epoch=lambda: 5),
    )  # fmt: skip
    return module


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


@pytest.mark.parametrize("ssim_weight", [0.0, 0.3])
@pytest.mark.parametrize(
    ("reduction", "share"), [("mean", 0.5 / 16), ("sum", 0.5)]
)  # of the KLD's weight, which is 0.5 in a run of one epoch
def test_a_step_takes_the_loss_of_its_batch(reduction, share, ssim_weight):
    module = lightning(
        kld_weight=0.5, kld_reduction=reduction, epochs=1, seed=7, ssim_weight=ssim_weight
    )
    batch = batch_of(3)
    loss = module.training_step(batch, 0)
    given, wanted = (batch[name].float() / 255 for name in ("input", "target"))
    with torch.no_grad():
        mu, logvar = module.model.encode(given)
        noise = training_noise(7, 0, 0, (3, 16))
        decoded = module.decode(mu + (logvar / 2).exp() * noise)
    kld = (0.5 * (mu**2 + logvar.exp() - 1 - logvar)).sum(dim=1).mean().item()
    recon = ((decoded - wanted) ** 2).mean().item()
    # torchmetrics takes the windows that reach over the edge too; five pixels at each side are those.
    _, maps = structural_similarity_index_measure(
        decoded, wanted, data_range=1.0, return_full_image=True
    )
    ssim = maps[..., 5:-5, 5:-5].mean().item()
    total = recon + share * kld + ssim_weight * (1 - ssim)
    assert loss.item() == pytest.approx(total, rel=1e-4)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.model.parameters())


def test_the_weight_of_an_epoch_is_what_training_logged(trained: Run):
    lines = map(json.loads, (trained.logs / "metrics.jsonl").read_text().splitlines())
    # Four epochs have room for two cycles of two epochs, each beginning at no weight.
    assert [line["metrics"]["train/kld_weight"] for line in lines] == [0, 0.00025, 0, 0.00025]


def test_the_optimizer_is_adamw_as_asked_for():
    module = lightning(learning_rate=3e-3, weight_decay=0.02, lr_schedule="plateau")
    optimizer = module.configure_optimizers()["optimizer"]
    assert type(optimizer) is AdamW
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (3e-3, 0.02)
    assert list(map(id, group["params"])) == list(map(id, module.model.parameters()))
    assert not any(p.requires_grad for p in module.averaged.parameters())


def test_the_learning_rate_halves_after_ten_epochs_without_a_better_loss():
    made = lightning(learning_rate=1e-2, lr_schedule="plateau").configure_optimizers()
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
        module.averaged.encoder.to_code.mu.bias.fill_(float("nan"))
    with pytest.raises(EarTeachError, match=r"epoch 1 is not finite.*--learning-rate than 5"):
        validated(module, monkeypatch)


def recorded(run: Path) -> list[dict[str, float]]:
    lines = (run / "logs" / "ear_vae" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["metrics"] for line in lines]


def trained_with(ears: Path, folder: Path, *options: object) -> Path:
    result = command("train", *data_options(ears), *run_options(folder), *TINY_RUN, *options)
    assert result.code == 0, result.err
    return folder / "checkpoints" / "last.ckpt"


def test_the_plateau_is_counted_on_the_validation_loss(ears: Path, tmp_path: Path):
    last = trained_with(ears, tmp_path, "--epochs", 4, "--lr-schedule", "plateau")
    (state,) = torch.load(last, weights_only=True)["lr_schedulers"]
    made = lightning(lr_schedule="plateau").configure_optimizers()
    assert isinstance(made["lr_scheduler"]["scheduler"], ReduceLROnPlateau)
    losses = [metrics["val/loss"] for metrics in recorded(tmp_path)]
    assert state["last_epoch"] == len(losses) == 4  # stepped once in each epoch
    assert state["best"] == pytest.approx(min(losses), rel=1e-3)  # within its threshold


def test_the_cosine_is_counted_in_steps(trained: Run):
    state = torch.load(trained.last, weights_only=True)
    (schedule,) = state["lr_schedulers"]
    assert schedule["last_epoch"] == state["global_step"] == 24
    made = lightning().configure_optimizers()["lr_scheduler"]
    assert isinstance(made["scheduler"], LambdaLR)
    assert made["interval"] == "step"


@pytest.mark.parametrize("weight", [0.0, 0.02])
def test_training_reports_the_similarity_that_it_takes(ears: Path, tmp_path: Path, weight):
    trained_with(ears, tmp_path, "--epochs", 2, "--ssim-weight", weight)
    for metrics in recorded(tmp_path):
        assert ("train/ssim" in metrics) == (weight > 0)
        assert 0 < metrics.get("train/ssim", 0.5) < 1
        # The loss stays free of it, whatever its weight.
        kld = metrics["train/kld_weight"] * metrics["train/kld"] / 16
        assert metrics["train/loss"] == pytest.approx(metrics["train/recon_loss"] + kld, rel=1e-5)


def flat(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().double().flatten() for p in module.parameters()])


@pytest.mark.parametrize("decay", [0.3, 0.995])
def test_the_average_follows_its_recurrence(ears: Path, tmp_path: Path, monkeypatch, decay):
    raw: list[torch.Tensor] = []
    averaged: list[torch.Tensor] = []
    original = EarVAELightning.optimizer_step

    def step(module: EarVAELightning, *args: Any, **kwargs: Any) -> None:
        if not averaged:
            raw.append(flat(module.model))
            averaged.append(flat(module.averaged))
        original(module, *args, **kwargs)
        raw.append(flat(module.model))
        averaged.append(flat(module.averaged))

    monkeypatch.setattr(EarVAELightning, "optimizer_step", step)
    last = trained_with(ears, tmp_path, "--epochs", 2, "--ema-decay", decay)
    assert len(raw) == 1 + 12
    assert torch.equal(raw[0], averaged[0])
    wanted = averaged[0]
    for number, weights in enumerate(raw[1:]):
        # The first step's weights replace the beginning; then the memory grows to its length.
        kept = min(decay, number / (number + 9))
        wanted = kept * wanted + (1 - kept) * weights
        torch.testing.assert_close(averaged[number + 1], wanted, rtol=1e-5, atol=1e-6)
    assert (averaged[-1] - raw[-1]).abs().max() > 1e-4
    assert torch.equal(flat(earteach.load(last)), averaged[-1])


def test_without_a_decay_one_network_is_kept(ears: Path, tmp_path: Path):
    module = lightning(ema_decay=0.0)
    assert module.averaged is module.model
    last = trained_with(ears, tmp_path, "--epochs", 1, "--ema-decay", 0)
    state = torch.load(last, weights_only=True)
    weights = {n: v for n, v in state["state_dict"].items() if n.startswith("model.")}
    for name, value in earteach.load(last).state_dict().items():
        assert torch.equal(value, weights[f"model.{name}"]), name
    averaged = lightning()
    assert averaged.averaged is not averaged.model
    assert averaged.averaged.linear is averaged.model.linear


def test_what_is_shown_and_measured_is_the_averaged_network(monkeypatch, images):
    module = lightning(kld_weight=0.5)
    with torch.no_grad():
        for parameter in module.averaged.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
        codes = module.encode(images)
        assert torch.equal(codes, module.averaged.encode(images)[0])
        assert torch.equal(module.reconstruct(images), module.averaged.reconstruct(images))
        assert torch.equal(module.decode(codes), module.averaged.decode(codes))
        assert not torch.allclose(module.reconstruct(images), module.model.reconstruct(images))
        batch = batch_of(4)["input"].float() / 255
        seen = module.averaged.reconstruct(batch)
    logged = validated(module, monkeypatch)
    wanted = structural_similarity_index_measure(seen, batch, data_range=1.0)
    assert logged["val/ssim"].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_a_run_can_begin_with_the_weights_of_another(ears: Path, tmp_path: Path, trained: Run):
    module = lightning()
    module.init_from_model(earteach.load(trained.last))
    for network in (module.model, module.averaged):
        assert torch.equal(flat(network), flat(earteach.load(trained.last)))
