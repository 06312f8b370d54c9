"""PSNR, SSIM and MS-SSIM of each image against torchmetrics and scikit-image."""

import numpy as np
import pytest
import torch
from scipy import stats
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure as torchmetrics_ms_ssim,
)
from torchmetrics.functional.image import structural_similarity_index_measure as torchmetrics_ssim

from earteach.metrics.eval_metrics import Margin, QualityMeter, mean_interval, ms_ssim, psnr, ssim

Pair = tuple[torch.Tensor, torch.Tensor]


def noisy(shape: tuple[int, ...], amount: float) -> Pair:
    torch.manual_seed(0)
    images = torch.rand(shape)
    return images, (images + amount * torch.randn(shape)).clamp(0, 1)


def soft(shape: tuple[int, ...], amount: float) -> Pair:
    """Patches as large as an ear's parts, so that coarse scales have something to compare."""
    torch.manual_seed(1)
    coarse = torch.rand(shape[0], shape[1], 9, 9)
    images = torch.nn.functional.interpolate(coarse, size=shape[2:], mode="bicubic").clamp(0, 1)
    return images, (images.roll(3, dims=3) + amount * torch.randn(shape)).clamp(0, 1)


CASES: dict[str, tuple[Pair, float]] = {
    "noisy colour": (noisy((4, 3, 32, 32), 0.1), 1e-5),
    "nearly equal": (noisy((2, 3, 32, 32), 1e-3), 1e-5),
    "gray": (noisy((2, 1, 48, 48), 0.05), 1e-5),
    "not square": (noisy((2, 3, 16, 40), 0.1), 1e-5),
    # Without structure, SSIM divides rounding errors by its small constant.
    "flat": ((torch.full((1, 3, 32, 32), 0.4), torch.full((1, 3, 32, 32), 0.6)), 3e-4),
    "flat against noise": ((torch.full((1, 3, 32, 32), 0.5), torch.rand(1, 3, 32, 32)), 3e-4),
}


def skimage_values(image: torch.Tensor, target: torch.Tensor) -> tuple[float, float]:
    """PSNR and SSIM. scikit-image ignores a border; reflected edges make that the added one."""
    image, target = (x.double().permute(1, 2, 0).numpy() for x in (image, target))
    padded = (np.pad(x, ((5, 5), (5, 5), (0, 0)), mode="reflect") for x in (image, target))
    return peak_signal_noise_ratio(target, image, data_range=1), structural_similarity(
        *padded, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1,
        channel_axis=2,
    )  # fmt: skip


@pytest.mark.parametrize(("pair", "tolerance"), CASES.values(), ids=CASES)
def test_psnr_and_ssim_are_those_of_scikit_image_and_torchmetrics(pair, tolerance):
    by_psnr, by_ssim = zip(
        *(skimage_values(*each) for each in zip(*pair, strict=True)), strict=True
    )
    assert psnr(*pair).tolist() == pytest.approx(by_psnr, rel=1e-5)
    assert ssim(*pair).tolist() == pytest.approx(by_ssim, abs=tolerance)
    theirs = torchmetrics_ssim(*pair, data_range=1.0, reduction="none").reshape(-1)
    assert ssim(*pair).tolist() == pytest.approx(theirs.tolist(), abs=tolerance)


def test_equal_images():
    images = torch.rand(2, 3, 32, 32)
    assert psnr(images, images).tolist() == [float("inf")] * 2
    assert ssim(images, images).tolist() == pytest.approx([1, 1], abs=1e-6)


def test_reduced_precision_is_computed_in_float32():
    images, targets = (tensor.bfloat16() for tensor in soft((2, 3, 192, 192), 0.05))
    for metric in (psnr, ssim, ms_ssim):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            values = metric(images, targets)
        assert torch.equal(values, metric(images.float(), targets.float()))


@pytest.mark.parametrize(("side", "multiscale"), [(175, False), (176, True)])
def test_quality_is_collected_image_by_image(side, multiscale):
    images, targets = soft((3, 1, side, 180), 0.05)
    meter = QualityMeter()
    for rows in ([0, 1], [2]):
        meter.update(images[rows], targets[rows])
    quality = meter.compute()
    assert quality.psnr.tolist() == pytest.approx(psnr(images, targets).tolist(), rel=1e-6)
    assert quality.ssim.tolist() == pytest.approx(ssim(images, targets).tolist(), abs=1e-6)
    assert ("ms_ssim" in quality.values) == multiscale
    assert (quality.means()["ms_ssim"] is not None) == multiscale
    if multiscale:
        expected = torchmetrics_ms_ssim(images, targets, data_range=1.0, reduction="none")
        assert quality.values["ms_ssim"] == pytest.approx(expected.numpy(), abs=1e-6)


@pytest.mark.parametrize("count", [2, 15, 500])
def test_the_interval_of_a_mean_is_that_of_scipy(count):
    values = 20 + np.random.default_rng(0).gamma(3.0, 2.0, size=count)  # skewed, as PSNRs are
    expected = stats.norm.interval(0.95, loc=values.mean(), scale=stats.sem(values))
    assert mean_interval(values) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("values", [[1.0], [1.0, np.inf], [np.nan, 2.0, 3.0]])
def test_there_is_no_interval_for_one_or_infinite_values(values):
    assert mean_interval(np.array(values)) is None


@pytest.mark.parametrize(
    ("margin", "standing"),
    [
        (Margin(0.5, 0.4, 0.6), "ahead of"),
        (Margin(-0.5, -0.6, -0.4), "behind"),
        (Margin(0.1, -0.1, 0.3), "tied with"),
        (Margin(-2.0, None, None), "behind"),
        (Margin(float("nan"), None, None), "not comparable with"),
    ],
)
def test_a_margin_is_judged_by_its_interval(margin, standing):
    assert margin.standing == standing
