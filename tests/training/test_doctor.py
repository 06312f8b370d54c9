"""Runs made sick on purpose: each hears its own trouble, and is well once it does as it was told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Result, data_options, earteach, run_options

# Eleven steps an epoch on the 41 drawn ears.
SMALL = [
    "--image-size", 32, "--base-channels", 4, "--latent-dim", 16, "--batch-size", 4,
    "--num-workers", 0, "--accelerator", "cpu",
]  # fmt: skip
PLAIN = ["--augmentation", "none"]
RATE_1 = ["--learning-rate", 1, "--lr-schedule", "plateau"]


def train(data: Path, folder: Path, *options: object) -> Result:
    result = earteach(
        "train", *data_options(data), *run_options(folder), *SMALL, *options, "--json"
    )
    assert result.code == 0, result.err
    return result


def codes(result: Result) -> list[str]:
    return [advice["code"] for advice in result.json["advice"]]


def notes(result: Result, start: str) -> list[str]:
    return [line for line in result.err.splitlines() if line.startswith(f"note: {start}")]


def followed(advice: dict[str, Any]) -> list[object]:
    return [f"--{advice['option'].replace('_', '-')}", advice["value"]]


@pytest.fixture
def heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Obstructions that hide a fifth of every image."""
    import albumentations as A

    hole = {"hole_height_range": (0.3, 0.3), "hole_width_range": (0.3, 0.3)}
    dropout = A.CoarseDropout(num_holes_range=(2, 2), fill="random_uniform", p=1, **hole)
    monkeypatch.setattr("earteach.data.photometric.obstructions", lambda _: A.Compose([dropout]))


@pytest.fixture
def eight(ears: Path, tmp_path: Path) -> Path:
    """The drawn ears with eight of them for training."""
    np.save(tmp_path / "train_teacher.npy", np.load(ears / "train_teacher.npy")[:8])
    np.save(tmp_path / "val_teacher.npy", np.load(ears / "val_teacher.npy"))
    return tmp_path


SICK = {
    "collapse": (
        "kld_weight_high",
        [*PLAIN, "--epochs", 12, "--kld-reduction", "sum", "--kld-weight", 0.025],
    ),
    "collapse from noise": (
        "kld_weight_high",
        [*PLAIN, "--epochs", 12, "--kld-reduction", "sum", "--kld-weight", 0.025,
         "--no-pca-init"],
    ),
    "no weight": ("kld_weight_low", [*PLAIN, "--epochs", 10, "--kld-weight", 1e-9]),
    "rate too high": ("learning_rate_high", [*PLAIN, *RATE_1, "--epochs", 10]),
    "rate too low": ("learning_rate_low", [*PLAIN, "--epochs", 10, "--learning-rate", 2e-6]),
}  # fmt: skip
OPTIONS = {
    "kld_weight_high": "kld_weight",
    "kld_weight_low": "kld_weight",
    "learning_rate_high": "learning_rate",
    "learning_rate_low": "learning_rate",
}


@pytest.mark.parametrize("sickness", SICK)
def test_a_sick_run_hears_what_it_has_and_what_to_change(
    ears: Path, tmp_path: Path, sickness: str
) -> None:
    code, options = SICK[sickness]
    result = train(ears, tmp_path, *options)
    assert codes(result) == [code]
    (advice,) = result.json["advice"]
    assert set(advice) == {"code", "message", "option", "value"}
    assert advice["option"] == OPTIONS[code]


@pytest.mark.slow
@pytest.mark.parametrize("sickness", SICK)
def test_a_run_that_does_as_it_was_told_is_well(ears: Path, tmp_path: Path, sickness: str) -> None:
    _, options = SICK[sickness]
    (advice,) = train(ears, tmp_path / "sick", *options).json["advice"]
    cured = train(ears, tmp_path / "cured", *options, *followed(advice))
    # A run from noise cannot be done in a hundred steps.
    assert set(codes(cured)) <= {"still_improving"}


def test_eight_images_are_learned_by_heart(eight: Path, tmp_path: Path) -> None:
    result = train(eight, tmp_path, *PLAIN, "--batch-size", 1, "--epochs", 13)
    assert codes(result) == ["overfitting"]
    assert followed(result.json["advice"][0]) == ["--augmentation", "light"]
    assert len(notes(result, "overfitting")) == 1


@pytest.mark.slow
def test_eight_images_are_learned_by_heart_from_noise_too(eight: Path, tmp_path: Path) -> None:
    result = train(
        eight, tmp_path, *PLAIN, "--no-pca-init", "--base-channels", 8, "--batch-size", 1,
        "--learning-rate", 2e-2, "--epochs", 60,
    )  # fmt: skip
    assert codes(result) == ["overfitting"]


def test_obstructions_that_hide_too_much_are_told(ears: Path, tmp_path: Path, heavy: None) -> None:
    # Seen and unseen ears are equally hard where they are the same.
    same = ["--val-data", ears / "train_teacher.npy", "--augmentation", "full", "--epochs", 10]
    result = train(ears, tmp_path, *same)
    assert codes(result) == ["augmentation"]
    assert followed(result.json["advice"][0]) == ["--augmentation", "light"]


@pytest.mark.parametrize(
    "more",
    [
        [],
        pytest.param(["--augmentation", "full"], marks=pytest.mark.slow),
        pytest.param(["--lr-schedule", "plateau", "--epochs", 40], marks=pytest.mark.slow),
    ],
)
def test_a_healthy_run_hears_nothing(ears: Path, tmp_path: Path, more: list[object]) -> None:
    result = train(ears, tmp_path, "--epochs", 12, *more)
    assert codes(result) == []
    said = [line for line in result.err.splitlines() if line.startswith("note:")]
    assert all("training on" in line or "first weights" in line for line in said), said


def test_a_run_from_noise_is_to_go_on(ears: Path, tmp_path: Path) -> None:
    options = [*PLAIN, "--no-pca-init", "--lr-schedule", "plateau", "--learning-rate", 1e-3]
    result = train(ears, tmp_path, *options, "--epochs", 12)
    assert codes(result) == ["still_improving"]
    assert followed(result.json["advice"][0]) == ["--epochs", 24]


@pytest.mark.parametrize("options", [["--kld-weight", 1e-9], RATE_1])
def test_a_short_run_hears_nothing(ears: Path, tmp_path: Path, options: list[object]) -> None:
    assert codes(train(ears, tmp_path, *PLAIN, "--epochs", 3, *options)) == []


@pytest.fixture(scope="module")
def unweighted(ears: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A run with no weight to speak of, which is at its height from the second epoch on."""
    folder = tmp_path_factory.mktemp("unweighted")
    flat = ["--kld-anneal-cycles", 1, "--kld-anneal-ratio", 0.1]
    options = [*PLAIN, *flat, "--kld-weight", 1e-9, "--epochs", 12]
    return folder / "checkpoints" / "last.ckpt", train(ears, folder, *options)


def test_trouble_is_noted_when_it_is_seen_and_once(unweighted: tuple[Path, Result]) -> None:
    _, result = unweighted
    (note,) = notes(result, "the KLD weighs too little")
    # Said after the epoch in which a hundred steps were done, not at the end.
    lines = result.err.splitlines()
    before = [line.split()[1] for line in lines[: lines.index(note)] if line.startswith("epoch")]
    assert before[-1] == "10/12"


def test_a_continuation_shows_it_but_does_not_note_it_again(
    unweighted: tuple[Path, Result], tmp_path: Path
) -> None:
    shutil.copytree(unweighted[0].parent, tmp_path / "checkpoints")
    longer = earteach("resume", tmp_path / "checkpoints" / "last.ckpt", "--epochs", 13)
    assert longer.code == 0, longer.err
    assert notes(longer, "the KLD weighs too little") == []
    shown = " ".join(longer.out.replace("│", " ").split())
    assert "kld weight low" in shown
    assert "try --kld-weight" in shown


def test_eval_says_it_too(unweighted: tuple[Path, Result]) -> None:
    last, result = unweighted
    told = earteach("eval", last, "--no-baselines", "--json").json
    assert told["advice"] == result.json["advice"]
    assert "kld weight low" in earteach("eval", last, "--no-baselines").out
