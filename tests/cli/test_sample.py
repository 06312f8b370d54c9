"""`earteach sample`: what it says of each way to make ears, and what cannot be typed together."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import Run, earteach


@pytest.fixture
def ckpt(trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A checkpoint in the working folder, with nothing beside it."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(trained.last, "a.ckpt")
    return "a.ckpt"


def both(*args: object) -> tuple[dict, str]:
    """The JSON, and the text of the same command."""
    as_json, as_text = earteach("sample", *args, "--json"), earteach("sample", *args)
    assert (as_json.code, as_text.code) == (0, 0), as_json.err + as_text.err
    # A narrow terminal may break a value over lines.
    return as_json.json, " ".join(as_text.out.replace("│", " ").split())


def test_the_mixture_is_what_ears_are_drawn_from(ckpt: str) -> None:
    found, text = both(ckpt, "--out", "out", "-n", 3)
    assert found["sampler"] == "gmm"
    assert isinstance(found["components"], int)
    assert found["seed"] == 42
    assert f"a mixture of {found['components']} Gaussian" in text
    assert "3 new ears of a.ckpt" in text
    assert {type(entry["row"]) for entry in found["nearest"]} == {int}
    assert {type(entry["mirrored"]) for entry in found["nearest"]} == {bool}
    apart = [entry["distance"] for entry in found["nearest"]]
    assert len(apart) == len(found["images"]) == 3
    assert f"{statistics.median(apart):.3f} away in the median, {min(apart):.3f} at least" in text
    assert f"validation image {found['validation_distance']:.3f} away in the median" in text
    assert "each ear over its nearest training image" in text
    assert Path("a.mixture.npz").is_file()


def test_the_prior_can_be_drawn_from(ckpt: str) -> None:
    found, text = both(ckpt, "--out", "out", "--sampler", "prior", "--seed", 7)
    assert (found["sampler"], found["components"], found["seed"]) == ("prior", None, 7)
    assert len(found["images"]) == 8
    assert "the prior, seed 7" in text
    assert not Path("a.mixture.npz").exists()


def test_the_nearest_images_can_be_left_out(ckpt: str) -> None:
    found, text = both(ckpt, "--out", "out", "--no-nearest")
    assert (found["nearest"], found["validation_distance"]) == (None, None)
    assert "nearest" not in text


def test_ears_are_joined(ckpt: str, ears: Path) -> None:
    found, text = both(ckpt, "--out", "out", "--interpolate", 0, 3, "-n", 4)
    assert [Path(end).name for end in found["ends"]] == ["val_teacher.npy[0]", "val_teacher.npy[3]"]
    assert (found["sampler"], found["seed"]) == (None, None)
    assert found["turned"] is ("mirrored to the same side" in text)
    assert len(found["images"]) == 4
    assert found["grid"] in text


def test_a_file_whose_name_is_a_number_is_named_with_its_folder(ckpt: str) -> None:
    earteach("sample", ckpt, "--out", "out", "-n", 1)
    shutil.copy("out/sample-000.png", "3")
    result = earteach("sample", ckpt, "--out", "way", "--interpolate", "./3", "3", "--json")
    first, second = result.json["ends"]
    assert first == "3"
    assert second.endswith("val_teacher.npy[3]")
    assert len(result.json["images"]) == 8


def test_directions_are_shown(ckpt: str) -> None:
    found, text = both(ckpt, "--out", "out", "--traverse", 2)
    assert found["sigmas"] == [-3, -2, -1, 0, 1, 2, 3]
    assert len(found["images"]) == 14
    shares = ", ".join(f"{direction['share']:.1%}" for direction in found["directions"])
    assert shares in text
    assert "-3 to +3 standard deviations" in text
    assert (found["sampler"], found["seed"]) == (None, None)
    fewer = earteach("sample", ckpt, "--out", "out", "--traverse", 2, "-n", 3, "--json").json
    assert len(fewer["images"]) == len(list(Path("out").glob("sample-*.png"))) == 6


WRONG = [
    ("--sampler gmm --traverse 2", "--sampler and --traverse exclude each other"),
    ("--sampler prior --interpolate 0 1", "--sampler and --interpolate exclude each other"),
    ("--interpolate 0 1 --traverse 2", "--interpolate and --traverse exclude each other"),
    ("--sampler gmm --interpolate 0 1 --traverse 2", "exclude each other; name one of them"),
    ("--interpolate 0", "--interpolate"),
    ("--traverse 0", "--traverse"),
    ("--traverse two", "--traverse"),
    ("--sampler vae", "vae"),
    ("-n 0", "--number"),
]


@pytest.mark.parametrize(("typed", "said"), WRONG)
def test_what_cannot_be_typed_is_wrong_usage(ckpt: str, typed: str, said: str) -> None:
    result = earteach("sample", ckpt, "--out", "out", *typed.split())
    assert (result.code, result.out) == (2, "")
    assert said in " ".join(result.err.replace("│", " ").split())
    assert not Path("out").exists()


BAD = [
    ("--interpolate 0 900", "--interpolate 900:|has rows 0 to 6"),
    ("--interpolate none.png 1", "--interpolate none.png: no such file|row number"),
    ("--interpolate a.ckpt 1", "--interpolate a.ckpt:|name an image"),
    ("--interpolate 0 1 -n 1", "--number 1: must be at least 2"),
    ("--traverse 2 -n 1", "--number 1: must be at least 2"),
    ("--traverse 900", "--traverse 900:|16 directions"),
]


@pytest.mark.parametrize(("typed", "said"), BAD)
def test_what_cannot_be_had_is_an_error_of_one_line(ckpt: str, typed: str, said: str) -> None:
    result = earteach("sample", ckpt, "--out", "out", *typed.split())
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert all(part in result.err for part in said.split("|"))
    assert sorted(path.name for path in Path().iterdir()) == ["a.ckpt"]


def test_without_the_training_array_notes_say_what_is_missing(ckpt: str) -> None:
    state = torch.load(ckpt, weights_only=True)
    state["earteach"]["config"]["data"]["train_data"] = "gone.npy"
    torch.save(state, ckpt)
    result = earteach("sample", ckpt, "--out", "out", "--json")
    assert (result.code, result.json["sampler"], result.json["nearest"]) == (0, "prior", None)
    notes = result.err.splitlines()
    assert [note.split(":")[:2] for note in notes] == [
        ["note", " drawing from the prior"], ["note", " no nearest training images"],
    ]  # fmt: skip
    refused = earteach("sample", ckpt, "--out", "out", "--sampler", "gmm")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("error: --sampler gmm: no mixture of codes is kept beside a.ckpt")
    assert "gone.npy: no such file" in refused.err


# Runs commands one after the other and says which libraries they brought.
PROGRAM = """
import json, sys
from earteach.cli.app import app
for line in json.loads(sys.argv[1]):
    try:
        app(line.split())
    except SystemExit as end:
        assert not end.code, line
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def test_scikit_learn_is_imported_for_a_fit_only(ckpt: str) -> None:
    assert earteach("sample", ckpt, "--out", "out", "-n", 2).code == 0
    ways = ["", "--sampler prior", "--traverse 1", "--interpolate 0 1"]
    lines = json.dumps([f"sample {ckpt} --out out {way}" for way in ways])
    ran = subprocess.run([sys.executable, "-c", PROGRAM, lines], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    imported = set(json.loads(ran.stdout.splitlines()[-1]))
    assert "torch" in imported
    assert not {"sklearn", "pytorch_lightning", "torchmetrics", "albumentations"} & imported
