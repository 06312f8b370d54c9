"""Networks from folders in the Hugging Face Hub's layout."""

import copy
import json
import logging

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import earteach
from earteach import checkpoint
from earteach.errors import EarTeachError
from earteach.inference.export import export
from earteach.model.build import build_model
from earteach.model.pretrained import load_pretrained
from earteach.model.vae import ConvVAE


@pytest.fixture(scope="module", params=["attention", "mobile"])
def saved(trained, tmp_path_factory, request):
    """A checkpoint of a trained network, and one of a student that has its decoder."""
    if request.param == "attention":
        return trained.last
    teacher = checkpoint.read(trained.last)
    config = teacher.config.with_options({"encoder": "mobile"})
    torch.manual_seed(0)
    student = build_model(config.model)
    student.load_state_dict(
        {n: v for n, v in teacher.model().state_dict().items() if not n.startswith("encoder.")},
        strict=False,
    )
    path = tmp_path_factory.mktemp("student") / "student.ckpt"
    weights = {f"model.{name}": value for name, value in student.state_dict().items()}
    entry = checkpoint.about(config, {}, epochs_completed=1)
    checkpoint.write({"state_dict": weights, "global_step": 1, checkpoint.KEY: entry}, path)
    return path


@pytest.fixture(scope="module")
def folders(saved, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    return {
        part: export(saved, folder / part, format="safetensors", part=part).path
        for part in ("full", "encoder", "decoder", "features")
    }


IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_network_is_that_of_the_checkpoint(saved, folders):
    expected, loaded = earteach.load(saved), load_pretrained(str(folders["full"]))
    assert not loaded.training
    assert {n: v.tolist() for n, v in loaded.state_dict().items()} == {
        n: v.tolist() for n, v in expected.state_dict().items()
    }
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_the_hubs_own_mixin_reads_the_folder(saved, folders):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

    class HubEarVAE(hub.PyTorchModelHubMixin, ConvVAE):
        pass

    loaded = HubEarVAE.from_pretrained(folders["full"])
    with torch.no_grad():
        expected = earteach.load(saved).reconstruct(IMAGES)
        torch.testing.assert_close(loaded.reconstruct(IMAGES), expected)


@pytest.mark.parametrize(
    ("part", "can", "cannot"),
    [
        ("encoder", ["encode", "features"], {"reconstruct": "decoder"}),
        ("features", ["features"], {"encode": "encoder", "reconstruct": "encoder"}),
        ("decoder", [], {"encode": "encoder", "features": "encoder"}),
    ],
)
def test_a_part_does_what_it_can_and_says_what_it_cannot(saved, folders, part, can, cannot):
    expected, loaded = earteach.load(saved), load_pretrained(folders[part])
    with torch.no_grad():
        for name in can:
            for one, other in zip(
                getattr(expected, name)(IMAGES), getattr(loaded, name)(IMAGES), strict=True
            ):
                torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        for name, side in cannot.items():
            with pytest.raises(EarTeachError, match=f"holds {part} of the network and no {side}"):
                getattr(loaded, name)(IMAGES)
        if part == "decoder":
            codes = torch.zeros(1, 16)
            torch.testing.assert_close(expected.decode(codes), loaded.decode(codes))
    loaded.to("cpu")
    assert set(copy.deepcopy(loaded).state_dict()) < set(expected.state_dict())


def copied(folder, tmp_path, **changes):
    about = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**about, **changes}))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    return tmp_path


@pytest.mark.parametrize("saved", ["attention"], indirect=True)
def test_what_cannot_be_read_is_one_line(folders, tmp_path):
    def refused(words: str) -> None:
        with pytest.raises(EarTeachError, match=words) as caught:
            load_pretrained(tmp_path)
        assert "\n" not in str(caught.value)

    with pytest.raises(EarTeachError, match=r"no such folder; .*nothing is downloaded"):
        load_pretrained("earteach/ear-vae")
    refused("config.json: No such file")
    (tmp_path / "config.json").write_text("{")
    refused("config.json: is not JSON")
    (tmp_path / "config.json").write_text("[]")
    refused("config.json: is not a JSON object")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    refused("has no in_channels, so earteach did not write it")
    copied(folders["full"], tmp_path, image_size=100)
    refused("--image-size 100: must be a multiple of 16")
    copied(folders["full"], tmp_path, base_channels=16)
    refused("do not fit config.json")
    copied(folders["full"], tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"mine")
    refused("model.safetensors: cannot be read")
    (tmp_path / "model.safetensors").unlink()
    refused("model.safetensors: cannot be read")
    save_file({"encoder.a": torch.zeros(1)}, tmp_path / "model.safetensors")
    refused("do not fit config.json")


@pytest.mark.parametrize("saved", ["attention"], indirect=True)
def test_the_model_card_has_the_checkpoints_numbers(trained, folders, caplog):
    text = (folders["full"] / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    about = yaml.safe_load(header)
    state = torch.load(trained.last, weights_only=True)["earteach"]
    (model,) = about["model-index"]
    (result,) = model["results"]
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values["psnr"] == state["metrics"]["val/psnr"]
    assert values["ssim"] == state["metrics"]["val/ssim"]
    assert result["dataset"]["name"] == "val_teacher.npy"
    assert (about["license"], about["library_name"]) == ("other", "earteach")
    assert f"| PSNR | {state['metrics']['val/psnr']:.2f} dB on 7 validation images |" in body
    assert "| trained for | 4 epochs, 24 steps |" in body
    assert "| trained on | 41 images |" in body
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    with caplog.at_level(logging.WARNING):
        card = hub.ModelCard(text)
    assert card.data.eval_results[0].metric_value == values["psnr"]
    assert caplog.records == []


def test_a_students_encoder_goes_without_the_linear_path(saved, folders):
    names = load_file(folders["encoder"] / "model.safetensors").keys()
    student = checkpoint.read(saved).config.model.encoder == "mobile"
    assert any(name.startswith("linear.") for name in names) != student
