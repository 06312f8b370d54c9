"""A student learns from its teacher, goes on exactly, and is a checkpoint as any other."""

from __future__ import annotations

import math
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import earteach as package
from earteach import checkpoint
from earteach.config import ModelConfig
from earteach.distillation.comparison import compare
from earteach.distillation.distillation_loss import distillation_loss
from earteach.distillation.student_module import Distillation
from earteach.model.vae import EarVAE
from earteach.training.lightning_module import EarVAELightning
from tests.conftest import Run, earteach
from tests.training.test_exact_resume import at_call, equal, next_second, recorded

EPOCHS = 6
RUN = ["--epochs", EPOCHS, "--learning-rate", 4e-3]


@dataclass(frozen=True)
class Student:
    folder: Path
    result: Any
    err: str

    @property
    def last(self) -> Path:
        return self.folder / "last.ckpt"

    @property
    def logs(self) -> Path:
        return self.folder / "logs" / "ear_vae"


def distilled(teacher: Path, out: Path, *more: object) -> Student:
    result = earteach("distil", teacher, "--out", out, *RUN, *more, "--json")
    assert result.code == 0, result.err
    return Student(out, result.json, result.err)


@pytest.fixture(scope="module")
def teacher(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copy(trained.last, tmp_path_factory.mktemp("teacher") / "best.ckpt"))


@pytest.fixture(scope="module")
def student(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Student:
    return distilled(teacher, tmp_path_factory.mktemp("students") / "s")


def images(trained: Run) -> torch.Tensor:
    array = np.load(checkpoint.read(trained.last).config.data.val_data)
    return torch.from_numpy(array.astype(np.float32) / 255).permute(0, 3, 1, 2)


def r2(seen: torch.Tensor, wanted: torch.Tensor) -> float:
    around = wanted - wanted.mean(dim=0)
    return 1 - float((seen - wanted).square().sum() / around.square().sum())


def test_the_student_comes_nearer_to_its_teacher(student: Student, teacher: Path, trained: Run):
    lines = [metrics for _, _, metrics in recorded(student.logs)]
    assert len(lines) == EPOCHS
    assert lines[-1]["val/loss"] < 0.95 * lines[0]["val/loss"]
    untrained = Distillation(checkpoint.read(student.last).config.to_dict())
    untrained.learn_from(checkpoint.load(teacher))
    x = images(trained)
    with torch.no_grad():
        wanted = checkpoint.load(teacher).encode(x)[0][:, :-1]
        found = [
            r2(network.encode(x)[0][:, :-1], wanted)
            for network in (untrained.averaged, checkpoint.load(student.last))
        ]
    assert found[1] > found[0]
    assert found[1] == pytest.approx(lines[-1]["val/codes_r2"], abs=1e-5)


def test_it_is_judged_by_the_loss_that_it_learns_by(student: Student, teacher: Path, trained: Run):
    """The validation images in one batch: where all sides agree the two are the same."""
    network, x = checkpoint.load(student.last), images(trained)
    taught = checkpoint.load(teacher)
    with torch.no_grad():
        seen, wanted = network.encode_all(x), taught.encode_all(x)
        terms = distillation_loss(seen, wanted, network.side_logits(x), taught.linear)
    metrics = checkpoint.read(student.last).about["metrics"]
    assert metrics["val/loss"] == pytest.approx(terms.total.item(), rel=1e-4)
    best = student.result["best"]["loss"]
    assert best["value"] == min(r[2]["val/loss"] for r in recorded(student.logs))


def test_all_but_the_encoder_is_the_teachers(student: Student, teacher: Path):
    about = checkpoint.read(student.last)
    network, taught = about.model(), checkpoint.load(teacher)
    assert about.config.model == ModelConfig(
        image_size=32, base_channels=8, latent_dim=16, encoder="mobile"
    )
    for part in ("decoder", "linear"):
        mine, theirs = (getattr(n, part).state_dict() for n in (network, taught))
        assert equal(mine, theirs), part
    first = Distillation(about.config.to_dict())
    first.learn_from(taught)
    trained, began = network.encoder.state_dict(), first.model.encoder.state_dict()
    assert not any(torch.equal(trained[name], began[name]) for name in trained)
    # The teacher is in no checkpoint of its student.
    names = torch.load(student.last, weights_only=True)["state_dict"]
    assert not any("teacher" in name for name in names)
    loaded = EarVAELightning.load_from_checkpoint(student.last)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.encode(x), network.encode(x)[0])


def test_what_it_keeps_of_its_teacher(student: Student, teacher: Path):
    kept = checkpoint.read(student.last)
    assert kept.about["teacher"] == {
        "path": str(teacher),
        "sha256": checkpoint.file_hash(teacher),
    }
    assert checkpoint.teacher_of(kept).path == student.folder / "teacher.ckpt"
    assert (student.folder / "teacher.ckpt").read_bytes() == teacher.read_bytes()


def test_what_is_told_at_the_end(student: Student, teacher: Path, trained: Run):
    told = student.result["comparison"]
    x = images(trained)
    best = Path(student.result["best"]["loss"]["path"])
    network, taught = checkpoint.load(best), checkpoint.load(teacher)
    with torch.no_grad():
        wanted, seen = taught.encode(x)[0], network.encode(x)[0]
        maps = zip(network.features(x), taught.features(x), strict=True)
        for share, (mine, theirs) in zip(told["features_r2"], maps, strict=True):
            around = theirs - theirs.mean(dim=(0, 2, 3), keepdim=True)
            error = float((mine - theirs).square().sum() / around.square().sum())
            assert share == pytest.approx(1 - error, abs=1e-4)
        error = (taught.decode(seen) - x).square().mean(dim=(1, 2, 3))
    assert told["codes_r2"] == pytest.approx(r2(seen[:, :-1], wanted[:, :-1]), abs=1e-5)
    assert told["side_agreement"] == pytest.approx((seen[:, -1] == wanted[:, -1]).float().mean())
    assert told["student"]["psnr"] == pytest.approx(-10 * error.log10().mean().item(), abs=1e-3)
    assert told["images"] == len(x)
    assert told["student"]["fixed_numbers"] == 0
    assert told["teacher"]["fixed_numbers"] == sum(
        buffer.numel() for buffer in taught.linear.buffers()
    )
    assert told["teacher"]["parameters"] == sum(p.numel() for p in taught.encoder.parameters())
    assert told["speed_ratio"] > 0
    assert (told["student"]["checkpoint"], told["data"]) == (
        str(best), str(checkpoint.read(best).config.data.val_data),
    )  # fmt: skip
    assert compare(student.folder).codes_r2 == told["codes_r2"]


def test_stopped_and_resumed_it_is_the_same_student(
    student: Student, teacher: Path, tmp_path: Path
):
    with pytest.MonkeyPatch.context() as patch:
        stop = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
        at_call(patch, Distillation, "training_step", 9, stop)
        stopped = earteach("distil", teacher, "--out", tmp_path / "s", *RUN, "--json")
    assert stopped.code == 128 + signal.SIGTERM
    assert stopped.json["stopped_by"] == "interrupted"
    assert "comparison" not in stopped.json
    next_second()
    # Its own copy is enough.
    moved = tmp_path / "elsewhere"
    (tmp_path / "s").rename(moved)
    resumed = earteach("resume", moved / "last.ckpt", "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["teacher"] == str(moved / "teacher.ckpt")
    a, b = checkpoint.read(student.last), checkpoint.read(moved / "last.ckpt")
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "train_sums"):
        assert equal(a.state[key], b.state[key]), key
    assert a.about["teacher"] == b.about["teacher"]
    told, again = (dict(r["comparison"]) for r in (student.result, resumed.json))
    assert told["codes_r2"] == again["codes_r2"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--epochs", 9], "is a run of 6 epochs, not 9|earteach resume"),
        (["--learning-rate", 0.5], "--learning-rate 0.004 → 0.5|--fresh"),
        ([], "this run finished after 6 epochs|earteach resume|--fresh"),
    ],
)
def test_a_run_there_is_not_overwritten(student: Student, teacher: Path, change: Any, words: str):
    before = student.last.read_bytes()
    result = earteach("distil", teacher, "--out", student.folder, *RUN, *change)
    assert (result.code, result.out) == (1, "")
    assert all(word in result.err for word in words.split("|"))
    assert student.last.read_bytes() == before


def test_a_run_of_another_teacher_is_not_continued(student: Student, trained: Run, tmp_path: Path):
    state = torch.load(trained.last, weights_only=True)
    state["global_step"] += 1
    torch.save(state, tmp_path / "other.ckpt")
    result = earteach("distil", tmp_path / "other.ckpt", "--out", student.folder, *RUN)
    assert result.code == 1
    assert "is a run of another teacher" in result.err


def test_a_student_teaches_nobody(student: Student, teacher: Path, tmp_path: Path):
    result = earteach("distil", student.last, "--out", tmp_path / "new")
    assert (result.code, result.out) == (1, "")
    assert f"its encoder is a mobile one itself; name its teacher, {teacher}" in result.err
    assert not (tmp_path / "new").exists()


def test_a_teacher_is_not_moved_aside(student: Student):
    held = sorted(student.folder.iterdir())
    result = earteach("distil", student.folder / "teacher.ckpt", "--out", student.folder, "--fresh")
    assert result.code == 1
    assert "which --fresh moves aside; choose another --out" in result.err
    assert sorted(student.folder.iterdir()) == held


def test_without_its_teacher_a_student_does_not_go_on(student: Student, tmp_path: Path):
    shutil.copy(student.last, tmp_path)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    state["earteach"]["teacher"]["path"] = str(tmp_path / "gone.ckpt")
    torch.save(state, tmp_path / "last.ckpt")
    (tmp_path / "teacher.ckpt").write_bytes(b"another")
    for command in (["resume"], ["resume", "--epochs", 12]):
        result = earteach(*command[:1], tmp_path / "last.ckpt", *command[1:])
        assert result.code == 1
        assert "its teacher is gone" in result.err or "finished" in result.err
    assert "its teacher is gone" in result.err
    with pytest.raises(package.EarTeachError, match="its teacher is gone"):
        compare(tmp_path / "last.ckpt")


def test_what_is_no_student_is_not_compared(trained: Run):
    with pytest.raises(package.EarTeachError, match="is no student"):
        compare(trained.last)


def test_a_mobile_network_begins_from_noise_or_with_a_teacher(ears: Path, tmp_path: Path):
    tiny = ["--train-data", ears / "train_teacher.npy", "--val-data", ears / "val_teacher.npy"]
    tiny += ["--image-size", 32, "--base-channels", 8, "--latent-dim", 16, "--encoder", "mobile"]
    tiny += ["--num-workers", 0, "--epochs", 1, "--checkpoint-dir", tmp_path, "--log-dir", tmp_path]
    for more in ([], ["--dry-run"]):
        result = earteach("train", *tiny, *more)
        assert result.code == 1
        assert "add --no-pca-init, or distil" in result.err
    result = earteach("train", *tiny, "--no-pca-init", "--json")
    assert result.code == 0, result.err
    assert checkpoint.load(tmp_path).kind == "mobile"


def test_an_older_checkpoint_has_the_encoder_of_its_time(trained: Run, tmp_path: Path):
    state = torch.load(trained.last, weights_only=True)
    del state["earteach"]["config"]["model"]["encoder"]
    torch.save(state, tmp_path / "old.ckpt")
    found = checkpoint.read(tmp_path / "old.ckpt")
    assert found.config.model.encoder == "attention"
    assert isinstance(found.model(), EarVAE)


@pytest.mark.parametrize(
    "command",
    ["eval --no-baselines", "sample -n 2 --out {0}/a", "inspect-model", "report --out {0}/r.html",
     "export --format onnx --part encoder --out {0}/e.onnx",
     "reconstruct --input {1} -n 2 --out {0}/b"],
)  # fmt: skip
def test_every_command_takes_a_student(
    student: Student, trained: Run, tmp_path: Path, command: str
):
    array = checkpoint.read(trained.last).config.data.val_data
    name, *more = command.format(tmp_path, array).split()
    result = earteach(name, student.last, *more, "--json")
    assert result.code == 0, result.err
    if name == "eval":
        assert result.json["advice"] == []
        logged = checkpoint.read(student.last).about["metrics"]
        assert result.json["metrics"]["psnr"] == pytest.approx(logged["val/psnr"], rel=1e-5)
    if name == "export":
        # None of the linear path's numbers is in it.
        held = onnx.load(tmp_path / "e.onnx").graph.initializer
        encoder = checkpoint.load(student.last).encoder
        heads = sum(p.numel() for p in encoder.heads.parameters())
        count = sum(p.numel() for p in encoder.parameters()) - heads
        assert 0.9 * count < sum(math.prod(tensor.dims) for tensor in held) < count + 100


def test_a_dry_run_writes_nothing(teacher: Path, tmp_path: Path):
    result = earteach("distil", teacher, "--out", tmp_path / "s", "--fast-dev-run", "--json")
    assert result.code == 0, result.err
    assert result.json["last"] is None
    assert not (tmp_path / "s").exists()


def test_the_plan_names_the_teacher_and_no_weight_that_a_student_has_not(teacher, tmp_path):
    shown = earteach("distil", teacher, "--out", tmp_path / "s", "--fast-dev-run").out
    plan = shown.partition("Trained")[0]
    assert f"│ teacher           │ {teacher}" in plan
    assert "KLD" not in plan
