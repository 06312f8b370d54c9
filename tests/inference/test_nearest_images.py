"""The nearest training image, compared with a search by hand."""

from pathlib import Path

import numpy as np
import pytest

from earteach.data.arrays import EarArray
from earteach.inference import nearest_images as module
from earteach.inference.nearest_images import nearest_images


def soft_images(number: int, size: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Asymmetric images, uint8 `(N, S, S, C)`."""
    small = np.random.default_rng(seed).integers(0, 256, (number, 8, 8, channels))
    return small.repeat(size // 8, axis=1).repeat(size // 8, axis=2).astype(np.uint8)


def array(folder: Path, images: np.ndarray) -> EarArray:
    np.save(folder / "train.npy", images)
    return EarArray.open(folder / "train.npy")


def rmse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a / 255 - b / 255) ** 2)))


@pytest.mark.parametrize(("size", "channels", "batch"), [(32, 3, 256), (32, 1, 7), (96, 3, 4)])
def test_it_has_the_least_distance_among_all_images_and_mirrors(
    tmp_path, monkeypatch, size, channels, batch
):
    monkeypatch.setattr(module, "_BATCH_SIZE", batch)
    train, queries = soft_images(23, size, channels), soft_images(6, size, channels, seed=1)
    queries = np.concatenate([queries, train[[17]], train[[21], :, ::-1]])
    matches = nearest_images(queries, array(tmp_path, train))
    for query, match in zip(queries, matches, strict=True):
        distances = [[rmse(query, image), rmse(query, image[:, ::-1])] for image in train]
        row, mirrored = np.unravel_index(np.argmin(distances), (23, 2))
        assert (match.row, match.mirrored) == (row, bool(mirrored))
        assert match.distance == pytest.approx(np.min(distances), rel=1e-6)
    assert [match.distance for match in matches[-2:]] == [0, 0]


def test_images_of_another_size_are_compared_at_the_networks_size(tmp_path):
    train = array(tmp_path, soft_images(10, size=48, channels=1)[..., 0])
    (match,) = nearest_images(train.image(4, size=32, channels=3)[None], train)
    assert (match.row, match.distance) == (4, 0.0)


def test_among_very_many_images_evenly_spread_ones_are_searched(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MAX_IMAGES", 5)
    train = soft_images(17)
    matches = nearest_images(train, array(tmp_path, train))
    assert {match.row for match in matches} <= {0, 4, 8, 12, 16}
    assert [matches[row].distance for row in (0, 4, 8, 12, 16)] == [0] * 5
