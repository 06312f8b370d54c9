"""Augmentation: a function of the image and a seed, and an ear stays an ear."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys

import albumentations as A
import numpy as np
import pytest

from earteach.config import Strength, Target
from earteach.data.augmentation import Augmentation, tone
from earteach.synthetic.drawn_ear import draw_ear

STRENGTHS: tuple[Strength, ...] = ("none", "light", "full")
SEEDS = [7**20 + 10**15 * number for number in range(60)]  # of more than 32 bits, as derived ones


@pytest.fixture(scope="module")
def ears() -> list[np.ndarray]:
    return [draw_ear(1, index, 64).image for index in range(60)]


def in_channels(image: np.ndarray, channels: int) -> np.ndarray:
    return np.ascontiguousarray(image[..., 3 - channels :])


@pytest.mark.parametrize("target", ["clean", "augmented"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_uint8_of_one_shape_goes_in_and_comes_out(
    ears: list[np.ndarray], strength: Strength, channels: int, target: Target
) -> None:
    augmentation = Augmentation(strength, channels, target)
    for ear, seed in zip(ears[:20], SEEDS, strict=False):
        image = in_channels(ear, channels)
        before = image.copy()
        for out in augmentation(image, seed):
            assert out.dtype == np.uint8
            assert out.shape == (64, 64, channels)
        np.testing.assert_array_equal(image, before, err_msg="the caller's image was changed")


@pytest.mark.parametrize("channels", [1, 3])
def test_tone_is_brightness_and_contrast_as_albumentations_has_them(
    ears: list[np.ndarray], channels: int
) -> None:
    image = in_channels(ears[0], channels)
    for seed in range(20):
        contrast, brightness = np.random.default_rng(seed).uniform(-0.15, 0.15, 2)
        fixed = A.RandomBrightnessContrast((brightness, brightness), (contrast, contrast), p=1)
        found = tone(image, 0.15, np.random.default_rng(seed))
        expected = fixed(image=image)["image"].reshape(image.shape)
        assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_the_clean_target_shows_no_noise_blur_or_occlusion(channels: int) -> None:
    """Geometry and colour leave a plain image plain; noise, occlusion and shadow do not."""
    plain = np.full((64, 64, channels), 120, np.uint8)
    augmentation = Augmentation("full", channels, "clean")
    soiled = 0
    for seed in SEEDS:
        seen, target = augmentation(plain, seed)
        assert (target == target[0, 0]).all()
        soiled += not (seen == seen[0, 0]).all()
    assert 5 < soiled < 35


@pytest.mark.parametrize("channels", [1, 3])
def test_input_and_clean_target_share_geometry_and_colour(
    ears: list[np.ndarray], channels: int
) -> None:
    augmentation = Augmentation("full", channels, "clean")
    changed = equal = 0
    for ear, seed in zip(ears, SEEDS, strict=True):
        image = in_channels(ear, channels)
        seen, target = augmentation(image, seed)
        changed += not np.array_equal(target, image)
        equal += np.array_equal(seen, target)
    assert changed > 45  # the target is not the image itself,
    assert equal > 25  # and where nothing obstructs, it is what the network sees


def test_one_transform_comes_without_the_others(ears: list[np.ndarray]) -> None:
    """Albumentations' `set_random_seed` has every transform draw the same number."""
    augmentation = Augmentation("full", 1, "augmented")
    counts = {"as it was": 0, "flipped only": 0, "changed": 0}
    gray = in_channels(ears[0], 1)
    for seed in range(400):
        _, target = augmentation(gray, seed)
        same = [np.array_equal(target, way) for way in (gray, gray[:, ::-1])]
        counts["as it was" if same[0] else "flipped only" if same[1] else "changed"] += 1
    # Affine 0.5, perspective 0.15, elastic 0.1, brightness 0.3: without all of them, flipped or not.
    expected = 400 * 0.5 * 0.5 * 0.85 * 0.9 * 0.7
    assert counts["as it was"] == pytest.approx(expected, abs=30)
    assert counts["flipped only"] == pytest.approx(expected, abs=30)


@pytest.mark.parametrize("strength", ["light", "full"])
def test_the_result_depends_on_image_and_seed_alone(
    ears: list[np.ndarray], strength: Strength
) -> None:
    one, other = Augmentation(strength, 3, "clean"), Augmentation(strength, 3, "clean")
    copied = pickle.loads(pickle.dumps(one))  # as a spawned worker gets it
    forward = [one(ear, seed) for ear, seed in zip(ears[:20], SEEDS, strict=False)]
    np.random.seed(3)  # neither the global state nor what was drawn before may matter
    for place in reversed(range(20)):
        for augmentation in (other, copied):
            again = augmentation(ears[place], SEEDS[place])
            np.testing.assert_array_equal(forward[place], again)


@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_stays_and_nothing_saturates(ears: list[np.ndarray], channels: int) -> None:
    """Limits meant for 0 to 255, put on floats in [0, 1], once saturated half of all images."""
    augmentation = Augmentation("full", channels, "augmented")
    before = np.stack([in_channels(ear, channels) for ear in ears])
    pairs = [augmentation(ear, seed) for ear, seed in zip(before, SEEDS, strict=True)]
    for after in (np.stack(images) for images in zip(*pairs, strict=True)):
        assert after.mean() == pytest.approx(before.mean(), rel=0.05)
        assert after.std() == pytest.approx(before.std(), rel=0.1)
        shift = after.mean((1, 2, 3)) - before.mean((1, 2, 3))
        assert np.abs(shift).max() < 60
        assert _saturated(after) < _saturated(before) + 0.02


def _saturated(images: np.ndarray) -> float:
    return float(((images == 0) | (images == 255)).mean())


IN_ANOTHER_PROCESS = """
import hashlib, os, sys
asked = []
watched = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")
sys.addaudithook(lambda event, args: asked.append((event, args)) if event in watched else None)
from earteach.data.augmentation import Augmentation
from earteach.synthetic.drawn_ear import draw_ear
for strength in ("none", "light"):
    Augmentation(strength, 3, "augmented")
print("albumentations" in sys.modules)
seen, target = Augmentation("full", 3, "augmented")(draw_ear(1, 2, 64).image, 12345678901234567)
print(len(asked), os.environ["NO_ALBUMENTATIONS_UPDATE"])
print(hashlib.sha256(seen.tobytes() + target.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_another_process_asks_no_network_and_gives_the_same_result(ears: list[np.ndarray]) -> None:
    env = {k: v for k, v in os.environ.items() if k != "NO_ALBUMENTATIONS_UPDATE"}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", IN_ANOTHER_PROCESS],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    imported, network, digest = result.stdout.splitlines()
    assert imported == "False"  # it takes seconds, which only the full strength waits for
    assert network == "0 1"
    seen, target = Augmentation("full", 3, "augmented")(ears[2], 12345678901234567)
    assert digest == hashlib.sha256(seen.tobytes() + target.tobytes()).hexdigest()
