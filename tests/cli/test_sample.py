"""`earteach sample`: its table and JSON for each way to make ears, and its errors."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_ears_of_the_mixture(ckpt: str) -> None:
    result, text = both(ckpt, "--out", "out", "-n", 3)
    assert (result["sampler"], result["seed"]) == ("gmm", 42)
    assert f"a mixture of {result['components']} Gaussian" in text
    assert "3 new ears from a.ckpt" in text
    assert {tuple(match) for match in result["nearest"]} == {("row", "distance", "mirrored")}
    distances = [match["distance"] for match in result["nearest"]]
    assert len(distances) == len(result["images"]) == 3
    assert (
        f"median distance {statistics.median(distances):.3f}, minimum {min(distances):.3f}" in text
    )
    assert f"validation images median distance {result['validation_distance']:.3f}" in text
    assert "each ear above its nearest training image" in text


def test_ears_of_the_prior_without_nearest_images(ckpt: str) -> None:
    options = ("--sampler", "prior", "--seed", 7, "--temperature", 0.5)
    result, text = both(ckpt, "--out", "out", *options, "--no-nearest")
    assert (result["sampler"], result["components"], result["seed"]) == ("prior", None, 7)
    assert (result["nearest"], result["validation_distance"]) == (None, None)
    assert len(result["images"]) == 8
    assert "the prior, seed 7, temperature 0.5" in text
    assert "nearest" not in text
    assert not Path("a.mixture.npz").exists()


def test_interpolation(ckpt: str) -> None:
    result, text = both(ckpt, "--out", "out", "--interpolate", 0, 3, "-n", 4)
    assert [Path(end).name for end in result["ends"]] == [
        "val_teacher.npy[0]", "val_teacher.npy[3]",
    ]  # fmt: skip
    assert (result["sampler"], result["seed"]) == (None, None)
    assert result["turned"] is ("mirrored to the same side" in text)
    assert len(result["images"]) == 4
    assert result["grid"] in text
    # A file whose name is a number is named with its folder.
    shutil.copy("out/sample-000.png", "3")
    result = earteach("sample", ckpt, "--out", "out", "--interpolate", "./3", "3", "--json").json
    assert [Path(end).name for end in result["ends"]] == ["3", "val_teacher.npy[3]"]
    assert len(result["images"]) == 8


def test_traversal(ckpt: str) -> None:
    result, text = both(ckpt, "--out", "out", "--traverse", 2)
    assert result["sigmas"] == [-3, -2, -1, 0, 1, 2, 3]
    assert len(result["images"]) == 14
    shares = ", ".join(f"{direction['share']:.1%}" for direction in result["directions"])
    assert shares in text
    assert "-3 to +3 standard deviations" in text
    assert (result["sampler"], result["seed"]) == (None, None)
    fewer = earteach("sample", ckpt, "--out", "out", "--traverse", 2, "-n", 3, "--json").json
    assert len(fewer["images"]) == len(list(Path("out").glob("sample-*.png"))) == 6


@pytest.mark.parametrize(
    ("typed", "code", "message"),
    [
        ("--sampler gmm --traverse 2", 2, "--sampler and --traverse cannot be used together"),
        (
            "--interpolate 0 1 --traverse 2",
            2,
            "--interpolate and --traverse cannot be used together",
        ),
        ("--sampler vae", 2, "vae"),
        ("--check --traverse 2", 2, "--check and --traverse cannot be used together"),
        ("--check", 1, "--check: compares 7 ears; it needs 100 new ears (--number)"),
        ("--temperature 0.5 --interpolate 0 1", 2, "--temperature and --interpolate cannot be"),
        ("--temperature 0", 1, "--temperature 0: must be above 0"),
        ("--temperature 2.5", 1, "--temperature 2.5: must be above 0 and at most 2"),
        ("--temperature nan", 1, "--temperature nan: must be above 0"),
        ("-n 0", 2, "--number"),
        ("--interpolate 0 900", 1, "has rows 0 to 6"),
        ("--interpolate none.png 1", 1, "--interpolate none.png: no such file"),
        ("--interpolate 0 1 -n 1", 1, "--number 1: must be at least 2"),
    ],
)
def test_errors_leave_nothing_behind(ckpt: str, typed: str, code: int, message: str) -> None:
    result = earteach("sample", ckpt, "--out", "out", *typed.split())
    assert (result.code, result.out) == (code, "")
    assert message in " ".join(result.err.replace("│", " ").split())
    if code == 1:
        assert result.err.startswith("error: ")
        assert result.err.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["a.ckpt"]


def test_the_network_in_the_package_has_no_photographs_to_check_with(tmp_path: Path) -> None:
    result = earteach("sample", "drawn", "--check", "-n", 100, "--out", tmp_path / "out")
    assert (result.code, result.out) == (1, "")
    assert "does not name the images that it was trained on" in result.err
    assert not list(tmp_path.iterdir())


# Runs commands one after the other and prints the libraries they imported.
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


@pytest.mark.slow
def test_scikit_learn_is_imported_for_a_fit_only(ckpt: str) -> None:
    assert earteach("sample", ckpt, "--out", "out", "-n", 2).code == 0
    ways = ["", "--sampler prior", "--traverse 1", "--interpolate 0 1"]
    lines = json.dumps([f"sample {ckpt} --out out {way}" for way in ways])
    ran = subprocess.run([sys.executable, "-c", PROGRAM, lines], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    imported = set(json.loads(ran.stdout.splitlines()[-1]))
    assert "torch" in imported
    assert not {"sklearn", "pytorch_lightning", "torchmetrics", "albumentations"} & imported
