"""PSNR and SSIM of each image against torchmetrics and scikit-image."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr
from torchmetrics.functional.image import structural_similarity_index_measure as torchmetrics_ssim

from earteach.errors import EarTeachError
from earteach.metrics.quality import psnr, ssim

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
