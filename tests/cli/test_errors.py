"""Bad input: an exit code, one line that names what was received and the next step, no leftovers."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import TINY, earteach


@dataclass(frozen=True)
class Place:
    """A working folder with files of all kinds."""

    folder: Path
    ears: Path

    def contents(self) -> dict[str, tuple[int, int]]:
        """Each file and folder with its size and time of change."""
        stats = {path: path.stat() for path in self.folder.rglob("*")}
        return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


@pytest.fixture(scope="module")
def place(ears, trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    (folder / "run").mkdir()
    shutil.copy(trained.last, folder / "run" / "last.ckpt")
    (folder / "best").mkdir()
    shutil.copy(trained.result["best"]["loss"]["path"], folder / "best")
    (folder / "empty").mkdir()
    (folder / "text.txt").write_text("not what you think")
    (folder / "text.ckpt").write_text("not what you think")
    (folder / "cut.ckpt").write_bytes(trained.last.read_bytes()[:1000])
    (folder / "zero.ckpt").touch()
    torch.save({"state_dict": {}}, folder / "foreign.ckpt")
    torch.save({"a": Path("code")}, folder / "code.ckpt")
    (folder / "in the\nway").write_text("not what you think")
    (folder / "text.npy").write_text("not what you think")
    np.save(folder / "int64.npy", np.zeros((4, 32, 32, 3), np.int64))
    np.save(folder / "rgba.npy", np.zeros((4, 32, 32, 4), np.uint8))
    np.save(folder / "one.npy", np.zeros((32, 32, 3), np.uint8))
    np.save(folder / "either.npy", np.zeros((4, 3, 32, 3), np.uint8))
    np.save(folder / "nan.npy", np.full((4, 32, 32, 3), np.nan, np.float32))
    np.save(folder / "objects.npy", np.array([None, 1]), allow_pickle=True)
    (folder / "half.toml").write_text("epochs = 2.5")
    return Place(folder, ears)


# Of the commands that take a checkpoint: what is typed after it.
TAKING = {
    "report": "",
    "eval": "--data {ears}/val_teacher.npy",
    "sample": "--out new",
    "sharpen": "--steps 1",
    "reconstruct": "--input {ears}/val_teacher.npy --out new",
    "export": "--out new",
    "embed": "--input {ears}/val_teacher.npy --out new.npz",
    "resume": "",
    "inspect-model": "",
    "probe": "--data {ears}/val_teacher.npy",
    "landmarks": "--input {ears} --out new",
    "distil": "--out new",
}
BAD_CHECKPOINTS = [
    ("none.ckpt", "none.ckpt: no such checkpoint|earteach train"),
    ("no/such/folder/x.ckpt", "no/such/folder/x.ckpt: no such checkpoint"),
    ("text.ckpt", "text.ckpt:|not a checkpoint"),
    ("zero.ckpt", "zero.ckpt:|not a checkpoint"),
    ("cut.ckpt", "cut.ckpt: is cut short"),
    ("foreign.ckpt", "foreign.ckpt: is not an earteach checkpoint"),
    ("code.ckpt", "code.ckpt: holds more than tensors|it was not loaded"),
]
# The folder is no checkpoint either, but has the best of its own.
BAD_FOLDERS = {
    "empty": ("empty:", "eval sample reconstruct export embed inspect-model distil"),
    "run": ("run: holds no best-epoch", "eval sample"),
    "best": ("best: is a folder", "resume"),
}
Row = tuple[str, int, str]
TABLE: list[Row] = [
    *((f"{c} {p} {more}", 1, w) for c, more in TAKING.items() for p, w in BAD_CHECKPOINTS),
    *((f"{c} {p} {TAKING[c]}", 1, w) for p, (w, cs) in BAD_FOLDERS.items() for c in cs.split()),
    # No checkpoint named, and none there.
    ("eval", 1, "checkpoints: no such checkpoint|earteach train"),
    ("distil", 1, "checkpoints: no such checkpoint|earteach train"),
    ("resume", 1, "checkpoints: holds no last.ckpt|earteach train"),
    ("eval --checkpoint-dir run", 1, "run: holds no best-epoch=|earteach train"),
    ("sample --checkpoint-dir empty --out new", 1, "empty: holds no best-epoch="),
    ("resume --checkpoint-dir best", 1, "best: holds no last.ckpt"),
    ("eval --checkpoint-dir text.txt", 1, "text.txt:"),
    # Arrays.
    ("eval run/last.ckpt --data none.npy", 1, "none.npy: no such file|--data"),
    ("eval run/last.ckpt --data text.npy", 1, "text.npy: is not a .npy file|numpy.save"),
    ("eval run/last.ckpt --data int64.npy", 1, "int64.npy: holds int64|uint8"),
    ("eval run/last.ckpt --data either.npy", 1, "either.npy:|--layout"),
    ("eval run/last.ckpt --data nan.npy", 1, "nan.npy: image 0 holds NaN|inspect-data"),
    ("inspect-data", 1, "data/preprocessed/train_teacher.npy: no such file|prepare"),
    ("inspect-data none.npy", 1, "none.npy: no such file|prepare"),
    ("inspect-data empty", 1, "empty: is a folder|.npy"),
    ("inspect-data rgba.npy", 1, "rgba.npy:|four channels"),
    ("inspect-data one.npy", 1, "one.npy:|one image"),
    ("inspect-data objects.npy", 1, "objects.npy: holds Python objects|uint8"),
    ("inspect-data {ears}/val_teacher.npy none.npy", 1, "none.npy: no such file"),
    ("inspect-data {ears}/val_teacher.npy --out text.txt", 1, "text.txt: is a file|folder"),
    ("train", 1, "data/preprocessed/train_teacher.npy: no such file|earteach prepare --synthetic"),
    ("train --train-data {ears}/train_teacher.npy --val-data none.npy", 1, "none.npy: no such file"),
    ("train --dry-run", 1, "data/preprocessed/train_teacher.npy: no such file"),
    ("distil run/last.ckpt --train-data none.npy --out new", 1, "none.npy: no such file"),
    ("distil run/last.ckpt --epochs 0 --out new", 1, "--epochs 0: must be at least 1"),
    ("distil run/last.ckpt --out text.txt", 1, "text.txt: |folder"),
    # Pictures.
    ("reconstruct run/last.ckpt --input none.png --out new", 1, "--input none.png: no such file"),
    ("reconstruct run/last.ckpt --input text.txt --out new", 1, "--input text.txt:|an image"),
    ("reconstruct run/last.ckpt --input empty --out new", 1, "empty: holds no photographs"),
    ("reconstruct run/last.ckpt --input rgba.npy --out new", 1, "rgba.npy:|four channels"),
    ("sample run/last.ckpt --out text.txt", 1, "text.txt: is a file|folder"),
    ("sample run/last.ckpt --out text.txt/below", 1, "text.txt/below: is below a file|folder"),
    ("reconstruct run/last.ckpt --input {ears}/val_teacher.npy --out text.txt", 1,
     "text.txt: is a file|folder"),
    ("export run/last.ckpt --out text.txt", 1, "text.txt: exists|--out"),
    ("export run/last.ckpt --out empty", 1, "empty: exists|--out"),
    ("export run/last.ckpt --format safetensors --out text.txt/below", 1, "text.txt:"),
    ("export run/last.ckpt --opset 9 --out new", 1, "--opset 9: must be from 18 to 24"),
    ("export run/last.ckpt --format safetensors --quantize int8 --out new", 1,
     "--quantize int8: is only for --format onnx"),
    ("export run/last.ckpt --input-size 64 --out new", 1, "--input-size 64:|32×32|--image-size 64"),
    ("embed run/last.ckpt --input none.npy --out new.npz", 1, "none.npy: no such file"),
    ("embed run/last.ckpt --input {ears}/val_teacher.npy --out text.txt", 1, "text.txt: must end in"),
    ("embed run/last.ckpt --input {ears}/val_teacher.npy --out text.npy", 1, "text.npy: exists|--out"),
    ("embed run/last.ckpt --input {ears}/val_teacher.npy --out new.npy --logvar", 1,
     "--logvar: a .npy file holds only mu|new.npz"),
    ("reconstruct run/last.ckpt --input {ears}/val_teacher.npy --jitter inf --out new", 1,
     "--jitter inf: must be a finite number, 0 or more"),
    # Probes.
    ("probe", 1, "checkpoints: no such checkpoint|earteach train"),
    ("probe run/last.ckpt --data none.npy", 1, "none.npy: no such file|--data"),
    ("probe run/last.ckpt --data {ears}/val_teacher.npy", 1, "landmarks of 7 people|--groups"),
    ("probe run/last.ckpt --data {ears}/train_teacher.npy --identities", 1, "two images of one"),
    ("probe run/last.ckpt --data {ears}/val_teacher.npy --landmarks none.csv", 1,
     "--landmarks none.csv: no such file"),
    ("probe run/last.ckpt --data {ears}/val_teacher.npy --landmarks text.npy", 1,
     "text.npy: is not a .npy file"),
    ("probe run/last.ckpt --data {ears}/val_teacher.npy --groups (", 1, "--groups (:|expression"),
    ("probe run/last.ckpt --seed -1", 2, "--seed"),
    # Preparation.
    ("prepare empty --landmarks none.csv", 1, "empty: holds no photographs"),
    ("prepare --synthetic 8 --landmarks text.txt", 2, "--landmarks"),
    ("prepare none", 1, "none: no such folder"),
    ("prepare text.txt", 1, "text.txt: is a file|folder"),
    ("prepare empty", 1, "empty: holds no photographs"),
    ("prepare --synthetic 1 --out new", 1, "--synthetic 1: must be at least 2"),
    ("prepare --synthetic 8 --val-fraction nan --out new", 1, "--val-fraction nan:|between"),
    ("prepare --synthetic 8 --val-groups zzz --out new", 1, "--val-groups zzz: puts none"),
    ("prepare --synthetic 8 --val-groups . --out new", 1, "--val-groups .: puts all"),
    ("prepare --synthetic 8 --val-groups ( --out new", 1, "--val-groups (:|regular expression"),
    ("prepare --synthetic 8 --out text.txt", 1, "text.txt: is a file|folder"),
    # Options that cannot be.
    ("inspect-data {ears}/val_teacher.npy --latent-dim 0", 1, "--latent-dim 0: must be at least 1"),
    ("train --epochs 0", 1, "--epochs 0: must be at least 1"),
    ("train --config none.toml", 1, "--config none.toml: No such file|readable file"),
    ("train --config empty", 1, "--config empty:|readable file"),
    ("train --config half.toml", 1, "--config half.toml:|--epochs 2.5: must be a whole number"),
    ("inspect-model --image-size 100", 1, "--image-size 100: must be a multiple of 16"),
    ("inspect-model run/last.ckpt --latent-dim 8", 1, "run/last.ckpt:|leave out --latent-dim"),
    # Wrong usage is Typer's to say.
    ("prepare", 2, "--synthetic"),
    ("prepare empty --synthetic 8", 2, "give either"),
    ("sample run/last.ckpt", 2, "--out"),
    ("embed run/last.ckpt --out new.npz", 2, "--input"),
    ("embed run/last.ckpt --input {ears}/val_teacher.npy", 2, "--out"),
    ("export run/last.ckpt --format pickle --out new", 2, "--format"),
    ("export run/last.ckpt --part head --out new", 2, "--part"),
    ("reconstruct run/last.ckpt --input {ears}/val_teacher.npy --variations 2 --out new", 2,
     "--variations needs --jitter"),
    ("reconstruct run/last.ckpt --out new", 2, "--input"),
    ("prepare --synthetic 8 --fit crop", 2, "crop"),
    ("prepare --synthetic 8 --image-size 8", 2, "--image-size"),
    ("train --resume run/last.ckpt --fresh", 2, "--fresh"),
    ("train --resume run/last.ckpt --init-from run/last.ckpt", 2, "--init-from"),
    ("prepare --synthetic 8 --group-by folder", 2, "--group-by cannot be used with --synthetic"),
    ("prepare photos --group-by column --group-pattern x", 2, "--group-by cannot be used with"),
    ("prepare photos --val-groups x --val-fraction 0.2", 2, "--val-fraction cannot be used with"),
    ("prepare photos --side-pattern x", 2, "--side-pattern has no effect"),
    ("train --precision 64", 2, "64"),
    ("train --epochs two", 2, "--epochs"),
    ("train --nothing", 2, "--nothing"),
    ("resume --epochs 0", 2, "--epochs"),
    ("resume run/last.ckpt --learning-rate 1", 2, "--learning-rate"),
    ("inspect-data {ears}/val_teacher.npy --layout hwc", 2, "hwc"),
    ("distil run/last.ckpt --student large --out new", 2, "large"),
    ("distil run/last.ckpt --ssim-weight 1 --out new", 2, "--ssim-weight"),
    ("teach", 2, "teach"),
]  # fmt: skip


# One of each command, with --json too: an error leaves stdout empty in both.
AS_JSON = {row[0].split()[0]: row for row in TABLE if row[1] == 1}.values()
ROWS = [*TABLE, *((f"{typed} --json", code, words) for typed, code, words in AS_JSON)]


@pytest.mark.parametrize(("typed", "code", "words"), ROWS, ids=[row[0] for row in ROWS])
def test_bad_input(place, monkeypatch, typed, code, words):
    monkeypatch.chdir(place.folder)
    before = place.contents()
    result = earteach(*typed.format(ears=place.ears).split())
    assert (result.code, result.out) == (code, ""), result.err
    if code == 1:
        # `train` says what it is about to do before it finds out that it cannot.
        *said, error = result.err.splitlines()
        assert len(said) <= typed.startswith("train")
        assert not any(line.startswith("error:") for line in said)
        assert error.startswith("error: ")
    assert "Traceback" not in result.err
    for word in words.split("|"):
        assert word in result.err
    assert place.contents() == before


def test_an_error_stays_one_line_whatever_a_file_is_called(place):
    result = earteach("inspect-data", place.folder / "in the\nway")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert "in the way: is not a .npy file" in result.err


def test_a_checkpoint_knows_its_model_and_no_option_contradicts_it(place):
    checkpoint = next((place.folder / "best").iterdir())
    assert earteach("inspect-model", checkpoint, "--json").json["latent_dim"] == 16
    result = earteach("inspect-model", checkpoint, *TINY)
    assert result.code == 1
    assert "defines its model" in result.err
