"""The mixture of a checkpoint's codes: what it is fitted to, and when it is fitted again."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

import earteach
from earteach.config import InferenceConfig
from earteach.inference import samplers as module
from earteach.inference.loaded_model import load_model
from earteach.inference.samplers import get_mixture, training_images
from earteach.metrics.gaussian_mixture import CodeMixture
from tests.inference.conftest import batch, rename_arrays

pytestmark = pytest.mark.usefixtures("bf16_everywhere")

Fits = list[tuple[np.ndarray, np.ndarray, bool]]


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Fits:
    """Codes, thumbnails and `has_side` of each fit."""
    calls: Fits = []
    original = module.fit_mixture

    def recorded(codes: np.ndarray, images: np.ndarray, *, has_side: bool) -> CodeMixture:
        calls.append((codes, images, has_side))
        return original(codes, images, has_side=has_side)

    monkeypatch.setattr(module, "fit_mixture", recorded)
    return calls


def mixture_of(path: Path, config: InferenceConfig = InferenceConfig()) -> CodeMixture:
    return get_mixture(load_model(path, config))


def same(a: CodeMixture, b: CodeMixture) -> bool:
    return all(
        np.array_equal(value, vars(b)[name], equal_nan=True) for name, value in vars(a).items()
    )


@pytest.mark.parametrize("has_side", [True, False])
@pytest.mark.parametrize("limit", [None, 5])
def test_it_is_fitted_to_mu_and_thumbnails_of_evenly_spread_training_images(
    placed, sideless, ears, fits, monkeypatch, caplog, has_side, limit
):
    stored = np.load(ears / "train_teacher.npy")
    if limit:
        monkeypatch.setattr(module, "_MAX_IMAGES", limit)
        stored = stored[[round((len(stored) - 1) * index / 4) for index in range(5)]]
    checkpoint = placed if has_side else sideless
    with caplog.at_level(logging.INFO, "earteach"):
        assert mixture_of(checkpoint).images == len(stored)
    assert f"the codes of {len(stored)} images" in caplog.text
    ((codes, thumbnails, sided),) = fits
    images = batch(stored)
    with torch.no_grad():
        mu = earteach.load(checkpoint).encode(images)[0]
    np.testing.assert_allclose(codes, mu, atol=1e-5)
    assert sided is has_side
    if has_side:
        images = torch.where((mu[:, -1] < 0)[:, None, None, None], images.flip(3), images)
    small = images.unflatten(3, (16, 2)).unflatten(2, (16, 2)).mean(dim=(3, 5))
    np.testing.assert_allclose(thumbnails, small.flatten(1), atol=1e-5)


def test_it_is_stored_beside_the_checkpoint_and_moves_with_it(placed, fits):
    first = mixture_of(placed)
    assert {path.name for path in placed.parent.iterdir()} == {"last.ckpt", "last.mixture.npz"}
    with np.load(placed.with_name("last.mixture.npz"), allow_pickle=False) as stored:
        assert {"weights", "means", "factors", "about"} <= set(stored.files)
    moved = placed.parent.rename(placed.parent.with_name("moved")) / "last.ckpt"
    moved.touch()
    assert same(first, mixture_of(moved))
    assert len(fits) == 1


def test_other_weights_need_another_fit(placed, fits):
    before = mixture_of(placed)
    state = torch.load(placed, weights_only=True)
    for name, value in state["state_dict"].items():
        if name.endswith("to_code.mu.weight"):
            value += 0.05
    torch.save(state, placed)
    after = mixture_of(placed)
    assert not same(before, after)
    assert same(after, mixture_of(placed))
    assert len(fits) == 2


@pytest.mark.parametrize(
    "config", [InferenceConfig(batch_size=1), InferenceConfig(precision="bf16")]
)
def test_it_depends_on_neither_batch_size_nor_precision(placed, fits, config):
    first = mixture_of(placed)
    placed.with_name("last.mixture.npz").unlink()
    assert same(first, mixture_of(placed, config))
    assert len(fits) == 2


def test_an_array_that_has_changed_since_training_gives_a_note(placed, tmp_path, ears, caplog):
    caplog.set_level(logging.INFO, "earteach")
    training_images(load_model(placed))
    assert not caplog.records
    np.save(tmp_path / "other.npy", np.load(ears / "train_teacher.npy")[::-1])
    training_images(load_model(rename_arrays(placed, train_data=tmp_path / "other.npy")))
    assert "other.npy: has changed since" in caplog.text
