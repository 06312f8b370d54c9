"""`resume`: all that the checkpoint knows, and a new length or other hardware where asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from earteach import checkpoint
from tests.conftest import TINY, TINY_RUN, data_options, earteach

LAST = Path("checkpoints/last.ckpt")
LINEAR = ["--kld-anneal-strategy", "linear", "--kld-weight", 1]


@pytest.fixture(scope="module")
def made(ears: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of three epochs of one step whose KLD weight rises 0, ½, 1."""
    folder = tmp_path_factory.mktemp("made")
    quick = [*TINY, "--batch-size", 64, "--num-workers", 0, "--augmentation", "light"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = earteach("train", *data_options(ears), *quick, *LINEAR, "--epochs", 3)
    assert result.code == 0, result.err
    return folder


@pytest.fixture(autouse=True)
def copied(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder is a copy of it."""
    shutil.copytree(made, tmp_path / "a")
    monkeypatch.chdir(tmp_path / "a")


def resumed(*options: object) -> Any:
    result = earteach(*options, "--json")
    assert result.code == 0, result.err
    return result.json


def recorded() -> list[Any]:
    lines = Path("logs/ear_vae/metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def kld_weights() -> list[float]:
    return [record["metrics"]["train/kld_weight"] for record in recorded()]


def weights(path: Path = LAST) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = checkpoint.read(path).state["state_dict"]
    return found


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_more_epochs_make_the_run_longer() -> None:
    result = resumed("resume", "--epochs", 5)
    assert result["resumed_from"] == result["last"] == str(LAST)
    assert (result["epochs_completed"], result["global_step"]) == (5, 5)
    assert result["stopped_by"] == "finished"
    assert [record["epoch"] for record in recorded()] == [0, 1, 2, 3, 4]


def test_a_longer_run_keeps_the_shape_of_the_schedule() -> None:
    result = earteach("resume", "--epochs", 5)
    assert kld_weights() == pytest.approx([0, 0.5, 1, 1, 1])
    assert "keeps its shape of 3 epochs" in result.err
    resumed("resume", "--epochs", 6)
    assert kld_weights() == pytest.approx([0, 0.5, 1, 1, 1, 1])


def test_reanneal_stretches_the_schedule() -> None:
    result = earteach("resume", "--epochs", 5, "--reanneal")
    # 3/4 and 4/4 of the way, where the first three had thirds of their own
    assert kld_weights() == pytest.approx([0, 0.5, 1, 0.75, 1])
    assert "stretched to 5 epochs" in result.err


def test_a_longer_schedule_is_said_to_be_as_long_as_it_is(
    ears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [*data_options(ears), *TINY_RUN, *LINEAR]
    assert earteach("train", *options, "--epochs", 1, "--kld-anneal-epochs", 4).code == 0
    for epochs, told in (
        (2, "keeps its shape of 4 epochs, which the run leaves after 2"),
        (4, "keeps its shape of 4 epochs"),
    ):
        result = earteach("resume", "--epochs", epochs)
        (said,) = (line for line in result.err.splitlines() if "schedule" in line)
        assert said.endswith(told)
    assert kld_weights() == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_a_run_that_stopped_early_has_its_patience_again(
    ears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    still = ["--learning-rate", 1e-12, "--weight-decay", 0, "--patience", 2, "--epochs", 9]
    stopped = earteach("train", *data_options(ears), *TINY_RUN, *still, "--json").json
    assert stopped["stopped_by"] == "early_stopping"
    done = stopped["epochs_completed"]
    again = resumed("resume", "--epochs", 12)
    assert again["stopped_by"] == "early_stopping"
    assert again["epochs_completed"] == done + 2


@pytest.mark.parametrize("options", [[], ["--epochs", 3], ["--epochs", 2]])
def test_a_finished_run_needs_more_epochs(options: list[object]) -> None:
    result = earteach("resume", *options)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"error: {LAST}: this run finished after 3 epochs")
    assert f"earteach resume {LAST} --epochs" in result.err


@pytest.mark.parametrize("args", [[LAST], ["--checkpoint-dir", "checkpoints"]])
def test_the_checkpoint_may_be_named(args: list[Any]) -> None:
    assert resumed("resume", *args, "--epochs", 4)["epochs_completed"] == 4


def test_train_with_resume_is_the_same(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [resumed("resume", LAST, "--epochs", 5)]
    shutil.copytree(made, tmp_path / "b")
    monkeypatch.chdir(tmp_path / "b")
    results.append(resumed("train", "--resume", LAST, "--epochs", 5))
    for result in results:
        del result["seconds"]
    assert results[0] == results[1]
    assert same(weights(tmp_path / "a" / LAST), weights(tmp_path / "b" / LAST))


@pytest.mark.parametrize(
    ("typed", "differences"),
    [
        ("--latent-dim 8", ["--latent-dim 16 → 8"]),
        ("--seed 1 --patience 2", ["--seed 42 → 1", "--patience 30 → 2"]),
        ("--kld-weight 2 --epochs 5", ["--kld-weight 1.0 → 2.0"]),
        # A default that is typed counts as much as any other value.
        ("--batch-size 32", ["--batch-size 64 → 32"]),
    ],
)
def test_train_with_resume_refuses_other_options(typed: str, differences: list[str]) -> None:
    before = LAST.read_bytes()
    result = earteach("train", "--resume", LAST, *typed.split())
    assert (result.code, result.out) == (1, "")
    assert all(difference in result.err for difference in differences)
    assert result.err.count("→") == len(differences)
    assert LAST.read_bytes() == before


def test_train_with_resume_takes_the_options_that_it_had() -> None:
    typed = ["--latent-dim", 16, *LINEAR, "--epochs", 4]
    assert resumed("train", "--resume", LAST, *typed)["epochs_completed"] == 4


@pytest.mark.parametrize(("text", "code"), [("latent_dim = 16", 0), ("latent_dim = 8", 1)])
def test_a_config_file_counts_as_typed(text: str, code: int) -> None:
    Path("run.toml").write_text(f"{text}\nepochs = 4\n")
    result = earteach("train", "--resume", LAST, "--config", "run.toml", "--json")
    assert result.code == code
    assert ("--latent-dim 16 → 8" in result.err) == bool(code)


def test_hardware_can_be_changed_and_nothing_else_is() -> None:
    old = checkpoint.read(LAST).config
    resumed("resume", "--epochs", 4, "--precision", "bf16", "--num-workers", 1)
    new = checkpoint.read(LAST).config
    assert (new.hardware.precision, new.hardware.num_workers) == ("bf16", 1)
    changed = {"precision": "32", "num_workers": 0, "epochs": 3, "kld_anneal_epochs": None}
    assert new.with_options(changed) == old


def test_hardware_that_is_not_typed_stays_as_it_was() -> None:
    resumed("resume", "--epochs", 4, "--precision", "bf16")
    resumed("resume", "--epochs", 5)
    assert checkpoint.read(LAST).config.hardware.precision == "bf16"


def test_a_missing_gpu_is_a_users_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    result = earteach("resume", "--epochs", 4, "--accelerator", "gpu")
    assert (result.code, result.out) == (1, "")
    assert "error: --accelerator gpu: torch finds no GPU" in result.err


def test_a_copied_checkpoint_is_continued_beside_itself() -> None:
    Path("other").mkdir()
    shutil.copy(LAST, "other/copy.ckpt")
    before = LAST.read_bytes()
    result = resumed("resume", "other/copy.ckpt", "--epochs", 4)
    assert result["last"] == "other/last.ckpt"
    assert checkpoint.read(Path("other/last.ckpt")).epochs_completed == 4
    assert LAST.read_bytes() == before


def test_a_missing_array_is_named(ears: Path) -> None:
    state = checkpoint.read(LAST).state
    state[checkpoint.KEY]["config"]["data"]["train_data"] = "gone.npy"
    checkpoint.write(state, LAST)
    result = earteach("resume", "--epochs", 4)
    assert (result.code, result.out) == (1, "")
    assert "error: gone.npy: no such file" in result.err


def with_log_dir(named: Path) -> None:
    state = torch.load(LAST, weights_only=True)
    state["earteach"]["config"]["run"]["log_dir"] = str(named)
    torch.save(state, LAST)


@pytest.mark.parametrize("named", ["{}/elsewhere", "../elsewhere"])
def test_a_checkpoint_cannot_have_its_log_written_anywhere(tmp_path: Path, named: str) -> None:
    with_log_dir(Path(named.format(tmp_path)))
    result = earteach("resume", LAST.absolute(), "--epochs", 4)
    assert result.code == 0, result.err
    assert f"its log goes on in {Path('logs').absolute()}: in" in result.err
    assert not (tmp_path / "elsewhere").exists()
    assert [record["epoch"] for record in recorded()] == [0, 1, 2, 3]


def test_where_a_runs_log_is_it_goes_on(tmp_path: Path) -> None:
    Path("logs").rename(tmp_path / "elsewhere")
    with_log_dir(tmp_path / "elsewhere")
    assert earteach("resume", "--epochs", 4).code == 0
    lines = (tmp_path / "elsewhere/ear_vae/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2, 3]
    assert not Path("logs").exists()
