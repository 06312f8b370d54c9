"""PSNR, SSIM and MS-SSIM of each image against torchmetrics and scikit-image."""

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr
from torchmetrics.functional.image import structural_similarity_index_measure as torchmetrics_ssim
from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure

from earteach.errors import EarTeachError
from earteach.metrics.image_quality import ImageQuality, ms_ssim, psnr, ssim, ssim_and_ms_ssim

Pair = tuple[torch.Tensor, torch.Tensor]


def noisy(shape: tuple[int, ...], amount: float) -> Pair:
    torch.manual_seed(0)
    images = torch.rand(shape)
    return images, (images + amount * torch.randn(shape)).clamp(0, 1)


def smooth(side: int) -> Pair:
    line = torch.linspace(0, 1, side)
    images = torch.stack([line[:, None] * line, 1 - line[:, None] * line]).reshape(2, 1, side, side)
    return images, images.square()


CASES: dict[str, Pair] = {
    "noisy colour": noisy((4, 3, 32, 32), 0.1),
    "nearly equal": noisy((2, 3, 32, 32), 1e-3),
    "unrelated": (torch.rand(3, 3, 32, 32), torch.rand(3, 3, 32, 32)),
    "gray": noisy((2, 1, 48, 48), 0.05),
    "not square": noisy((2, 3, 16, 40), 0.1),
    "as large as the window": noisy((2, 3, 11, 11), 0.1),
    "smooth": smooth(40),
}
FLAT: dict[str, Pair] = {
    "of one colour": (torch.full((1, 3, 32, 32), 0.4), torch.full((1, 3, 32, 32), 0.6)),
    "flat against noise": (torch.full((1, 3, 32, 32), 0.5), torch.rand(1, 3, 32, 32)),
    "black and white": (torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)),
}


# Where there is no structure, SSIM divides rounding errors by its small constant.
WITHIN = [*((pair, 1e-5) for pair in CASES.values()), *((pair, 3e-4) for pair in FLAT.values())]
NAMES = [*CASES, *FLAT]


@pytest.mark.parametrize(("pair", "_"), WITHIN, ids=NAMES)
def test_psnr_of_each_image(pair, _):
    images, targets = pair
    seen = psnr(images, targets)
    by_torchmetrics = [
        torchmetrics_psnr(image[None], target[None], data_range=1.0).item()
        for image, target in zip(images, targets, strict=True)
    ]
    by_skimage = [
        peak_signal_noise_ratio(target.double().numpy(), image.double().numpy(), data_range=1)
        for image, target in zip(images, targets, strict=True)
    ]
    assert seen.tolist() == pytest.approx(by_torchmetrics, rel=1e-5, abs=1e-5)
    assert seen.tolist() == pytest.approx(by_skimage, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(("pair", "tolerance"), WITHIN, ids=NAMES)
def test_ssim_of_each_image_is_that_of_torchmetrics(pair, tolerance):
    wanted = torchmetrics_ssim(*pair, data_range=1.0, reduction="none")
    assert ssim(*pair).tolist() == pytest.approx(wanted.reshape(-1).tolist(), abs=tolerance)


def skimage_ssim(image: torch.Tensor, target: torch.Tensor) -> float:
    """scikit-image leaves out the border that it extends; with one that is reflected beforehand,
    what it averages is the image, as torchmetrics has it."""
    pair = (
        np.pad(tensor.double().permute(1, 2, 0).numpy(), ((5, 5), (5, 5), (0, 0)), mode="reflect")
        for tensor in (image, target)
    )
    return structural_similarity(
        *pair, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1,
        channel_axis=2,
    )  # fmt: skip


@pytest.mark.parametrize(("pair", "tolerance"), WITHIN, ids=NAMES)
def test_ssim_of_each_image_is_that_of_scikit_image(pair, tolerance):
    wanted = [skimage_ssim(*images) for images in zip(*pair, strict=True)]
    assert ssim(*pair).tolist() == pytest.approx(wanted, abs=tolerance)


def test_ssim_keeps_more_digits_than_float32_windows_of_products_would():
    """Of images that differ little, where the variances are small differences of large numbers."""
    images, targets = smooth(64)
    targets = images + 0.1 * (targets - images)
    wanted = [skimage_ssim(*pair) for pair in zip(images, targets, strict=True)]
    assert ssim(images, targets).tolist() == pytest.approx(wanted, abs=1e-6)


def test_equal_images():
    images = torch.rand(2, 3, 32, 32)
    assert psnr(images, images).tolist() == [float("inf")] * 2
    assert ssim(images, images).tolist() == pytest.approx([1, 1], abs=1e-6)


def test_one_bad_image_does_not_touch_the_others():
    images, targets = (tensor.clone() for tensor in CASES["noisy colour"])
    before = psnr(images, targets), ssim(images, targets)
    targets[1] = 0
    for old, new in zip(before, (psnr(images, targets), ssim(images, targets)), strict=True):
        assert new[1] < old[1]
        torch.testing.assert_close(new[[0, 2, 3]], old[[0, 2, 3]])


def test_reduced_precision_is_computed_in_float32():
    images, targets = (tensor.half() for tensor in CASES["gray"])
    wanted = ssim(images.float(), targets.float())
    assert torch.equal(ssim(images, targets), wanted)
    assert psnr(images, targets).dtype == torch.float32


def test_images_smaller_than_the_window_reaches_are_an_error():
    assert ssim(torch.rand(1, 3, 6, 6), torch.rand(1, 3, 6, 6)).isfinite().all()
    with pytest.raises(EarTeachError, match="at least 6 pixels"):
        ssim(torch.rand(1, 3, 5, 32), torch.rand(1, 3, 5, 32))


def soft(shape: tuple[int, ...], amount: float) -> Pair:
    """Patches as large as an ear's parts, so that the coarse scales have something to compare."""
    torch.manual_seed(1)
    coarse = torch.rand(shape[0], shape[1], 9, 9)
    images = torch.nn.functional.interpolate(coarse, size=shape[2:], mode="bicubic").clamp(0, 1)
    return images, (images.roll(3, dims=3) + amount * torch.randn(shape)).clamp(0, 1)


def checkered(side: int) -> Pair:
    """Anticorrelated at the finest scale, and equal at the others: a mean under 0 counts as 0."""
    board = 0.2 * (torch.arange(side)[:, None] + torch.arange(side)).remainder(2).sub(0.5)
    images, _ = soft((2, 1, side, side), 0.0)
    return 0.2 + 0.6 * images + board, 0.2 + 0.6 * images - board


MULTISCALE: dict[str, Pair] = {
    "soft": soft((3, 3, 256, 256), 0.05),
    "noise alone": noisy((2, 3, 192, 192), 0.3),
    "gray": soft((2, 1, 192, 192), 0.1),
    "as small as may be, not square": soft((2, 3, 176, 200), 0.1),
    "alike but for an inverted checkerboard": checkered(192),
}


@pytest.mark.parametrize("pair", MULTISCALE.values(), ids=MULTISCALE)
def test_ms_ssim_of_each_image_is_that_of_torchmetrics(pair):
    metric = MultiScaleStructuralSimilarityIndexMeasure(data_range=1.0, reduction="none")
    metric.update(*pair)
    assert ms_ssim(*pair).tolist() == pytest.approx(metric.compute().tolist(), abs=1e-5)


def ms_ssim_by_hand(image: np.ndarray, target: np.ndarray) -> float:
    """Of one gray image, as in the paper but for reflected edges where the whole SSIM is averaged."""
    line = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(line, line) / line.sum() ** 2
    result = 1.0
    for weight in (0.0448, 0.2856, 0.3001, 0.2363, 0.1333):
        last = weight == 0.1333
        if last:
            image, target = (np.pad(x, 5, mode="reflect") for x in (image, target))
        mx, my, xx, yy, xy = (
            convolve2d(x, window, mode="valid")
            for x in (image, target, image**2, target**2, image * target)
        )
        value = (2 * (xy - mx * my) + 0.03**2) / (xx - mx**2 + yy - my**2 + 0.03**2)
        if last:
            value = value * (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2)
        result *= value.mean() ** weight
        image, target = (
            x[: len(x) // 2 * 2, : x.shape[1] // 2 * 2].reshape(len(x) // 2, 2, -1, 2).mean((1, 3))
            for x in (image, target)
        )
    return float(result)


def test_ms_ssim_is_that_of_the_paper():
    images, targets = MULTISCALE["gray"]
    wanted = [
        ms_ssim_by_hand(image[0].double().numpy(), target[0].double().numpy())
        for image, target in zip(images, targets, strict=True)
    ]
    assert ms_ssim(images, targets).tolist() == pytest.approx(wanted, abs=1e-5)


def test_ssim_is_the_same_beside_ms_ssim():
    for pair in (MULTISCALE["soft"], CASES["noisy colour"]):
        assert torch.equal(ssim_and_ms_ssim(*pair)[0], ssim(*pair))


@pytest.mark.parametrize("shape", [(2, 3, 175, 256), (2, 3, 256, 160), (2, 3, 32, 32)])
def test_ms_ssim_has_no_other_definition_for_smaller_images(shape):
    pair = noisy(shape, 0.1)
    assert ssim_and_ms_ssim(*pair)[1] is None
    with pytest.raises(EarTeachError, match="at least 176 pixels"):
        ms_ssim(*pair)


def test_quality_is_gathered_image_by_image():
    images, targets = MULTISCALE["soft"]
    quality = ImageQuality()
    for rows in ([0, 1], [2]):
        quality.update(images[rows], targets[rows])
    assert quality.ms_ssim is not None
    for seen, measure in (
        (quality.psnr, psnr), (quality.ssim, ssim), (quality.ms_ssim, ms_ssim),
    ):  # fmt: skip
        assert seen.dtype == np.float64
        assert seen.tolist() == pytest.approx(measure(images, targets).tolist(), abs=1e-6)


def test_quality_is_measured_in_float32_under_autocast():
    images, targets = CASES["noisy colour"]
    quality = ImageQuality()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        quality.update(images, targets)
        assert torch.equal(ssim(images, targets), torch.tensor(quality.ssim).float())
    assert quality.ssim.tolist() == ssim(images, targets).tolist()
    assert quality.psnr.tolist() == psnr(images, targets).tolist()
    assert quality.ms_ssim is None
