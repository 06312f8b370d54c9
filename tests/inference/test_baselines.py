"""The yardsticks' values: computed once for each array, and anew when something changed."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from earteach.data.arrays import sampled_rows
from earteach.inference.evaluate import Evaluation, evaluate


@pytest.fixture
def val(ears: Path, tmp_path: Path) -> Path:
    """A copy of the validation array, alone in its folder."""
    return Path(shutil.copy(ears / "val_teacher.npy", tmp_path))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each batch that PCA reconstructs."""
    from earteach.metrics.eigenears import Eigenears

    seen: list[int] = []
    original = Eigenears.reconstruct
    monkeypatch.setattr(
        Eigenears, "reconstruct", lambda self, x: seen.append(len(x)) or original(self, x)
    )
    return seen


def values(seen: Evaluation) -> tuple[object, object]:
    return seen.baselines, seen.over_pca


def test_the_values_are_kept_and_are_the_same(trained, val, computed):
    first = evaluate(trained.last, val)
    assert sum(computed) == first.images
    (kept,) = val.parent.glob("*.npz")
    assert kept.name == "val_teacher.yardsticks-16-32px-3c.npz"
    again = evaluate(trained.last, val)
    assert sum(computed) == first.images
    assert values(again) == values(first)


def test_any_image_that_changes_counts(trained, val, computed):
    images = np.concatenate([np.load(val)] * 20)
    assert 1 not in sampled_rows(len(images))  # a fingerprint does not look at it
    np.save(val, images)
    first = evaluate(trained.last, val)
    images[1] = 255 - images[1]
    np.save(val, images)
    os.utime(val, ns=(1, 1))  # a file system's clock may be coarse
    again = evaluate(trained.last, val)
    assert sum(computed) == 2 * first.images
    assert again.baselines.pca.psnr != first.baselines.pca.psnr


def test_another_pca_counts(trained, val, computed, monkeypatch):
    from earteach.metrics import eigenears

    first = evaluate(trained.last, val)
    fitted = eigenears.fit

    def on_a_darker_mean(*args, **options):
        found = fitted(*args, **options)
        return eigenears.Eigenears(
            found.mean / 2, found.components, found.variances, images=found.images
        )

    monkeypatch.setattr(eigenears, "fit", on_a_darker_mean)
    monkeypatch.setattr(eigenears, "load_npz", lambda *_: None)
    monkeypatch.setattr(eigenears, "store_npz", lambda *_, **__: None)
    again = evaluate(trained.last, val)
    assert sum(computed) == 2 * first.images
    assert again.baselines.mean_image.psnr < first.baselines.mean_image.psnr


def test_where_nothing_can_be_kept_the_values_are_there(trained, val, monkeypatch):
    wanted = evaluate(trained.last, val)
    (kept,) = val.parent.glob("*.npz")
    kept.unlink()
    kept.mkdir()  # in the way
    assert values(evaluate(trained.last, val)) == values(wanted)
