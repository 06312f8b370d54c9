"""The nearest training image against a search by hand."""

import logging
from pathlib import Path

import numpy as np
import pytest

from earteach.data.arrays import EarArray
from earteach.inference import nearest_images as module
from earteach.inference.nearest_images import nearest_images, shown


def ears(number: int, size: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Soft pictures without symmetry, uint8 `(N, S, S, C)`."""
    small = np.random.default_rng(seed).integers(0, 256, (number, 8, 8, channels))
    return small.repeat(size // 8, axis=1).repeat(size // 8, axis=2).astype(np.uint8)


def array(folder: Path, images: np.ndarray) -> EarArray:
    np.save(folder / "train.npy", images)
    return EarArray.open(folder / "train.npy")


def rmse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a / 255 - b / 255) ** 2)))


@pytest.mark.parametrize(("size", "channels", "piece"), [(32, 3, 256), (32, 1, 7), (96, 3, 4)])
def test_it_is_the_least_distance_over_all_images_and_mirrors(
    tmp_path, monkeypatch, size, channels, piece
):
    monkeypatch.setattr(module, "_PIECE", piece)
    train, queries = ears(23, size, channels), ears(6, size, channels, seed=1)
    found = nearest_images(queries, array(tmp_path, train))
    for query, entry in zip(queries, found, strict=True):
        distances = [[rmse(query, image), rmse(query, image[:, ::-1])] for image in train]
        row, flip = np.unravel_index(np.argmin(distances), (23, 2))
        assert (entry.row, entry.mirrored) == (row, bool(flip))
        assert entry.distance == pytest.approx(np.min(distances), rel=1e-6)


def test_a_copy_and_a_mirrored_copy_are_found(tmp_path):
    train = ears(40)
    queries = np.stack([train[17], train[31][:, ::-1], train[0] // 2])
    copy, turned, dark = nearest_images(queries, array(tmp_path, train))
    assert (copy.row, copy.mirrored, copy.distance) == (17, False, 0.0)
    assert (turned.row, turned.mirrored, turned.distance) == (31, True, 0.0)
    assert dark.distance > 0.05


def test_images_of_another_size_and_kind_are_compared_as_the_network_sees_them(tmp_path):
    train = ears(10, size=48, channels=1)
    held = array(tmp_path, train[..., 0])
    query = held.image(4, size=32, channels=3)
    (found,) = nearest_images(query[None], held)
    assert (found.row, found.distance) == (4, 0.0)
    assert np.array_equal(shown(held, 4, True, 32, 3), query[:, ::-1])


def test_of_very_many_images_an_even_share_is_looked_through(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "_MOST_IMAGES", 5)
    train = ears(17)
    with caplog.at_level(logging.INFO, "earteach"):
        found = nearest_images(train, array(tmp_path, train))
    assert {entry.row for entry in found} <= {0, 4, 8, 12, 16}
    assert [found[row].distance for row in (0, 4, 8, 12, 16)] == [0] * 5
    assert "among 5 of 17, evenly spread" in caplog.text
