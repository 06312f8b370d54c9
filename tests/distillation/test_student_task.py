"""`earteach distil`: a student resumes exactly, keeps its teacher, and serves every command."""

from __future__ import annotations

import math
import signal
from typing import Any

import onnx
import pytest
import torch

from earteach import EarTeachError, checkpoint
from earteach.config import ModelConfig
from earteach.distillation.comparison import compare
from earteach.distillation.teacher import find_teacher
from tests.conftest import earteach
from tests.distillation.conftest import RUN
from tests.training.test_exact_resume import assert_same_state, signalled_at


def test_a_checkpoint_names_its_teacher_and_the_folder_holds_it(student):
    read = checkpoint.read(student.last)
    assert read.config.model == ModelConfig(
        image_size=32, base_channels=8, latent_dim=16, encoder="mobile"
    )
    assert (read.task, read.about["teacher"]) == (
        "distil", {"path": str(student.teacher), "sha256": checkpoint.file_hash(student.teacher)},
    )  # fmt: skip
    assert find_teacher(read).path == student.folder / "teacher.ckpt"
    assert (student.folder / "teacher.ckpt").read_bytes() == student.teacher.read_bytes()


@pytest.mark.slow
def test_stopped_and_resumed_it_is_the_same_student(student, tmp_path):
    command = ["distil", student.teacher, "--out", tmp_path / "s", *RUN, "--json"]
    stopped = signalled_at("training_step", 9, signal.SIGTERM, *command)
    assert "comparison" not in stopped.json
    moved = (tmp_path / "s").rename(tmp_path / "elsewhere")  # its copy of the teacher is enough
    resumed = earteach("resume", moved / "last.ckpt", "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["teacher"] == str(moved / "teacher.ckpt")
    assert_same_state(student.last, moved / "last.ckpt")
    teachers = [checkpoint.read(p).about["teacher"] for p in (student.last, moved / "last.ckpt")]
    assert teachers[0] == teachers[1]
    assert resumed.json["comparison"]["codes_r2"] == student.result["comparison"]["codes_r2"]


def test_runs_that_do_not_continue_the_one_in_the_folder_are_refused(student, tmp_path):
    state = torch.load(student.teacher, weights_only=True)
    torch.save({**state, "global_step": 1}, tmp_path / "other.ckpt")
    into = ["--out", student.folder, *RUN]
    cases: list[tuple[list[Any], str]] = [
        ([student.teacher, *into, "--epochs", 9], "belongs to a run of 4 epochs, not 9; continue it"),
        ([student.teacher, *into, "--learning-rate", 0.5], "--learning-rate 0.004 → 0.5"),
        ([student.teacher, *into], "this run finished after 4 epochs; train it longer"),
        ([tmp_path / "other.ckpt", *into], "belongs to a run with another teacher"),
        ([student.folder / "teacher.ckpt", *into, "--fresh"], "--fresh moves aside; choose another"),
        ([student.last, "--out", tmp_path / "new"],
         f"its encoder is already mobile; name its teacher, {student.teacher}"),
    ]  # fmt: skip
    files, before = sorted(student.folder.iterdir()), student.last.read_bytes()
    for args, words in cases:
        result = earteach("distil", *args)
        assert (result.code, result.out) == (1, "")
        assert words in result.err
        assert sorted(student.folder.iterdir()) == files
        assert student.last.read_bytes() == before
    assert not (tmp_path / "new").exists()


def test_without_its_teacher_a_student_does_not_resume(student, tmp_path):
    state = torch.load(student.last, weights_only=True)
    state["earteach"]["teacher"]["path"] = str(tmp_path / "gone.ckpt")
    torch.save(state, tmp_path / "last.ckpt")
    (tmp_path / "teacher.ckpt").write_bytes(b"another")
    result = earteach("resume", tmp_path / "last.ckpt", "--epochs", 12)
    assert result.code == 1
    assert "is missing; put it back" in result.err
    with pytest.raises(EarTeachError, match=r"its teacher, .*, is missing"):
        compare(tmp_path / "last.ckpt")


def test_a_mobile_network_starts_from_noise_or_from_a_teacher(student, tmp_path):
    data = checkpoint.read(student.teacher).config.data
    options = ["--train-data", data.train_data, "--val-data", data.val_data, "--image-size", 32]
    options += ["--base-channels", 8, "--latent-dim", 16, "--encoder", "mobile", "--epochs", 1]
    options += ["--num-workers", 0, "--checkpoint-dir", tmp_path, "--log-dir", tmp_path]
    for more in ([], ["--dry-run"]):
        result = earteach("train", *options, *more)
        assert result.code == 1
        assert "add --no-pca-init, or distil" in result.err
    result = earteach("train", *options, "--no-pca-init", "--json")
    assert result.code == 0, result.err
    assert checkpoint.read(tmp_path / "last.ckpt").task == "train"


COMMANDS = [
    "eval --no-baselines", "sample -n 2 --out {0}/a", "inspect-model", "report --out {0}/r.html",
    pytest.param("export --format onnx --part encoder --out {0}/e.onnx", marks=pytest.mark.slow),
    "reconstruct --input {1} -n 2 --out {0}/b",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_a_student(student, tmp_path, command):
    array = checkpoint.read(student.teacher).config.data.val_data
    name, *more = command.format(tmp_path, array).split()
    result = earteach(name, student.last, *more, "--json")
    assert result.code == 0, result.err
    if name == "eval":
        assert result.json["advice"] == []
        logged = checkpoint.read(student.last).about["metrics"]
        assert result.json["metrics"]["psnr"] == pytest.approx(logged["val/psnr"], rel=1e-5)
    if name == "export":
        # PCA is no part of it.
        weights = onnx.load(tmp_path / "e.onnx").graph.initializer
        network = checkpoint.load(student.last)
        parameters = [*network.encoder.named_parameters(), *network.side.named_parameters()]
        count = sum(p.numel() for n, p in parameters if not n.startswith("heads."))
        assert 0.9 * count < sum(math.prod(tensor.dims) for tensor in weights) < count + 100


def test_a_dry_run_writes_nothing_and_shows_the_teacher(student, tmp_path):
    result = earteach("distil", student.teacher, "--out", tmp_path / "s", "--fast-dev-run")
    assert result.code == 0, result.err
    assert not (tmp_path / "s").exists()
    plan = result.out.partition("Trained")[0]
    assert f"│ teacher           │ {student.teacher}" in plan
    assert "KLD" not in plan
