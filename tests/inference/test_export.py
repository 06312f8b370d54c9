"""Exports run in their own runtimes and give torch's numbers."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

import earteach
from earteach.config import ModelConfig
from earteach.errors import EarTeachError
from earteach.inference import export as module
from earteach.inference.export import export
from earteach.model.vae import EarVAE

PARTS = ["full", "encoder", "decoder"]
SHAPES = {
    "full": ({"images": [3, 32, 32]}, {"reconstructions": [3, 32, 32]}),
    "encoder": ({"images": [3, 32, 32]}, {"mu": [16], "logvar": [16]}),
    "decoder": ({"codes": [16]}, {"images": [3, 32, 32]}),
}


def inputs(part: str, number: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(number)
    shape = (number, 16) if part == "decoder" else (number, 3, 32, 32)
    draw = torch.randn if part == "decoder" else torch.rand
    return draw(shape, generator=generator)


def by_torch(checkpoint: Path, part: str, batch: torch.Tensor) -> list[np.ndarray]:
    model = earteach.load(checkpoint)
    call = {"full": model.reconstruct, "encoder": model.encode, "decoder": model.decode}[part]
    with torch.no_grad():
        outputs = call(batch)
    return [tensor.numpy() for tensor in (outputs if isinstance(outputs, tuple) else [outputs])]


@pytest.fixture(scope="module")
def onnx_exports(trained, tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("onnx")
    return {
        part: export(trained.last, folder / f"{part}.onnx", format="onnx", part=part)
        for part in PARTS
    }


@pytest.mark.parametrize("number", [1, 3, 5])
@pytest.mark.parametrize("part", PARTS)
def test_onnx_gives_torchs_numbers(trained, onnx_exports, part, number):
    session = onnxruntime.InferenceSession(
        onnx_exports[part].path, providers=["CPUExecutionProvider"]
    )
    (port,) = session.get_inputs()
    batch = inputs(part, number)
    seen = session.run(None, {port.name: batch.numpy()})
    for wanted, got in zip(by_torch(trained.last, part, batch), seen, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-4)


@pytest.mark.parametrize("part", PARTS)
def test_the_onnx_file_says_what_it_takes(trained, onnx_exports, part):
    result = onnx_exports[part]
    proto = onnx.load(result.path)
    onnx.checker.check_model(proto)
    for graph, reported, wanted in zip(
        (proto.graph.input, proto.graph.output), (result.inputs, result.outputs), SHAPES[part],
        strict=True,
    ):  # fmt: skip
        stored = {p.name: [d.dim_value for d in p.type.tensor_type.shape.dim][1:] for p in graph}
        assert stored == wanted
        assert all(p.type.tensor_type.shape.dim[0].dim_param for p in graph)  # any batch
        assert {port.name: list(port.shape[1:]) for port in reported} == wanted
        assert {port.shape[0] for port in reported} == {"batch"}
    assert proto.producer_name == "earteach"
    assert {p.key: p.value for p in proto.metadata_props} == {
        "checkpoint": "last.ckpt", "part": part,
    }  # fmt: skip
    assert result.bytes == result.path.stat().st_size
    assert result.parity.passed
    assert result.parity.images == 7  # the validation images
    assert 0 <= result.parity.max_abs_error < 1e-4
    assert [path.name for path in result.path.parent.iterdir() if path.name[0] == "."] == []


@pytest.mark.parametrize("number", [1, 3, 5])
@pytest.mark.parametrize("part", PARTS)
def test_safetensors_gives_torchs_numbers(trained, tmp_path, part, number):
    result = export(trained.last, tmp_path / "out", format="safetensors", part=part)
    assert sorted(p.name for p in result.path.iterdir()) == ["config.json", "model.safetensors"]
    about = json.loads((result.path / "config.json").read_text())
    model = EarVAE.from_config(ModelConfig(**about["model"]))
    weights = load_file(result.path / "model.safetensors")
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert unexpected == []
    other = {"full": (), "encoder": ("decoder.",), "decoder": ("encoder.",)}[part]
    assert all(name.startswith(other) for name in missing)
    call = {"full": model.reconstruct, "encoder": model.encode, "decoder": model.decode}[part]
    batch = inputs(part, number)
    with torch.no_grad():
        outputs = call(batch)
    outputs = outputs if isinstance(outputs, tuple) else [outputs]
    for wanted, got in zip(by_torch(trained.last, part, batch), outputs, strict=True):
        np.testing.assert_allclose(got.numpy(), wanted, atol=1e-6)
    assert {p["name"]: p["shape"][1:] for p in about["inputs"]} == SHAPES[part][0]
    assert result.bytes == sum(path.stat().st_size for path in result.path.iterdir())
    assert (about["part"], about["colour_order"]) == (part, "RGB")


def test_a_folder_stands_for_its_best_checkpoint(trained, tmp_path):
    result = export(trained.checkpoints, tmp_path / "out", format="safetensors")
    assert str(result.checkpoint) == trained.result["best"]["loss"]["path"]


def test_without_validation_images_drawn_ears_are_compared_on(trained, tmp_path):
    state = torch.load(trained.last, weights_only=True)
    state["earteach"]["config"]["data"]["val_data"] = str(tmp_path / "gone.npy")
    torch.save(state, tmp_path / "x.ckpt")
    result = export(tmp_path / "x.ckpt", tmp_path / "out", format="safetensors")
    assert (result.parity.images, result.parity.passed) == (8, True)


@pytest.fixture
def quick_onnx(monkeypatch, onnx_exports) -> None:
    """Put the file that was exported before where a new one is asked for: torch takes seconds."""

    def copied(target: Path, found: Any, network: Any, part: str, example: torch.Tensor) -> None:
        target.write_bytes(onnx_exports[part].path.read_bytes())

    monkeypatch.setattr(module, "_write_onnx", copied)


NAMES = ["model.onnx", "model", "model.json", "m.txt", "ear model (1).pb", "模型.onnx", "n" * 250]


@pytest.mark.parametrize("name", NAMES)
def test_any_file_name_works_and_an_own_export_is_replaced(trained, tmp_path, quick_onnx, name):
    for _ in range(2):
        result = export(trained.last, tmp_path / "sub" / name, part="decoder")
    assert list((tmp_path / "sub").iterdir()) == [result.path] == [tmp_path / "sub" / name]
    session = onnxruntime.InferenceSession(
        result.path.read_bytes(), providers=["CPUExecutionProvider"]
    )
    assert session.run(None, {"codes": inputs("decoder", 2).numpy()})[0].shape == (2, 3, 32, 32)


def test_a_name_that_the_system_refuses_is_one_line(trained, tmp_path, quick_onnx):
    with pytest.raises(EarTeachError, match="cannot be written: File name too long"):
        export(trained.last, tmp_path / ("n" * 300), part="decoder")
    (tmp_path / "file").touch()
    with pytest.raises(EarTeachError, match="is a file; name a folder"):
        export(trained.last, tmp_path / "file" / "model.onnx", part="decoder")


def foreign_onnx(path: Path) -> None:
    graph = onnx.helper.make_graph([], "g", [], [])
    onnx.save(onnx.helper.make_model(graph, producer_name="pytorch"), path)


def a_file(content: bytes):
    return lambda path: path.write_bytes(content)


def a_folder(config: str | None):
    def make(path: Path) -> None:
        path.mkdir()
        save_file({"a": torch.zeros(1)}, path / "model.safetensors")
        if config is not None:
            (path / "config.json").write_text(config)

    return make


FOREIGN = {
    "text for onnx": ("onnx", a_file(b"mine")),
    "empty file for onnx": ("onnx", a_file(b"")),
    "another tool's onnx": ("onnx", foreign_onnx),
    "folder for onnx": ("onnx", Path.mkdir),
    "own folder for onnx": ("onnx", a_folder('{"earteach": "0"}')),
    "file for safetensors": ("safetensors", a_file(b"mine")),
    "folder without config": ("safetensors", a_folder(None)),
    "another tool's config": ("safetensors", a_folder('{"model_type": "bert"}')),
    "a number for config": ("safetensors", a_folder("5")),
    "a word for config": ("safetensors", a_folder('"earteach"')),
    "broken config": ("safetensors", a_folder("{")),
}


def contents(path: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in [path, *path.rglob("*")] if p.is_file()}


@pytest.mark.parametrize(("format", "make"), FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_stays(trained, tmp_path, quick_onnx, format, make):
    out = tmp_path / "out"
    make(out)
    before = contents(tmp_path)
    with pytest.raises(EarTeachError, match=f"is no {format} export of earteach; move it away"):
        export(trained.last, out, format=format, part="decoder")
    assert contents(tmp_path) == before
    assert list(tmp_path.iterdir()) == [out]


def test_an_own_folder_is_replaced_and_what_else_is_in_it_stays(trained, tmp_path):
    out = tmp_path / "out"
    export(trained.last, out, format="safetensors", part="full")
    (out / "README.md").write_text("mine")
    export(trained.last, out, format="safetensors", part="encoder")
    assert json.loads((out / "config.json").read_text())["part"] == "encoder"
    parts = {name.partition(".")[0] for name in load_file(out / "model.safetensors")}
    assert parts == {"linear", "encoder"}
    assert (out / "README.md").read_text() == "mine"


def noisy(run: module.Run, error: float) -> module.Run:
    return lambda batch: [output + error for output in run(batch)]


@pytest.mark.parametrize("error", [0.01, float("nan"), float("inf")])
@pytest.mark.parametrize("format", ["onnx", "safetensors"])
def test_other_numbers_than_torchs_leave_nothing(
    trained, tmp_path, quick_onnx, monkeypatch, format, error
):
    load = getattr(module, f"_load_{format}")
    monkeypatch.setattr(module, f"_load_{format}", lambda *args: noisy(load(*args), error))
    with pytest.raises(EarTeachError, match=r"differs from torch's by .*so it was removed"):
        export(trained.last, tmp_path / "out", format=format, part="decoder")
    assert list(tmp_path.iterdir()) == []


def test_a_small_difference_is_reported(trained, tmp_path, monkeypatch):
    load = module._load_safetensors
    monkeypatch.setattr(module, "_load_safetensors", lambda *args: noisy(load(*args), 5e-4))
    result = export(trained.last, tmp_path / "out", format="safetensors")
    assert result.parity.max_abs_error == pytest.approx(5e-4, rel=1e-3)


def test_a_failed_export_leaves_the_one_before(trained, tmp_path, monkeypatch):
    out = tmp_path / "out"
    export(trained.last, out, format="safetensors", part="full")
    before = contents(tmp_path)
    load = module._load_safetensors
    monkeypatch.setattr(module, "_load_safetensors", lambda *args: noisy(load(*args), 1))
    with pytest.raises(EarTeachError):
        export(trained.last, out, format="safetensors", part="encoder")
    assert contents(tmp_path) == before


def test_a_full_disk_is_one_line(trained, tmp_path, monkeypatch):
    def full(target: Path, *_: Any) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write_onnx", full)
    with pytest.raises(EarTeachError, match="cannot be written: No space left on device"):
        export(trained.last, tmp_path / "out.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("format", "missing"),
    [("onnx", ["onnxruntime"]), ("onnx", ["onnx", "onnxscript"]), ("safetensors", ["safetensors"])],
)
def test_a_missing_package_is_named(trained, tmp_path, monkeypatch, format, missing):
    def find(name: str) -> Any:
        return None if name in missing else SimpleNamespace(name=name)

    assert all(importlib.util.find_spec(name) for name in missing)
    monkeypatch.setattr(module, "find_spec", find)
    with pytest.raises(EarTeachError) as caught:
        export(trained.last, tmp_path / "out", format=format)
    wanted = f"--format {format}: needs {', '.join(missing)}; install them with"
    assert str(caught.value).startswith(wanted)
    assert "pip install 'earteach[export]'" in str(caught.value)


def test_the_checkpoint_is_checked_first(tmp_path):
    with pytest.raises(EarTeachError, match="no such checkpoint"):
        export(tmp_path / "none.ckpt", tmp_path / "out")
