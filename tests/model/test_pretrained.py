"""Networks from folders in the Hugging Face Hub's layout."""

import copy
import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

import earteach
from earteach.errors import EarTeachError
from earteach.inference.export import export
from tests.conftest import TEACHING, TINY_RUN, data_options, run_options
from tests.conftest import earteach as command
from tests.inference.conftest import untrained


@pytest.fixture(scope="module", params=["attention", "mobile"])
def saved(trained, tmp_path_factory, request):
    """A checkpoint of a trained network, and one with a student's encoder."""
    if request.param == "attention":
        return trained.last
    path = tmp_path_factory.mktemp("student") / "last.ckpt"
    shutil.copy(trained.last, path)
    return untrained(path, encoder="mobile")


@pytest.fixture(scope="module")
def folders(saved, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    return {
        part: export(saved, folder / part, format="safetensors", part=part).path
        for part in ("full", "encoder", "decoder", "features")
    }


IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_network_is_that_of_the_checkpoint(saved, folders):
    expected, loaded = earteach.load(saved), earteach.load(str(folders["full"]))
    assert not loaded.training
    assert {n: v.tolist() for n, v in loaded.state_dict().items()} == {
        n: v.tolist() for n, v in expected.state_dict().items()
    }
    assert all(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize(
    ("part", "can", "cannot"),
    [
        ("encoder", ["encode", "features"], {"reconstruct": "decoder"}),
        ("features", ["features"], {"encode": "encoder", "reconstruct": "encoder"}),
        ("decoder", [], {"encode": "encoder", "features": "encoder"}),
    ],
)
def test_a_part_does_what_it_can_and_says_what_it_cannot(saved, folders, part, can, cannot):
    expected, loaded = earteach.load(saved), earteach.load(folders[part])
    with torch.no_grad():
        for name in can:
            for one, other in zip(
                getattr(expected, name)(IMAGES), getattr(loaded, name)(IMAGES), strict=True
            ):
                torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        for name, side in cannot.items():
            with pytest.raises(EarTeachError, match=f"holds the network's {part} but no {side}"):
                getattr(loaded, name)(IMAGES)
        if part == "decoder":
            codes = torch.zeros(1, 16)
            torch.testing.assert_close(expected.decode(codes), loaded.decode(codes))
    loaded.to("cpu")
    assert set(copy.deepcopy(loaded).state_dict()) < set(expected.state_dict())
    # A student's encoder needs no PCA.
    pca = {name for name in load_file(folders[part] / "model.safetensors") if "pca." in name}
    assert bool(pca) == (part == "decoder" or "last" in str(saved))


@pytest.mark.parametrize("saved", ["attention"], indirect=True)
def test_what_cannot_be_read_is_one_line(folders, tmp_path):
    with pytest.raises(EarTeachError, match="no such checkpoint"):
        earteach.load("earteach/ear-vae")
    for config, words in (
        ("{", r"config.json: is not as .* \(Expecting property name.*; name a folder"),
        ("[]", "config.json: is not as"),
        ('{"model_type": "bert"}', "config.json: is not as .* \\(no 'pca_init'\\)"),
        ({"image_size": 100}, "--image-size 100: must be a multiple of 16"),
        ({"base_channels": 16}, "do not fit its configuration"),
        ({"part": "head"}, "unknown part 'head'"),
        ({}, "model.safetensors: is not as"),
    ):
        path = tmp_path / "config.json"
        if isinstance(config, dict):
            stored = json.loads((folders["full"] / path.name).read_text())
            path.write_text(json.dumps(stored | config))
            shutil.copy(folders["full"] / "model.safetensors", tmp_path)
        else:
            path.write_text(config)
        if config == {}:
            (tmp_path / "model.safetensors").write_bytes(b"mine")
        with pytest.raises(EarTeachError, match=words) as caught:
            earteach.load(tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("saved", ["attention"], indirect=True)
def test_the_model_card_has_the_checkpoints_numbers(trained, folders):
    text = (folders["full"] / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    about = yaml.safe_load(header)
    state = torch.load(trained.last, weights_only=True)["earteach"]
    assert (about["license"], about["library_name"]) == ("other", "earteach")
    assert f"| PSNR on validation images | {state['metrics']['val/psnr']:.2f} dB |" in body
    assert "| trained for | 4 epochs, 24 steps |" in body


@pytest.mark.parametrize("saved", ["attention"], indirect=True)
def test_every_command_takes_the_folder(trained, folders, ears, tmp_path):
    """And gives what it gives for the checkpoint; data has to be named, as the folder names none."""
    data = ears / "val_teacher.npy"
    of_checkpoint, of_folder = (
        command("eval", path, "--data", data, "--json").json["metrics"]
        for path in (trained.last, folders["full"])
    )
    for name in ("psnr", "ssim", "kld", "recon_loss"):
        assert of_folder[name] == pytest.approx(of_checkpoint[name], rel=1e-5)
    assert "no such file; name an array with --data" in command("eval", folders["full"]).err
    for arguments in (
        ["sample", "-n", "2", "--out", tmp_path / "sampled"],
        ["reconstruct", "--input", data, "-n", "2", "--out", tmp_path / "reconstructed"],
        ["embed", "--input", data, "--out", tmp_path / "codes.npz"],
        ["inspect-model"],
        ["landmarks", "--input", tmp_path / "sampled", "--out", tmp_path / "found"],
        ["export", "--format", "torchscript", "--out", tmp_path / "ear.pt"],
    ):
        name, *rest = arguments
        result = command(name, folders["full"], *rest, "--json")
        assert result.code == 0, result.err
    result = command(
        "train", *data_options(ears), *run_options(tmp_path), *TINY_RUN, *TEACHING, "--epochs", 1,
        "--init-from", folders["full"], "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
