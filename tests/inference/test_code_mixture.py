"""The mixture of a checkpoint's codes: what it is fitted to, and that it is kept."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

import earteach
from earteach.config import InferenceConfig
from earteach.data.arrays import EarArray
from earteach.inference import code_mixture as module
from earteach.inference.code_mixture import fitted_mixture, kept_mixture, training_images
from earteach.inference.loaded_model import load_model
from earteach.metrics.gaussian_mixture import CodeMixture

pytestmark = pytest.mark.usefixtures("bf16_everywhere")

Fits = list[tuple[np.ndarray, np.ndarray, bool]]


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Fits:
    """Codes, pictures and whether there is a side, of each fit that was made."""
    made: Fits = []
    original = module.fit_mixture

    def noted(codes: np.ndarray, pictures: np.ndarray, *, sided: bool) -> CodeMixture:
        made.append((codes, pictures, sided))
        return original(codes, pictures, sided=sided)

    monkeypatch.setattr(module, "fit_mixture", noted)
    return made


def mixture_of(path: Path, config: InferenceConfig | None = None) -> CodeMixture:
    model = load_model(path, config)
    return kept_mixture(model) or fitted_mixture(model, training_images(model))


def same(a: CodeMixture, b: CodeMixture) -> bool:
    return all(
        np.array_equal(value, vars(b)[name], equal_nan=True) for name, value in vars(a).items()
    )


def images_of(ears: Path) -> torch.Tensor:
    stored = np.load(ears / "train_teacher.npy")
    return torch.from_numpy(stored).permute(0, 3, 1, 2).float() / 255


def test_it_is_fitted_to_mu_of_the_training_images(placed, ears, fits):
    mixture_of(placed)
    ((codes, pictures, sided),) = fits
    images = images_of(ears)
    with torch.no_grad():
        wanted = earteach.load(placed).encode(images)[0]
    np.testing.assert_allclose(codes, wanted, atol=1e-5)
    assert sided
    # Of each picture the side that the network sees, in 16 × 16 averages.
    side = wanted[:, -1] < 0
    assert 0 < side.sum() < len(side)
    turned = torch.where(side[:, None, None, None], images.flip(3), images)
    small = turned.unflatten(3, (16, 2)).unflatten(2, (16, 2)).mean(dim=(3, 5))
    np.testing.assert_allclose(pictures, small.flatten(1), atol=1e-5)


def test_a_network_without_sides_sees_pictures_as_they_are(sideless, ears, fits):
    mixture_of(sideless)
    ((_, pictures, sided),) = fits
    small = images_of(ears).unflatten(3, (16, 2)).unflatten(2, (16, 2)).mean(dim=(3, 5))
    np.testing.assert_allclose(pictures, small.flatten(1), atol=1e-5)
    assert not sided


def test_it_is_kept_beside_the_checkpoint(placed, fits):
    first, again = mixture_of(placed), mixture_of(placed)
    assert len(fits) == 1
    assert same(first, again)
    assert sorted(path.name for path in placed.parent.iterdir()) == [
        "last.ckpt",
        "last.mixture.npz",
    ]
    with np.load(placed.with_name("last.mixture.npz"), allow_pickle=False) as stored:
        assert {"weights", "means", "factors", "about"} <= set(stored.files)


def test_it_goes_with_the_weights_wherever_they_are(placed, fits):
    mixture_of(placed)
    moved = placed.parent.rename(placed.parent.with_name("moved")) / "last.ckpt"
    moved.touch()
    mixture_of(moved)
    assert len(fits) == 1


def test_other_weights_are_fitted_anew(placed, fits):
    old = mixture_of(placed)
    state = torch.load(placed, weights_only=True)
    for name, value in state["state_dict"].items():
        if name.endswith("to_code.mu.weight"):
            value += 0.05
    torch.save(state, placed)
    new = mixture_of(placed)
    assert len(fits) == 2
    assert not same(old, new)
    assert same(new, mixture_of(placed))
    assert len(fits) == 2


@pytest.mark.parametrize("spoil", [lambda data: b"", lambda data: data[:500], lambda data: b"text"])
def test_a_damaged_file_is_made_anew(placed, fits, spoil):
    first = mixture_of(placed)
    kept = placed.with_name("last.mixture.npz")
    kept.write_bytes(spoil(kept.read_bytes()))
    assert same(first, mixture_of(placed))
    assert len(fits) == 2


def test_where_it_cannot_be_kept_there_is_a_note(placed, monkeypatch, caplog):
    def refused(path: Path, **_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(np, "savez", refused)
    with caplog.at_level(logging.INFO, "earteach"):
        assert mixture_of(placed).components >= 1
    assert "last.mixture.npz" in caplog.text
    assert "Read-only file system" in caplog.text
    assert [path.name for path in placed.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize(
    "config", [InferenceConfig(batch_size=1), InferenceConfig(precision="bf16")]
)
def test_who_asks_first_does_not_matter(placed, fits, config):
    first = mixture_of(placed)
    placed.with_name("last.mixture.npz").unlink()
    assert same(first, mixture_of(placed, config))
    assert len(fits) == 2


def test_of_very_many_images_an_even_share_is_taken(placed, ears, fits, monkeypatch, caplog):
    monkeypatch.setattr(module, "_MOST_IMAGES", 5)
    with caplog.at_level(logging.INFO, "earteach"):
        assert mixture_of(placed).images == 5
    last = len(np.load(ears / "train_teacher.npy")) - 1
    rows = [round(last * share / 4) for share in range(5)]
    model, array = earteach.load(placed), EarArray.open(ears / "train_teacher.npy")
    images = torch.stack([torch.from_numpy(array.stored(row).copy()) for row in rows])
    with torch.no_grad():
        wanted = model.encode(images.permute(0, 3, 1, 2).float() / 255)[0]
    np.testing.assert_allclose(fits[0][0], wanted, atol=1e-5)
    assert "the codes of 5 images" in caplog.text


def test_an_array_that_has_changed_since_training_gives_a_note(placed, tmp_path, ears, caplog):
    other = np.load(ears / "train_teacher.npy")[::-1]
    np.save(tmp_path / "other.npy", other)
    with caplog.at_level(logging.INFO, "earteach"):
        training_images(load_model(placed))
    assert not caplog.records
    state = torch.load(placed, weights_only=True)
    state["earteach"]["config"]["data"]["train_data"] = str(tmp_path / "other.npy")
    torch.save(state, placed)
    with caplog.at_level(logging.INFO, "earteach"):
        training_images(load_model(placed))
    assert "other.npy: has changed since" in caplog.text
