"""The Lightning module: what it learns from, what it logs, and which network it shows."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import AdamW
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

import earteach
from earteach.config import TrainConfig
from earteach.data.strong_views import strong_views
from earteach.errors import EarTeachError
from earteach.model.correspondence import Matches, matching_loss, random_points
from earteach.model.feature_pyramid import descriptors
from earteach.model.landmark_head import LabelledHeat, heat_map_loss
from earteach.model.loss import dissimilarity, kl_divergence
from earteach.randomness import (
    Purpose,
    derive,
    training_noise,
    validation_noise,
    views_generator,
)
from earteach.synthetic.drawn_ear import draw_ear
from earteach.training.lightning_module import EarVAELightning
from tests.conftest import TINY_RUN, data_options, run_options
from tests.conftest import earteach as command

TINY = {"image_size": 32, "base_channels": 8, "latent_dim": 16}


def lightning(**options: object) -> EarVAELightning:
    torch.manual_seed(0)
    module = EarVAELightning(TrainConfig().with_options({**TINY, **options}).to_dict())
    module.trainer = SimpleNamespace(  # type: ignore[assignment]
        current_epoch=0, global_step=0, global_rank=0, precision="32-true",
        datamodule=SimpleNamespace(steps_per_epoch=lambda: 5),
        strategy=SimpleNamespace(reduce=lambda value, reduce_op: value),
    )  # fmt: skip
    return module


def batch_of(number: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, number, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return {"input": images[0], "target": images[1], "index": torch.arange(number)}


@pytest.fixture
def images(ears: Path) -> torch.Tensor:
    stored = np.load(ears / "val_teacher.npy").astype(np.float32) / 255
    return torch.from_numpy(stored.transpose(0, 3, 1, 2).copy())


def metrics_of(run: Path) -> list[dict[str, float]]:
    lines = (run / "logs" / "ear_vae" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["metrics"] for line in lines]


@pytest.mark.parametrize("safe", [True, None])
def test_a_checkpoint_loads_safely_as_the_network_that_load_gives(trained, images, safe):
    path = trained.result["best"]["ssim"]["path"]
    module = EarVAELightning.load_from_checkpoint(path, weights_only=safe).train()
    model = earteach.load(path)
    with torch.no_grad():
        codes = module.encode(images)
        assert torch.equal(codes, model.encode(images)[0])
        assert torch.equal(module.reconstruct(images), model.reconstruct(images))
        assert torch.equal(module.decode(codes), model.decode(codes))
        samples = [m.sample(3, torch.Generator().manual_seed(2)) for m in (module, model)]
        assert torch.equal(*samples)
        assert all(map(torch.equal, module.features(images), model.features(images)))
    assert all(part.training for part in module.modules())


def test_the_metrics_of_a_run_are_those_of_a_second_computation(trained, images):
    logged = metrics_of(trained.folder)
    model = earteach.load(trained.last)
    noise = validation_noise(42, list(range(len(images))), 16)
    with torch.no_grad():
        mu, logvar = model.encode(images)
        noisy, clean = model.decode(mu + (logvar / 2).exp() * noise), model.decode(mu)
    recon = torch.nn.functional.mse_loss(noisy, images).item()
    kld = (0.5 * (mu**2 + logvar.exp() - 1 - logvar)).sum(dim=1).mean().item()
    pairs = list(zip(clean.split(1), images.split(1), strict=True))
    expected = {
        "val/recon_loss": recon,
        "val/kld": kld,
        "val/loss": recon + 0.00025 * kld / 16,
        "val/psnr": np.mean([peak_signal_noise_ratio(*p, data_range=1.0).item() for p in pairs]),
        "val/ssim": structural_similarity_index_measure(clean, images, data_range=1.0).item(),
    }
    assert {name: logged[-1][name] for name in expected} == pytest.approx(expected, rel=1e-5)
    # Four epochs are two cycles of two, each of which starts without the KLD.
    assert [metrics["train/kld_weight"] for metrics in logged] == [0, 0.00025, 0, 0.00025]
    assert all(0 < metrics["train/ssim"] < 1 for metrics in logged)
    assert_loss_without_ssim(logged)


def assert_loss_without_ssim(logged: list[dict[str, float]]) -> None:
    for metrics in logged:
        kld = metrics["train/kld_weight"] * metrics["train/kld"] / 16
        assert metrics["train/loss"] == pytest.approx(metrics["train/recon_loss"] + kld, rel=1e-5)


@pytest.mark.parametrize(("ssim_weight", "teach_weight"), [(0.0, 0.0), (0.3, 0.0), (0.3, 0.1)])
@pytest.mark.parametrize(("reduction", "divisor"), [("mean", 16), ("sum", 1)])
def test_a_step_takes_the_loss_of_its_batch(reduction, divisor, ssim_weight, teach_weight):
    module = lightning(
        kld_weight=0.5, kld_reduction=reduction, epochs=1, seed=7, ssim_weight=ssim_weight,
        teach_weight=teach_weight,
    )  # fmt: skip
    batch = batch_of(3)
    loss = module.training_step(batch, 0)
    x, target = (batch[name].float() / 255 for name in ("input", "target"))
    with torch.no_grad():
        mu, logvar = module.model.encode(x)
        decoded = module.decode(mu + (logvar / 2).exp() * training_noise(7, 0, 0, (3, 16)))
    generator = views_generator(7, 0, 0)
    terms = {
        "recon": ((decoded - target) ** 2).mean().item(),
        "kld": 0.5 * kl_divergence(mu, logvar).sum(dim=1).mean().item() / divisor,
        "ssim": ssim_weight * dissimilarity(decoded, target).mean().item(),
    }
    if teach_weight:
        terms["teach"] = teach_weight * taught(module, x, generator)
        terms["landmarks"] = 30 * teach_weight * found(module, generator)
    assert loss.item() == pytest.approx(sum(terms.values()), rel=1e-4)
    assert module.running_loss() == pytest.approx(terms["recon"] + terms["kld"], rel=1e-4)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.model.parameters())


def taught(module: EarVAELightning, images: torch.Tensor, generator: torch.Generator) -> float:
    """The matching loss of points of two in three images, too few for a mosaic, in strong views."""
    images = images[:2]
    views, points = strong_views(images, generator), random_points(2, generator)
    pyramid, encoder = module.model.pyramid, module.model.encoder
    with torch.no_grad():
        faces_right = module.model.encode_all(images).is_canonical
        first = descriptors(pyramid(module.model.features(images)), points)
        second = descriptors(pyramid(encoder(views.images)), views.points(points))
    visible = (views.points(points).abs() < 1).all(dim=2)
    for point, right in zip(points, faces_right, strict=True):
        point[:, 0] *= 1 if right else -1
    return matching_loss(Matches(points, visible, first, second, is_canonical=True)).item()


def found(module: EarVAELightning, generator: torch.Generator) -> float:
    """The heat-map loss of strong views of the first four drawn ears, some of them twice."""
    rows = torch.randint(4, (4,), generator=generator).tolist()
    ears = [draw_ear(derive(7, Purpose.DRAWN_EARS), row, 32) for row in rows]
    images = torch.stack([torch.from_numpy(ear.image) for ear in ears]).permute(0, 3, 1, 2) / 255
    points = torch.stack([torch.from_numpy(ear.landmarks) for ear in ears])
    views = strong_views(images, generator, shift=0.1)
    with torch.no_grad():
        heat = module.model.landmark_heat(views.images)
    return heat_map_loss(LabelledHeat(heat, (views.points(2 * points - 1) + 1) / 2)).item()


def test_teaching_makes_descriptors_match(ears, tmp_path):
    run = [*data_options(ears), *run_options(tmp_path), *TINY_RUN, "--epochs", 5]
    result = command("train", *run, "--teach-weight", 0.1, "--pyramid-channels", 8)
    assert result.code == 0, result.err
    losses = [metrics["train/teach"] for metrics in metrics_of(tmp_path)]
    assert losses[-1] < 0.9 * losses[0]
    network = earteach.load(tmp_path / "checkpoints")
    assert network.pyramid is not None
    assert network.pyramid.channels == 8


def test_without_teaching_there_is_no_pyramid():
    assert lightning(teach_weight=0).model.pyramid is None
    with pytest.raises(EarTeachError, match="needs a feature pyramid"):
        TrainConfig().with_options({"pyramid_channels": 0})


def test_the_optimizer_is_adamw_on_the_trained_network():
    module = lightning(learning_rate=3e-3, weight_decay=0.02, lr_schedule="plateau")
    configured = module.configure_optimizers()
    optimizer = configured["optimizer"]
    assert type(optimizer) is AdamW
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (3e-3, 0.02)
    assert list(map(id, group["params"])) == list(map(id, module.model.parameters()))
    assert not any(p.requires_grad for p in module.averaged.parameters())
    assert module.averaged.pca is module.model.pca
    plateau = configured["lr_scheduler"]["scheduler"]
    assert (plateau.factor, plateau.patience) == (0.5, 10)


def validated(module: EarVAELightning, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    logged: dict[str, torch.Tensor] = {}
    optimizer = module.configure_optimizers()
    monkeypatch.setattr(module, "log_dict", lambda values, **_: logged.update(values))
    monkeypatch.setattr(module, "lr_schedulers", lambda: optimizer["lr_scheduler"]["scheduler"])
    module.validation_step(batch_of(4), 0)
    module.on_validation_epoch_end()
    return logged


@pytest.mark.parametrize("autocast", [False, True])
def test_validation_measures_the_average_by_the_final_weight(monkeypatch, autocast):
    module = lightning(kld_weight=0.5, kld_anneal_end=0.8)
    assert module.kld_weight == 0  # as in each first epoch
    x = batch_of(4)["input"].float() / 255
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        with torch.no_grad():
            for parameter in module.averaged.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
            reconstruction = module.averaged.reconstruct(x)
            assert torch.equal(module.reconstruct(x), reconstruction)
            assert not torch.allclose(reconstruction, module.model.reconstruct(x))
        logged = validated(module, monkeypatch)
    # SSIM's small differences would drown in bfloat16.
    expected = structural_similarity_index_measure(reconstruction, x, data_range=1.0)
    assert logged["val/ssim"].item() == pytest.approx(expected.item(), rel=1e-5)
    loss = logged["val/recon_loss"] + 0.8 * 0.5 * logged["val/kld"] / 16
    assert logged["val/loss"].item() == pytest.approx(loss.item(), rel=1e-5)


def test_a_validation_loss_that_is_not_finite_stops_the_run(monkeypatch):
    module = lightning(learning_rate=5.0)
    with torch.no_grad():
        module.averaged.encoder.to_code.mu.bias.fill_(float("nan"))
    with pytest.raises(EarTeachError, match=r"loss is nan in epoch 1.*--learning-rate 0.5"):
        validated(module, monkeypatch)


def trained_with(ears: Path, folder: Path, *options: object) -> dict[str, Any]:
    result = command("train", *data_options(ears), *run_options(folder), *TINY_RUN, *options)
    assert result.code == 0, result.err
    state: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return state


@pytest.mark.slow
def test_a_run_on_a_plateau_without_an_average_and_without_ssim(ears, tmp_path, trained):
    options = ["--lr-schedule", "plateau", "--ema-decay", 0, "--ssim-weight", 0]
    state = trained_with(ears, tmp_path, "--epochs", 2, *options)
    logged = metrics_of(tmp_path)
    (plateau,) = state["lr_schedulers"]
    assert plateau["last_epoch"] == len(logged) == 2  # one step per epoch
    losses = [metrics["val/loss"] for metrics in logged]
    assert plateau["best"] == pytest.approx(min(losses), rel=1e-3)  # within its threshold
    assert not any("train/ssim" in metrics for metrics in logged)
    assert_loss_without_ssim(logged)
    for name, value in earteach.load(tmp_path / "checkpoints" / "last.ckpt").state_dict().items():
        assert torch.equal(value, state["state_dict"][f"model.{name}"]), name
    # The cosine of the other run counts steps.
    cosine = torch.load(trained.last, weights_only=True)
    assert cosine["lr_schedulers"][0]["last_epoch"] == cosine["global_step"] == 24


def flat(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().double().flatten() for p in module.parameters()])


@pytest.mark.slow
def test_the_average_follows_its_recurrence(ears, tmp_path, monkeypatch):
    weights: list[tuple[torch.Tensor, torch.Tensor]] = []
    original = EarVAELightning.optimizer_step

    def step(module: EarVAELightning, *args: Any, **kwargs: Any) -> None:
        if not weights:
            weights.append((flat(module.model), flat(module.averaged)))
        original(module, *args, **kwargs)
        weights.append((flat(module.model), flat(module.averaged)))

    monkeypatch.setattr(EarVAELightning, "optimizer_step", step)
    trained_with(ears, tmp_path, "--epochs", 2, "--ema-decay", 0.3)
    (initial, expected), *steps = weights
    assert len(steps) == 12
    assert torch.equal(initial, expected)
    for number, (trained, averaged) in enumerate(steps):
        # The first step's weights replace the initial ones; then the average grows to its length.
        decay = min(0.3, number / (number + 9))
        expected = decay * expected + (1 - decay) * trained
        torch.testing.assert_close(averaged, expected, rtol=1e-5, atol=1e-6)
    assert (averaged - trained).abs().max() > 1e-4
    assert torch.equal(flat(earteach.load(tmp_path / "checkpoints" / "last.ckpt")), averaged)


def test_a_module_takes_the_weights_of_another_network(trained):
    module, model = lightning(), earteach.load(trained.last)
    module.init_from_model(model)
    for network in module.networks():
        assert torch.equal(flat(network), flat(model))
    with pytest.raises(RuntimeError):
        lightning(latent_dim=8).init_from_model(model)


@pytest.mark.parametrize(("reduction", "divisor"), [("mean", 16), ("sum", 1)])
def test_the_sums_of_an_epoch_that_version_1_0_had_begun_are_kept(reduction, divisor):
    """It kept loss, reconstruction, KLD in nats, 1 − SSIM and images; here of an epoch's 40 images."""
    config = TrainConfig().with_options(
        {"image_size": 32, "base_channels": 2, "latent_dim": 16, "kld_reduction": reduction,
         "kld_anneal_start": 1.0, "kld_weight": 0.01}
    )  # fmt: skip
    module = EarVAELightning(config.to_dict())
    module.on_load_checkpoint({"train_sums": [9.0, 8.0, 400.0, 12.0, 40.0]})
    assert module.running_loss() == pytest.approx(8 / 40 + 0.01 * 400 / 40 / divisor)
