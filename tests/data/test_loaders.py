"""Batches are a pure function of (seed, epoch, position), with any number of workers and ranks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from earteach.config import TrainConfig
from earteach.data.arrays import EarArray
from earteach.data.loaders import (
    EarDataset,
    EpochOrder,
    Sample,
    TrainingLoader,
    training_loader,
    validation_loader,
)
from earteach.synthetic.drawn_ear import draw_ear

SIZE, BATCH = 32, 7


@pytest.fixture(scope="module")
def array(ears: Path) -> EarArray:
    return EarArray.open(ears / "train_teacher.npy")


def config(**options: Any) -> TrainConfig:
    tiny = {"image_size": SIZE, "batch_size": BATCH, "num_workers": 0}
    return TrainConfig().with_options({**tiny, **options})


def epoch_of(loader: TrainingLoader, epoch: int) -> list[Sample]:
    """One epoch's batches, begun as Lightning begins it."""
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return list(loader)


def assert_same(some: list[Sample], others: list[Sample]) -> None:
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        for key in ("input", "target", "index"):
            assert torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key]))  # type: ignore[literal-required]


def keys(order: EpochOrder, epoch: int) -> list[tuple[int, int]]:
    order.set_epoch(epoch)
    return list(order)


def test_the_order_is_a_permutation_by_seed_and_epoch_alone() -> None:
    order = EpochOrder(50, seed=42)
    epochs = [keys(order, epoch) for epoch in range(4)]
    for number, epoch in enumerate(epochs):
        assert {key[0] for key in epoch} == {number}
        assert sorted(index for _, index in epoch) == list(range(50))
    assert len({tuple(index for _, index in epoch) for epoch in epochs}) == 4
    torch.manual_seed(1)
    np.random.seed(1)
    assert keys(order, 3) == keys(EpochOrder(50, seed=42), 3) == epochs[3]
    assert keys(EpochOrder(50, seed=43), 3) != epochs[3]


@pytest.mark.parametrize("length", [1, 2, 7, 24, 25])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_all_ranks_together_cover_everything(length: int, world_size: int) -> None:
    shares = [EpochOrder(length, 42, rank, world_size) for rank in range(world_size)]
    drawn = [[index for _, index in keys(share, 2)] for share in shares]
    assert {len(share) for share in shares} == {len(indices) for indices in drawn}
    assert len({len(indices) for indices in drawn}) == 1
    every = [index for indices in drawn for index in indices]
    assert set(every) == set(range(length))
    assert len(every) - length < world_size  # padded by no more than needed


@pytest.mark.parametrize("target", ["clean", "augmented"])
@pytest.mark.parametrize("channels", [1, 3])
def test_batches_have_the_promised_form(array: EarArray, channels: int, target: str) -> None:
    options = {"in_channels": channels, "target": target, "augmentation": "full"}
    loader = training_loader(config(**options, image_size=48), array)
    differing = 0
    for batch in epoch_of(loader, 0):
        count = len(batch["index"])  # type: ignore[arg-type]
        for key in ("input", "target"):
            assert batch[key].dtype == torch.uint8  # type: ignore[literal-required]
            assert batch[key].shape == (count, channels, 48, 48)  # type: ignore[literal-required]
        differing += not torch.equal(batch["input"], batch["target"])
    assert (differing > 0) == (target == "clean")


@pytest.mark.parametrize("workers", [0, 2])
def test_many_small_files_give_the_batches_of_one(array: EarArray, tmp_path: Path, workers) -> None:
    for row in range(len(array)):
        np.save(tmp_path / f"{row:03d}.npy", array.raw[row][None])
    pieces = EarArray.open(tmp_path / "*.npy")
    loaders = [training_loader(config(num_workers=workers), each) for each in (array, pieces)]
    assert_same(*[epoch_of(loader, 1) for loader in loaders])


def test_without_augmentation_the_index_names_the_row(array: EarArray, ears: Path) -> None:
    val = EarArray.open(ears / "val_teacher.npy")
    loaders = [
        (ears / "val_teacher.npy", list(validation_loader(config(batch_size=3), val))),
        (
            ears / "train_teacher.npy",
            epoch_of(training_loader(config(augmentation="none"), array), 1),
        ),
    ]
    for path, batches in loaders:
        indices = torch.cat([torch.as_tensor(batch["index"]) for batch in batches]).numpy()
        images = torch.cat([batch["input"] for batch in batches]).permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(images, np.load(path)[indices])
        assert sorted(indices) == list(range(len(images)))
        assert (indices.tolist() == sorted(indices)) == (path.name == "val_teacher.npy")
        assert all(torch.equal(batch["input"], batch["target"]) for batch in batches)


def test_workers_batches_and_shares_do_not_change_an_image(array: EarArray) -> None:
    loaders = [training_loader(config(num_workers=count), array) for count in (0, 2)]
    for epoch in (0, 1):
        assert_same(*[epoch_of(loader, epoch) for loader in loaders])

    def images(loader: TrainingLoader) -> dict[int, torch.Tensor]:
        return {
            int(index): image
            for batch in epoch_of(loader, 4)
            for index, image in zip(torch.as_tensor(batch["index"]), batch["input"], strict=True)
        }

    whole = images(training_loader(config(), array))
    half = images(training_loader(config(batch_size=3), array, rank=1, world_size=2))
    assert len(half) > 10
    assert all(torch.equal(whole[index], image) for index, image in half.items())


def test_no_augmentation_repeats_over_images_and_epochs(tmp_path: Path) -> None:
    """Albumentations alone repeats itself in workers: once 8 distinct results of 48."""
    ear = draw_ear(0, 0, SIZE).image
    np.save(tmp_path / "same.npy", np.stack([ear] * 16))
    loader = training_loader(config(num_workers=2), EarArray.open(tmp_path / "same.npy"))
    seen = {
        image.numpy().tobytes()
        for epoch in range(3)
        for batch in epoch_of(loader, epoch)
        for image in batch["input"]
    }
    assert len(seen) > 35  # a few of the 48 are the ear as it is, or flipped only


@pytest.mark.parametrize(("workers", "stop"), [(0, 0), (0, 1), (0, 3), (2, 3)])
def test_a_loader_continues_exactly_inside_an_epoch(
    array: EarArray, workers: int, stop: int
) -> None:
    whole = training_loader(config(), array)
    expected = [epoch_of(whole, epoch) for epoch in (2, 3)]
    interrupted = training_loader(config(num_workers=workers), array)
    interrupted.sampler.set_epoch(2)  # type: ignore[attr-defined]
    batches = iter(interrupted)
    for _ in range(stop):
        next(batches)
    state = interrupted.state_dict()
    assert state == {"epoch": 2, "batches": stop}
    continued = training_loader(config(num_workers=workers), array)
    continued.load_state_dict(state)
    assert continued.state_dict() == state
    assert_same(epoch_of(continued, 2), expected[0][stop:])
    assert continued.state_dict() == {"epoch": 3, "batches": 0}
    assert_same(epoch_of(continued, 3), expected[1])


def test_a_loader_stopped_twice_in_an_epoch_counts_from_its_beginning(array: EarArray) -> None:
    expected = epoch_of(training_loader(config(), array), 0)
    state = {"epoch": 0, "batches": 2}
    for step in (3, 4):
        loader = training_loader(config(), array)
        loader.load_state_dict(state)
        batches = iter(loader)
        assert_same([next(batches)], [expected[step - 1]])
        state = loader.state_dict()
        assert state == {"epoch": 0, "batches": step}


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_validation_has_each_image_once_over_all_ranks(array: EarArray, world_size: int) -> None:
    indices: list[int] = []
    for rank in range(world_size):
        for batch in validation_loader(config(), array, rank=rank, world_size=world_size):
            indices += torch.as_tensor(batch["index"]).tolist()
    assert sorted(indices) == list(range(len(array)))


def test_workers_are_never_more_than_the_cores(
    array: EarArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    for wanted, given in {0: 0, 2: 2, 3: 3, 64: 3}.items():
        for make in (training_loader, validation_loader):
            assert make(config(num_workers=wanted), array).num_workers == given


LEAVE_EARLY = """
import sys
from earteach.config import TrainConfig
from earteach.data.arrays import EarArray
from earteach.data.loaders import training_loader, validation_loader
config = TrainConfig().with_options({"image_size": 32, "batch_size": 2, "num_workers": 2})
loaders = [make(config, EarArray.open(sys.argv[1])) for make in (training_loader, validation_loader)]
batches = [iter(loader) for loader in loaders]
first = [next(loading) for loading in batches]
raise RuntimeError("left early")
"""


@pytest.mark.slow
def test_a_process_that_leaves_early_ends_with_its_workers(array: EarArray) -> None:
    """Workers ignore SIGTERM, by which Python would end them; it once waited for them for ever."""
    result = subprocess.run(
        [sys.executable, "-c", LEAVE_EARLY, str(array.path)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1] == "RuntimeError: left early"


def test_a_gray_row_of_a_mapped_file_is_copied(tmp_path: Path) -> None:
    """torch warns of a tensor over read-only memory; in a worker that warning could block."""
    np.save(tmp_path / "gray.npy", np.zeros((2, 32, 32, 1), np.uint8))
    dataset = EarDataset(EarArray.open(tmp_path / "gray.npy"), size=32, channels=1)
    seen = dataset[0, 1]["input"]
    seen += 1
    assert int(seen.sum()) == 32 * 32
    assert int(dataset[0, 1]["input"].sum()) == 0
