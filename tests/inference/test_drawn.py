"""The network in the package, which learned from drawn ears alone."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import earteach
from earteach.synthetic.drawn_ear import draw_ear
from tests.conftest import earteach as command

FOLDER = Path(earteach.__file__).parent / "weights" / "drawn"
SIZE = 160


def test_its_card_names_the_weights_and_they_are_small():
    weights = (FOLDER / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() in (FOLDER / "README.md").read_text()
    assert len(weights) <= 8 * 2**20


def test_it_finds_landmarks_of_ears_that_it_has_not_seen(tmp_path):
    """Its own series is drawn from other seeds."""
    ears = [draw_ear(987_654, index, SIZE) for index in range(12)]
    for index, ear in enumerate(ears):
        (tmp_path / "ears").mkdir(exist_ok=True)
        Image.fromarray(ear.image).save(tmp_path / "ears" / f"{index:02d}.png")
    result = command("landmarks", "--input", tmp_path / "ears", "--out", tmp_path / "out", "--json")
    found = np.array([image["points"] for image in result.json["images"]])
    true = np.stack([ear.landmarks for ear in ears])
    diagonals = np.linalg.norm(np.ptp(true, axis=1), axis=1)
    errors = np.linalg.norm(found - true, axis=2).mean(axis=1) / diagonals
    assert np.median(errors) < 0.02
    with Image.open(tmp_path / "out" / "00.png") as picture:
        assert picture.size == (SIZE, SIZE)


def test_it_samples_and_reconstructs_without_arrays(tmp_path):
    result = command("sample", "drawn", "-n", 2, "--out", tmp_path / "new", "--json")
    assert (result.code, result.json["sampler"]) == (0, "gmm")
    assert "fitting" not in result.err
    ear = draw_ear(987_654, 0, 64).image
    Image.fromarray(ear).save(tmp_path / "ear.png")
    out = tmp_path / "rec"
    result = command(
        "reconstruct", "drawn", "--input", tmp_path / "ear.png", "--out", out, "--json"
    )
    assert result.json["images"][0]["psnr"] > 25


def test_it_is_a_backbone_and_a_start(ears, tmp_path):
    backbone = earteach.EarBackbone.from_pretrained("drawn", fpn="trained")
    assert backbone(torch.rand(1, 3, 64, 96))["stride8"].shape[2:] == (8, 12)
    result = command("landmarks", "--train", ears, "--steps", 1, "--no-drawn", "--no-compare",
                     "--checkpoint-dir", tmp_path / "none", "--out", tmp_path, "--json")  # fmt: skip
    assert result.json["teacher"] == str(FOLDER / "model.safetensors")


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert earteach.load("drawn").latent_dim == 128
    shutil.copytree(FOLDER, tmp_path / "drawn")
    (tmp_path / "drawn" / "model.safetensors").unlink()
    with pytest.raises(earteach.EarTeachError, match=r"model\.safetensors: .*No such file"):
        earteach.load("drawn")
