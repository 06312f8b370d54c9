"""`train` and `resume` over an existing run: what continues it, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from earteach import checkpoint
from tests.conftest import TINY, earteach

EPOCHS = 3
# One step per epoch without augmentation, and a KLD weight that rises 0, ½, 1.
OPTIONS = [
    *TINY, "--batch-size", 64, "--num-workers", 0, "--augmentation", "none",
    "--kld-anneal-strategy", "linear", "--kld-weight", 1, "--epochs", EPOCHS,
]  # fmt: skip
LAST = Path("checkpoints/last.ckpt")


def train(*options):
    """In the current folder, whose arrays and run have the default paths."""
    return earteach("train", *OPTIONS, *options)


def finish(*args):
    result = earteach(*args, "--json")
    assert result.code == 0, result.err
    return result.json


def error_line(result):
    assert (result.code, result.out) == (1, "")
    assert result.err.splitlines()[-1].startswith("error: ")
    return result.err.splitlines()[-1]


def files():
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def records(logs="logs"):
    return list(map(json.loads, Path(logs, "ear_vae/metrics.jsonl").read_text().splitlines()))


def kld_weights():
    return [record["metrics"]["train/kld_weight"] for record in records()]


@pytest.fixture(scope="module")
def stopped_run(ears, tmp_path_factory):
    """A run that was interrupted after the first of three epochs."""
    folder = tmp_path_factory.mktemp("stopped")
    shutil.copytree(ears, folder / "data" / "preprocessed")

    def interrupt(_):
        os.kill(os.getpid(), signal.SIGINT)
        return "stopped"

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("earteach.cli.train.epoch_line", interrupt)
        assert train().code == 130
    return folder


@pytest.fixture(scope="module")
def finished_run(stopped_run, tmp_path_factory):
    folder = shutil.copytree(stopped_run, tmp_path_factory.mktemp("finished") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = earteach("resume")
    assert result.code == 0, result.err
    lines = [line for line in result.err.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in lines] == ["2/3", "3/3"]
    assert "Lightning" not in result.err
    return folder


@pytest.fixture
def stopped(stopped_run, tmp_path, monkeypatch):
    """The current folder holds a copy of the stopped run."""
    monkeypatch.chdir(shutil.copytree(stopped_run, tmp_path / "a"))


@pytest.fixture
def finished(finished_run, tmp_path, monkeypatch):
    """The current folder holds a copy of the finished run."""
    monkeypatch.chdir(shutil.copytree(finished_run, tmp_path / "a"))


@pytest.mark.parametrize(
    "more",
    ["", "--num-workers 1 --accelerator cpu --log-dir elsewhere --checkpoint-every-n-steps 5"],
)
def test_train_continues_a_run_with_the_same_options_on_any_hardware(stopped, more):
    result = train(*more.split(), "--json")
    assert result.json["resumed_from"] == str(LAST)
    assert result.json["epochs_completed"] == result.json["global_step"] == EPOCHS
    assert "note: continuing the run in checkpoints (epoch 2, step 1)" in result.err


@pytest.mark.parametrize(
    ("typed", "differences"),
    [
        ("--latent-dim 8", ["--latent-dim 16 → 8"]),
        ("--seed 1 --learning-rate 0.5", ["--seed 42 → 1", "--learning-rate 0.002 → 0.5"]),
        ("--learning-rate 2e-3 --kld-reduction sum", ["--kld-reduction mean → sum"]),
        ("--train-data data/preprocessed/val_teacher.npy",
         ["--train-data data/preprocessed/train_teacher.npy → data/preprocessed/val_teacher.npy"]),
        ("--epochs 9 --patience 2", ["--epochs 3 → 9", "--patience 30 → 2"]),
    ],
)  # fmt: skip
def test_train_refuses_other_options_and_lists_them(stopped, typed, differences):
    before = files()
    error = error_line(train(*typed.split(), "--json"))
    assert all(difference in error for difference in differences)
    assert error.count("→") == len(differences)
    assert "--fresh" in error
    assert f"earteach resume {LAST}" in error
    assert files() == before


def offered(result):
    """The first command in backquotes in an error."""
    match = re.search(r"`earteach (.+?)`", error_line(result))
    return match[1].split()


def test_other_epochs_are_offered_as_a_longer_run(stopped):
    result = train("--epochs", 4)
    assert "a run of 3 epochs, not 4" in result.err
    assert "--fresh" in result.err
    assert offered(result) == ["resume", str(LAST), "--epochs", "4"]
    assert finish(*offered(result))["epochs_completed"] == 4


def test_a_finished_run_needs_more_epochs(finished):
    before = files()
    for args in (
        ["train", *OPTIONS],
        ["resume"],
        ["resume", "--epochs", 3],
        ["resume", "--epochs", 2],
    ):
        result = earteach(*args)
        assert f"error: {LAST}: this run finished after 3 epochs" in error_line(result)
        assert "--fresh" in result.err
        assert offered(result)[:3] == ["resume", str(LAST), "--epochs"]
    assert files() == before
    assert finish(*offered(result))["epochs_completed"] > EPOCHS


@pytest.mark.slow
def test_a_run_that_stopped_early_says_so_and_gets_its_patience_again(finished):
    # No weight changes at this learning rate, so no epoch is better than the first.
    still = ["--learning-rate", 1e-12, "--weight-decay", 0, "--kld-weight", 0, "--patience", 2]
    still = [*OPTIONS, *still, "--epochs", 9]
    result = finish("train", *still, "--fresh")
    assert (result["stopped_by"], result["epochs_completed"]) == ("early_stopping", 3)
    assert result["best"]["loss"]["epoch"] == 0
    assert checkpoint.read(LAST).about["stopped_by"] == "early_stopping"
    for args in (["train", *still], ["resume"]):
        assert "stopped early after 3 epochs" in error_line(earteach(*args))
    again = finish("resume", "--epochs", 12)
    assert (again["stopped_by"], again["epochs_completed"]) == ("early_stopping", 5)


@pytest.mark.parametrize("args", [["train", *OPTIONS], ["resume"]], ids=["train", "resume"])
@pytest.mark.parametrize("name", ["train", "val"])
def test_a_changed_or_missing_array_is_not_trained_on(stopped, args, name):
    path = Path(f"data/preprocessed/{name}_teacher.npy")
    array = np.load(path)
    array[0] = 255 - array[0]
    np.save(path, array)
    error = error_line(earteach(*args))
    assert f"{path}: is no longer the {name} array of {LAST}" in error
    assert "--init-from" in error
    path.unlink()
    assert f"error: {path}: no such file" in error_line(earteach(*args))


def test_a_checkpoint_of_an_older_format_is_refused(stopped):
    state = torch.load(LAST, weights_only=True)
    state["earteach"] |= {"format": 1, "version": "0.0.9"}
    checkpoint.write(state, LAST)
    for args in (["resume"], ["eval", LAST], ["train", *OPTIONS]):
        assert "earteach 0.0.9, whose networks were different" in error_line(earteach(*args))


@pytest.mark.parametrize(
    ("options", "weights", "words"),
    [
        (["--epochs", 5], [0, 0.5, 1, 1, 1], "still spans 3 epochs"),
        # 3/4 and 4/4 of the way, where the first three had thirds of their own
        (["--epochs", 5, "--reanneal"], [0, 0.5, 1, 0.75, 1], "stretched to 5 epochs"),
    ],
)
def test_a_longer_run_keeps_or_stretches_the_kld_schedule(finished, options, weights, words):
    result = earteach("resume", *options, "--json")
    assert result.json["resumed_from"] == result.json["last"] == str(LAST)
    assert (result.json["epochs_completed"], result.json["global_step"]) == (5, 5)
    assert [record["epoch"] for record in records()] == [0, 1, 2, 3, 4]
    assert kld_weights() == pytest.approx(weights)
    assert words in result.err


@pytest.mark.slow
def test_train_with_resume_is_the_same_as_resume(finished, finished_run, tmp_path, monkeypatch):
    Path("run.toml").write_text("latent_dim = 16\nepochs = 4\n")
    results = [finish("train", "--resume", LAST, "--config", "run.toml", "--log-dir", "logs")]
    monkeypatch.chdir(shutil.copytree(finished_run, tmp_path / "b"))
    results.append(finish("resume", LAST, "--epochs", 4))
    for result in results:
        del result["seconds"]
    assert results[0] == results[1]
    a, b = (checkpoint.read(tmp_path / name / LAST).state["state_dict"] for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("typed", "differences"),
    [
        ("--seed 1 --patience 2", ["--seed 42 → 1", "--patience 30 → 2"]),
        ("--kld-weight 2 --epochs 5", ["--kld-weight 1.0 → 2.0"]),
        ("--lr-peak 5", ["--learning-rate 0.002 → 0.0005"]),
        # A default counts if it is given.
        ("--batch-size 32", ["--batch-size 64 → 32"]),
        ("--config run.toml", ["--latent-dim 16 → 8"]),
    ],
)
def test_train_with_resume_refuses_other_options(finished, typed, differences):
    Path("run.toml").write_text("latent_dim = 8\nepochs = 4\n")
    before = LAST.read_bytes()
    error = error_line(earteach("train", "--resume", LAST, *typed.split()))
    assert all(difference in error for difference in differences)
    assert error.count("→") == len(differences)
    assert LAST.read_bytes() == before


@pytest.mark.slow
def test_hardware_can_change_and_stays_as_it_was_set(finished):
    old = checkpoint.read(LAST).config
    finish("resume", "--epochs", 4, "--num-workers", 1, "--strategy", "auto")
    finish("resume", "--checkpoint-dir", "checkpoints", "--epochs", 5)
    new = checkpoint.read(LAST).config
    assert new.hardware.num_workers == 1
    changed = {"num_workers": 0, "epochs": 3, "kld_anneal_epochs": None}
    assert new.with_options(changed) == old


def test_a_copied_checkpoint_is_continued_beside_itself(finished):
    Path("other").mkdir()
    shutil.copy(LAST, "other/copy.ckpt")
    before = files()
    copied = ["resume", "other/copy.ckpt", "--epochs", 4]
    error = error_line(earteach(*copied))
    assert (
        "logs/ear_vae: holds the log of the run in checkpoints; choose another --log-dir" in error
    )
    result = finish(*copied, "--log-dir", "other/logs")
    assert result["last"] == "other/last.ckpt"
    assert checkpoint.read(Path("other/last.ckpt")).epochs_completed == 4
    assert before.items() <= files().items()
    # The best of the copied run are not here; its first epoch here is the best.
    best = result["best"]["loss"]
    assert (best["epoch"], Path(best["path"]).parent, Path(best["path"]).exists()) == (
        3,
        Path("other"),
        True,
    )
    assert earteach("report", "--checkpoint-dir", "other").code == 0


def set_log_dir(folder):
    state = torch.load(LAST, weights_only=True)
    state["earteach"]["config"]["run"]["log_dir"] = str(folder)
    torch.save(state, LAST)


@pytest.mark.parametrize("folder", ["{}/elsewhere", "../elsewhere"])
def test_a_checkpoint_cannot_have_its_log_written_anywhere(finished, tmp_path, folder):
    set_log_dir(folder.format(tmp_path))
    result = earteach("resume", LAST.absolute(), "--epochs", 4)
    assert result.code == 0, result.err
    assert f"logging to {Path('logs').absolute()}:" in result.err
    assert not (tmp_path / "elsewhere").exists()
    assert [record["epoch"] for record in records()] == [0, 1, 2, 3]


def test_a_run_that_was_moved_goes_on_in_its_own_log(finished, tmp_path, monkeypatch):
    """Checkpoints and logs moved together; another run's log lies where the checkpoint names it."""
    (tmp_path / "b" / "archive").mkdir(parents=True)
    for folder in ("checkpoints", "logs"):
        shutil.copytree(folder, tmp_path / "b" / "archive" / folder)
    monkeypatch.chdir(tmp_path / "b")
    (tmp_path / "b" / "data").symlink_to(tmp_path / "a" / "data")
    moved = Path("archive", "checkpoints", "last.ckpt")
    assert earteach("resume", moved, "--epochs", 4).code == 0
    assert [record["epoch"] for record in records(Path("archive/logs"))] == [0, 1, 2, 3]
    assert not Path("logs").exists()
    page = earteach("report", moved, "--out", "report.html")
    assert page.code == 0, page.err
    assert "one epoch" not in page.err
    assert "missing" not in page.err
    assert earteach("resume", moved, "--epochs", 5, "--log-dir", "new").code == 0
    assert [record["epoch"] for record in records(Path("new"))] == [4]


def test_an_existing_log_is_continued_where_it_is(finished, tmp_path):
    Path("logs").rename(tmp_path / "elsewhere")
    set_log_dir(tmp_path / "elsewhere")
    assert earteach("resume", "--epochs", 4).code == 0
    assert [record["epoch"] for record in records(tmp_path / "elsewhere")] == [0, 1, 2, 3]
    assert not Path("logs").exists()


LOG = Path("logs/ear_vae")


def without_names():
    """Let the log be as it was before its records named the folder of checkpoints."""
    lines = [{**record, "checkpoints": None} for record in records()]
    (LOG / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("old_log", [False, True])
@pytest.mark.parametrize(
    ("typed", "whose"),
    [
        (["train", *OPTIONS, "--seed", 1, "--checkpoint-dir", "new"], None),
        (["resume", "backup/last.ckpt"], "the run in checkpoints"),
        (["resume", "backup/last.ckpt", "--log-dir", "logs"], "the run in checkpoints"),
        (["resume", "deeper/run/checkpoints/last.ckpt", "--log-dir", "logs"], "the run in checkpoints"),
    ],
)  # fmt: skip
def test_no_run_writes_to_the_log_of_another(stopped, typed, whose, old_log):
    """Of an old log it is known only by the checkpoint where its run is."""
    for copy in ("backup", "deeper/run/checkpoints"):
        shutil.copytree("checkpoints", copy)
    assert earteach("resume").code == 0
    if old_log:
        without_names()
    before = files()
    whose = whose or ("another run" if old_log else "the run in checkpoints")
    words = f"error: {LOG}: holds the log of {whose}; choose another --log-dir"
    aside = ", or add --fresh to move it aside" if whose == "another run" else ""
    assert error_line(earteach(*typed)) == words + aside
    assert files() == before
    assert not Path("new").exists()


@pytest.mark.parametrize("typed", [[], ["--checkpoint-dir", "new"]])
def test_a_log_whose_run_is_gone_is_moved_aside(finished, typed):
    if typed:
        error = error_line(train(*typed, "--fresh"))
        assert error.endswith("holds the log of the run in checkpoints; choose another --log-dir")
    Path("checkpoints").rename("elsewhere")
    assert "holds the log of another run" in error_line(train(*typed))
    logged = (LOG / "metrics.jsonl").read_bytes()
    assert train(*typed, "--fresh", "--epochs", 1).code == 0
    assert Path("logs/ear_vae-old-1/metrics.jsonl").read_bytes() == logged


@pytest.mark.parametrize("old_log", [False, True])
def test_the_log_of_checkpoints_that_moved_goes_on(finished, old_log):
    if old_log:
        without_names()
    Path("checkpoints").rename("moved")
    assert earteach("resume", "moved/last.ckpt", "--epochs", 4).code == 0
    assert [record["epoch"] for record in records()] == [0, 1, 2, 3]
    # Back to an earlier epoch of the same run.
    first = next(Path("moved").glob("best-*.ckpt"))
    epoch = checkpoint.read(first).epochs_completed
    assert earteach("resume", first, "--epochs", epoch + 1).code == 0
    assert [record["epoch"] for record in records()] == list(range(epoch + 1))


def test_copies_of_checkpoints_stay(finished):
    copy = Path(shutil.copy(LAST, "checkpoints/best-before-resuming.ckpt"))
    assert earteach("resume", LAST, "--epochs", 4).code == 0
    assert copy.exists()


@pytest.fixture(scope="module")
def another_run(stopped_run, tmp_path_factory):
    """A run with the options of the others, begun from other weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shutil.copytree(stopped_run, tmp_path_factory.mktemp("another") / "run"))
        weights = checkpoint.read(LAST).path
        assert train("--fresh", "--epochs", 1, "--init-from", weights).code == 0
        return Path.cwd() / LAST


@pytest.mark.parametrize(
    ("kept", "copied"),
    [("*", "other.ckpt"), ("best-*", "other.ckpt"), ("last.ckpt", "best-other.ckpt")],
)
def test_a_folder_belongs_to_one_run(finished, another_run, kept, copied):
    for path in Path("checkpoints").iterdir():
        if not path.match(kept):
            path.unlink()
    copy = shutil.copy(another_run, Path("checkpoints", copied))
    before = files()
    resumed = LAST if LAST.exists() and copied.startswith("best") else copy
    error = error_line(earteach("resume", resumed, "--epochs", 6, "--log-dir", "new"))
    assert "belongs to another run than checkpoints/" in error
    assert "copy that to a folder of its own" in error
    assert files() == before


def test_a_new_run_keeps_the_best_of_one_whose_last_is_gone(finished):
    LAST.unlink()
    before = files()
    error = error_line(train("--log-dir", "new"))
    assert re.search(r"checkpoints/best-.*ckpt: belongs to another run; add --fresh", error)
    assert files() == before


def test_of_a_damaged_checkpoint_another_is_offered_and_resumed(finished):
    best = checkpoint.best(Path("checkpoints"))
    LAST.unlink()
    LAST.write_bytes(b"not what you think")
    assert error_line(earteach("resume")).endswith(f"use another one, such as {best}")
    again = ["resume", best, "--epochs", 5]
    assert f"{LAST}: is in the way of {best} and cannot be read; move it" in error_line(
        earteach(*again)
    )
    LAST.rename("damaged.ckpt")
    assert finish(*again)["epochs_completed"] == 5
    assert error_line(earteach("resume", "damaged.ckpt")).endswith("use another one")


def test_a_run_is_resumed_where_its_arrays_are(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = error_line(earteach("resume", "a/checkpoints/last.ckpt", "--epochs", 4))
    assert "error: data/preprocessed/train_teacher.npy: no such file; resume a/checkpoints" in error
    assert "in the folder where it was trained" in error


def test_a_finished_run_is_begun_again_by_the_command_that_has_the_option(finished):
    assert "start over with `earteach train --fresh`" in error_line(earteach("resume"))


def test_best_checkpoints_are_the_files_named(trained):
    last = checkpoint.read(trained.last)
    assert trained.result["epochs_completed"] == last.epochs_completed == 4
    assert trained.result["global_step"] == last.global_step
    for which, prefix in (("loss", "best-epoch"), ("ssim", "best-ssim-epoch")):
        best = trained.result["best"][which]
        path = Path(best["path"])
        assert path.name.startswith(f"{prefix}={best['epoch']:03d}-{which}=")
        assert best["value"] == checkpoint.read(path).about["metrics"][f"val/{which}"]
    assert len(list(trained.checkpoints.glob("*.ckpt"))) == 3
