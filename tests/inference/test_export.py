"""Exports run in their own runtimes and give torch's numbers."""

import copy
import importlib.util
import io
import json
import warnings
from collections.abc import Iterator
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
from earteach.inference.export import (
    Export,
    export,
    formats,
    onnx_format,
    safetensors_format,
    torch_export_format,
)
from earteach.model.vae import EarVAE
from earteach.synthetic.drawn_ear import draw_ear

FORMATS = ["onnx", "torchscript", "torch-export", "safetensors", "openvino"]
PARTS = ["full", "encoder", "decoder", "features"]
MAPS = {
    "stride_2": [8, 16, 16],
    "stride_4": [16, 8, 8],
    "stride_8": [32, 4, 4],
    "stride_16": [64, 2, 2],
}
SHAPES = {
    "full": ({"images": [3, 32, 32]}, {"reconstructions": [3, 32, 32]}),
    "encoder": ({"images": [3, 32, 32]}, {"mu": [16], "logvar": [16]}),
    "decoder": ({"codes": [16]}, {"images": [3, 32, 32]}),
    "features": ({"images": [3, 32, 32]}, MAPS),
}
# torch takes seconds to store a graph of its own.
SLOW = {("torch-export", part) for part in ("full", "encoder", "decoder")}
TABLE = [
    pytest.param(format, part, marks=[pytest.mark.slow] if (format, part) in SLOW else [])
    for format in FORMATS
    for part in PARTS
]


def inputs(part: str, number: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(number)
    if part == "decoder":
        return torch.randn((number, 16), generator=generator)
    drawn = np.stack([draw_ear(number, index, 32).image for index in range(number)])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 255


def by_torch(model: EarVAE, part: str, batch: torch.Tensor) -> list[np.ndarray]:
    calls = {
        "full": model.reconstruct, "encoder": model.encode, "decoder": model.decode,
        "features": model.features,
    }  # fmt: skip
    with torch.no_grad():
        outputs = calls[part](batch)
    listed = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    return [tensor.numpy() for tensor in listed]


def in_onnxruntime(path: Path, batch: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (port,) = session.get_inputs()
    return session.run(None, {port.name: batch})


def in_libtorch(path: Path, batch: torch.Tensor) -> list[np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as deprecated, in one way or another
        module = torch.jit.load(io.BytesIO(path.read_bytes()))
    with torch.no_grad():
        return [output.numpy() for output in module(batch)]


def in_torch(path: Path, batch: torch.Tensor) -> list[np.ndarray]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        module = torch.export.load(io.BytesIO(path.read_bytes())).module()
    with torch.no_grad():
        return [output.numpy() for output in module(batch)]


def in_openvino(path: Path, batch: torch.Tensor) -> list[np.ndarray]:
    openvino = pytest.importorskip("openvino", reason="the extra openvino is not installed")
    compiled = openvino.compile_model(
        path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return list(compiled(batch.numpy()).to_tuple())


def ran(result: Export, batch: torch.Tensor) -> list[np.ndarray]:
    """In the runtime of the format, by its own means."""
    if result.format == "onnx":
        return in_onnxruntime(result.path, batch.numpy())
    if result.format == "safetensors":
        return by_torch(EarVAE.from_pretrained(result.path), result.part, batch)
    run = {"torchscript": in_libtorch, "torch-export": in_torch, "openvino": in_openvino}
    return run[result.format](result.path, batch)


@pytest.fixture(scope="module")
def graphs() -> Iterator[None]:
    """torch takes seconds for a graph, and again for ONNX: each part's is made once."""
    with pytest.MonkeyPatch.context() as patch:
        for place, name in (
            (torch_export_format, "program"), (onnx_format, "program"), (onnx_format, "proto"),
        ):  # fmt: skip
            patch.setattr(place, name, once_for_each_job(getattr(place, name)))
        yield


def once_for_each_job(make: Any) -> Any:
    kept: dict[Any, Any] = {}

    def made(job: Any, example: torch.Tensor) -> Any:
        key = (str(job.found.path), job.part, job.size, job.preprocessing, job.opset)
        if key not in kept:
            kept[key] = make(job, example)
        return copy.deepcopy(kept[key]) if make.__name__ == "proto" else kept[key]

    made.__name__ = make.__name__
    return made


@pytest.fixture(scope="module")
def exported(trained, graphs, tmp_path_factory) -> Any:
    """Each format and part once."""
    folder, kept = tmp_path_factory.mktemp("exports"), {}

    def made(format: str, part: str) -> Export:
        if format == "openvino":
            pytest.importorskip("openvino", reason="the extra openvino is not installed")
        if (format, part) not in kept:
            out = folder / f"{format}-{part}"
            kept[format, part] = export(trained.last, out, format=format, part=part)
        return kept[format, part]

    return made


@pytest.mark.parametrize(("format", "part"), TABLE)
def test_an_export_gives_torchs_numbers_in_its_own_runtime(trained, exported, format, part):
    result = exported(format, part)
    model = earteach.load(trained.last)
    for number in (1, 2, 3, 5):
        batch = inputs(part, number)
        wanted = by_torch(model, part, batch)
        for one, other in zip(wanted, ran(result, batch), strict=True):
            # A map's values may be hundreds, whose last bits are in the small ones too.
            atol = max(1e-4, 1e-6 * np.abs(one).max())
            np.testing.assert_allclose(other, one, atol=atol, rtol=1e-5)
    assert result.parity.passed
    assert result.parity.images == 7  # the validation images
    assert 0 <= result.parity.max_abs_error < (1e-3 if part == "features" else 1e-4)


@pytest.mark.parametrize(("format", "part"), TABLE)
def test_the_json_beside_it_says_what_it_is(trained, exported, format, part):
    result = exported(format, part)
    about = json.loads(result.sidecar.read_text())
    for ports, reported, wanted in zip(
        (about["inputs"], about["outputs"]), (result.inputs, result.outputs), SHAPES[part],
        strict=True,
    ):  # fmt: skip
        assert {port["name"]: port["shape"] for port in ports} == {
            name: ["batch", *shape] for name, shape in wanted.items()
        }
        assert [port["name"] for port in ports] == [port.name for port in reported]
        assert {port["dtype"] for port in ports} == {"float32"}
    assert (about["format"], about["part"], about["earteach"]) == (
        format, part, earteach.__version__,
    )  # fmt: skip
    assert about["checkpoint"]["name"] == "last.ckpt"
    assert about["checkpoint"]["sha256"] == result.checkpoint_sha256 == sha256(trained.last)
    folder = result.path.is_dir()
    assert folder == (format in ("safetensors", "openvino"))
    assert result.sidecar.name == ("export.json" if folder else f"{result.path.name}.json")
    where = result.path if folder else result.path.parent
    assert {name: sha256(where / name) for name in about["files"]} == about["files"]
    assert result.bytes == sum((where / name).stat().st_size for name in about["files"])
    ready = about["preprocessing"]
    assert (ready["height"], ready["width"], ready["colour_order"]) == (32, 32, "RGB")
    images_in, images_out = part != "decoder", part in ("full", "decoder")
    wanted = ([0.0, 1.0], "NCHW") if images_in else (None, None)
    assert (ready["input_range"], ready["input_layout"]) == wanted
    assert ready["output_range"] == ([0.0, 1.0] if images_out else None)
    assert about["parity"] == {
        "images": 7, "max_abs_error": result.parity.max_abs_error, "passed": True,
    }  # fmt: skip
    assert "biometric" in about["licence"]
    assert [path.name for path in result.path.parent.iterdir() if path.name[0] == "."] == []


def sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("part", PARTS)
def test_the_onnx_file_says_what_it_takes(exported, part):
    result = exported("onnx", part)
    proto = onnx.load(result.path, format="protobuf")
    onnx.checker.check_model(proto)
    for graph, wanted in zip((proto.graph.input, proto.graph.output), SHAPES[part], strict=True):
        stored = {p.name: [d.dim_value for d in p.type.tensor_type.shape.dim][1:] for p in graph}
        assert stored == wanted
        assert all(p.type.tensor_type.shape.dim[0].dim_param for p in graph)  # any batch
    assert proto.producer_name == "earteach"
    assert [entry.version for entry in proto.opset_import if not entry.domain] == [18]
    assert result.opset == 18
    assert {p.key: p.value for p in proto.metadata_props} == {
        "checkpoint": "last.ckpt", "part": part,
    }  # fmt: skip


@pytest.mark.slow
def test_another_opset_and_uint8_images(trained, tmp_path):
    result = export(trained.last, tmp_path / "x", part="encoder", opset=20, with_preprocessing=True)
    proto = onnx.load(result.path, format="protobuf")
    assert [entry.version for entry in proto.opset_import if not entry.domain] == [20]
    images = np.stack([draw_ear(5, index, 32).image for index in range(4)])
    seen = in_onnxruntime(result.path, images)
    batch = torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(255))
    for one, other in zip(
        by_torch(earteach.load(trained.last), "encoder", batch), seen, strict=True
    ):
        np.testing.assert_allclose(other, one, atol=1e-4, rtol=1e-5)
    (port,) = result.inputs
    assert (port.shape, port.dtype) == (("batch", 32, 32, 3), "uint8")
    ready = json.loads(result.sidecar.read_text())["preprocessing"]
    assert (ready["input_layout"], ready["input_range"]) == ("NHWC", [0, 255])
    assert ready["inside_the_graph"]


@pytest.mark.parametrize("part", ["full", "encoder", "features"])
def test_uint8_images_for_libtorch(trained, tmp_path, part):
    result = export(
        trained.last, tmp_path / "x", format="torchscript", part=part, with_preprocessing=True
    )
    images = np.stack([draw_ear(5, index, 32).image for index in range(3)])
    batch = torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(255))
    seen = in_libtorch(result.path, torch.from_numpy(images))
    for one, other in zip(by_torch(earteach.load(trained.last), part, batch), seen, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-4, rtol=1e-5)


def test_features_without_eigenears_take_images_of_another_size(sideless, tmp_path):
    result = export(sideless, tmp_path / "x", format="torchscript", part="features", input_size=48)
    assert [port.shape for port in result.outputs] == [
        ("batch", 8, 24, 24), ("batch", 16, 12, 12), ("batch", 32, 6, 6), ("batch", 64, 3, 3),
    ]  # fmt: skip
    larger = EarVAE(latent_dim=16, base_channels=8, image_size=48, pca_init=False).eval()
    blocks = {
        name: value
        for name, value in earteach.load(sideless).state_dict().items()
        if name.startswith("encoder.blocks.")
    }
    larger.load_state_dict(blocks, strict=False)
    batch = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    for one, other in zip(
        by_torch(larger, "features", batch), in_libtorch(result.path, batch), strict=True
    ):
        np.testing.assert_allclose(other, one, atol=1e-4, rtol=1e-5)


REFUSED = {
    "opset of another format": (
        {"format": "safetensors", "opset": 18}, "--opset 18: is of --format onnx",
    ),
    "an old opset": ({"opset": 11}, "--opset 11: must be from 18 to"),
    "uint8 codes": ({"part": "decoder", "with_preprocessing": True}, "the decoder takes codes"),
    "weights that preprocess": (
        {"format": "safetensors", "with_preprocessing": True}, "holds weights and no graph",
    ),
    "int8 of another format": (
        {"format": "torchscript", "quantize": "int8"}, "--quantize int8: is of --format onnx",
    ),
    "int4": ({"quantize": "int4"}, "--quantize int4: must be int8"),
    "another size of a code": (
        {"input_size": 48}, "--input-size 48: the code of this network is that of 32×32",
    ),
    "another size of eigenears": (
        {"input_size": 48, "part": "features"}, "begins with eigenears of 32×32 images",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("options", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_in_words(trained, tmp_path, options, words):
    with pytest.raises(EarTeachError, match=words):
        export(trained.last, tmp_path / "new" / "x", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_the_blocks_cannot_halve(sideless, tmp_path):
    with pytest.raises(EarTeachError, match="--input-size 40: must be a multiple of 16"):
        export(sideless, tmp_path / "x", part="features", input_size=40)


def test_a_folder_stands_for_its_best_checkpoint(trained, tmp_path):
    result = export(trained.checkpoints, tmp_path / "out", format="safetensors")
    assert str(result.checkpoint) == trained.result["best"]["loss"]["path"]


def naming(checkpoint: Path, path: Path, val_data: Path) -> Path:
    state = torch.load(checkpoint, weights_only=True)
    state["earteach"]["config"]["data"]["val_data"] = str(val_data)
    torch.save(state, path)
    return path


def test_without_validation_images_drawn_ears_are_compared_on(trained, tmp_path):
    checkpoint = naming(trained.last, tmp_path / "x.ckpt", tmp_path / "gone.npy")
    result = export(checkpoint, tmp_path / "out", format="safetensors")
    assert (result.parity.images, result.parity.passed) == (9, True)


def test_few_validation_images_fill_the_batches_again(trained, ears, tmp_path):
    np.save(tmp_path / "two.npy", np.load(ears / "val_teacher.npy")[:2])
    checkpoint = naming(trained.last, tmp_path / "x.ckpt", tmp_path / "two.npy")
    result = export(checkpoint, tmp_path / "out", format="safetensors")
    assert result.parity.images == 2


def test_a_file_is_run_at_batch_1_3_and_5_of_different_images(trained, tmp_path, monkeypatch):
    load, seen = safetensors_format.load, []

    def watched(*args: Any) -> Any:
        run = load(*args)
        return lambda batch: seen.append(batch) or run(batch)

    monkeypatch.setattr(safetensors_format, "load", watched)
    export(trained.last, tmp_path / "out", format="safetensors")
    assert [len(batch) for batch in seen] == [1, 3, 5]
    assert len({image.numpy().tobytes() for image in torch.cat(seen)}) == 7


@pytest.fixture
def quick_onnx(monkeypatch, exported) -> None:
    """Put the file that was exported before where a new one is asked for: torch takes seconds."""

    def copied(target: Path, job: Any, example: torch.Tensor) -> None:
        target.write_bytes(exported("onnx", job.part).path.read_bytes())

    monkeypatch.setattr(onnx_format, "write", copied)


NAMES = ["model.onnx", "model", "model.json", "m.txt", "ear model (1).pb", "模型.onnx", "n" * 250]


@pytest.mark.parametrize("name", NAMES)
def test_any_file_name_works_and_an_own_export_is_replaced(trained, tmp_path, quick_onnx, name):
    for _ in range(2):
        result = export(trained.last, tmp_path / "sub" / name, part="decoder")
    assert result.path == tmp_path / "sub" / name
    assert sorted((tmp_path / "sub").iterdir()) == sorted([result.path, result.sidecar])
    (seen,) = in_onnxruntime(result.path, inputs("decoder", 2).numpy())
    assert seen.shape == (2, 3, 32, 32)


def test_a_name_that_the_system_refuses_is_one_line(trained, tmp_path, quick_onnx):
    with pytest.raises(EarTeachError, match="cannot be written: File name too long"):
        export(trained.last, tmp_path / ("n" * 300), part="decoder")
    (tmp_path / "file").touch()
    with pytest.raises(EarTeachError, match="is a file; name a folder"):
        export(trained.last, tmp_path / "file" / "model.onnx", part="decoder")


def foreign_onnx(path: Path) -> None:
    graph = onnx.helper.make_graph([], "g", [], [])
    onnx.save(onnx.helper.make_model(graph, producer_name="pytorch"), path, format="protobuf")


def a_file(content: bytes):
    return lambda path: path.write_bytes(content)


def a_folder(about: str | None):
    def make(path: Path) -> None:
        path.mkdir()
        save_file({"a": torch.zeros(1)}, path / "model.safetensors")
        if about is not None:
            (path / "export.json").write_text(about)

    return make


def beside(content: bytes):
    return lambda path: path.with_name(f"{path.name}.json").write_bytes(content)


FOREIGN = {
    "text for onnx": ("onnx", a_file(b"mine")),
    "empty file for onnx": ("onnx", a_file(b"")),
    "another tool's onnx": ("onnx", foreign_onnx),
    "folder for onnx": ("onnx", Path.mkdir),
    "own folder for onnx": ("onnx", a_folder('{"earteach": "0"}')),
    "a JSON where its own shall be": ("onnx", beside(b'{"mine": 1}')),
    "file for safetensors": ("safetensors", a_file(b"mine")),
    "folder without JSON": ("safetensors", a_folder(None)),
    "another tool's JSON": ("safetensors", a_folder('{"model_type": "bert"}')),
    "another file's JSON": (
        "safetensors",
        a_folder('{"earteach": "0", "format": "safetensors", "files": {"model.safetensors": "0"}}'),
    ),
    "a number for JSON": ("safetensors", a_folder("5")),
    "a word for JSON": ("safetensors", a_folder('"earteach"')),
    "broken JSON": ("safetensors", a_folder("{")),
}


def contents(path: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in [path, *path.rglob("*")] if p.is_file()}


@pytest.mark.parametrize(("format", "make"), FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_stays(trained, tmp_path, quick_onnx, format, make):
    out = tmp_path / "out"
    make(out)
    before, listed = contents(tmp_path), list(tmp_path.iterdir())
    with pytest.raises(EarTeachError, match=rf"is no {format} export of earteach.*; move it away"):
        export(trained.last, out, format=format, part="decoder")
    assert contents(tmp_path) == before
    assert list(tmp_path.iterdir()) == listed


@pytest.mark.parametrize("changed", ["README.md", "model.safetensors"])
def test_an_export_that_was_changed_since_stays(trained, tmp_path, changed):
    out = tmp_path / "out"
    export(trained.last, out, format="safetensors")
    (out / changed).write_bytes(b"mine")
    before = contents(tmp_path)
    with pytest.raises(EarTeachError, match="was changed since"):
        export(trained.last, out, format="safetensors")
    assert contents(tmp_path) == before


def test_an_own_folder_is_replaced_and_what_else_is_in_it_stays(trained, tmp_path):
    out = tmp_path / "out"
    export(trained.last, out, format="safetensors", part="full")
    (out / "notes.md").write_text("mine")
    export(trained.last, out, format="safetensors", part="encoder")
    assert json.loads((out / "config.json").read_text())["part"] == "encoder"
    parts = {name.partition(".")[0] for name in load_file(out / "model.safetensors")}
    assert parts == {"linear", "encoder"}
    assert (out / "notes.md").read_text() == "mine"


def noisy(run: Any, error: float) -> Any:
    return lambda batch: [output + error for output in run(batch)]


MODULES = {"onnx": onnx_format, "safetensors": safetensors_format}


@pytest.mark.parametrize("error", [0.01, float("nan"), float("inf")])
@pytest.mark.parametrize("format", MODULES)
def test_other_numbers_than_torchs_leave_nothing(
    trained, tmp_path, quick_onnx, monkeypatch, format, error
):
    load = MODULES[format].load
    monkeypatch.setattr(MODULES[format], "load", lambda *args: noisy(load(*args), error))
    with pytest.raises(EarTeachError, match=r"differs from torch's by .*so it was removed"):
        export(trained.last, tmp_path / "out", format=format, part="decoder")
    assert list(tmp_path.iterdir()) == []


def test_a_small_difference_is_reported(trained, tmp_path, monkeypatch):
    load = safetensors_format.load
    monkeypatch.setattr(safetensors_format, "load", lambda *args: noisy(load(*args), 5e-4))
    result = export(trained.last, tmp_path / "out", format="safetensors")
    assert result.parity.max_abs_error == pytest.approx(5e-4, rel=1e-3)


def test_a_failed_export_leaves_the_one_before(trained, tmp_path, monkeypatch):
    out = tmp_path / "out"
    export(trained.last, out, format="safetensors", part="full")
    before = contents(tmp_path)
    load = safetensors_format.load
    monkeypatch.setattr(safetensors_format, "load", lambda *args: noisy(load(*args), 1))
    with pytest.raises(EarTeachError):
        export(trained.last, out, format="safetensors", part="encoder")
    assert contents(tmp_path) == before


def test_a_full_disk_is_one_line(trained, tmp_path, monkeypatch):
    def full(target: Path, *_: Any) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx_format, "write", full)
    with pytest.raises(EarTeachError, match="cannot be written: No space left on device"):
        export(trained.last, tmp_path / "out.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("format", "missing", "extra"),
    [
        ("onnx", ["onnxruntime"], "export"),
        ("onnx", ["onnx", "onnxscript"], "export"),
        ("safetensors", ["safetensors"], "export"),
        ("openvino", ["openvino"], "openvino"),
    ],
)
def test_a_missing_package_is_named(trained, tmp_path, monkeypatch, format, missing, extra):
    def find(name: str) -> Any:
        return None if name in missing else SimpleNamespace(name=name)

    assert format == "openvino" or all(importlib.util.find_spec(name) for name in missing)
    monkeypatch.setattr(formats, "find_spec", find)
    with pytest.raises(EarTeachError) as caught:
        export(trained.last, tmp_path / "out", format=format)
    wanted = f"--format {format}: needs {', '.join(missing)}; install them with"
    assert str(caught.value).startswith(wanted)
    assert f"pip install 'earteach[{extra}]'" in str(caught.value)


def test_the_checkpoint_is_checked_first(tmp_path):
    with pytest.raises(EarTeachError, match="no such checkpoint"):
        export(tmp_path / "none.ckpt", tmp_path / "out")


def psnr_of(model: EarVAE, part: str, output: np.ndarray, batch: torch.Tensor) -> float:
    """Of the pictures in the output, or of those that its codes are decoded to."""
    codes = torch.from_numpy(output)
    pictures = by_torch(model, "decoder", codes)[0] if part == "encoder" else output
    errors = np.square(batch.numpy().astype(np.float64) - pictures).mean(axis=(1, 2, 3))
    return float((-10 * np.log10(errors)).mean())


@pytest.mark.parametrize("part", PARTS)
def test_eight_bits_and_what_they_cost(trained, graphs, ears, tmp_path, part):
    result = export(trained.last, tmp_path / "x.json", part=part, quantize="int8")
    proto = onnx.load(result.path, format="protobuf")
    types = {
        weight.data_type for weight in proto.graph.initializer if weight.name.endswith("_quantized")
    }
    assert onnx.TensorProto.INT8 in types
    assert "QuantizeLinear" in {node.op_type for node in proto.graph.node}
    assert (proto.producer_name, sorted(tmp_path.iterdir())) == (
        "earteach", [tmp_path / "x.json", tmp_path / "x.json.json"],
    )  # fmt: skip
    cost = result.quantization
    images = np.load(ears / "val_teacher.npy")[1::2]  # the others were calibrated on
    assert (cost.images, cost.calibration_images) == (3, 4)
    batch = torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(255))
    model = earteach.load(trained.last)
    given = batch if part != "decoder" else torch.from_numpy(by_torch(model, "encoder", batch)[0])
    wanted = by_torch(model, part, given)
    seen = in_onnxruntime(result.path, given.numpy())
    error = max(np.abs(a - b).max() for a, b in zip(wanted, seen, strict=True))
    assert result.parity.max_abs_error == pytest.approx(error, rel=1e-4)
    assert error > 0
    if part != "features":
        before, now = (psnr_of(model, part, outputs[0], batch) for outputs in (wanted, seen))
        assert cost.float_psnr == pytest.approx(before, abs=1e-3)
        assert cost.psnr == pytest.approx(now, abs=1e-3)
        assert cost.psnr_loss == pytest.approx(before - now, abs=1e-3)
    ratio = min(
        10 * np.log10(a.var() / np.square(a - b).mean())
        for a, b in zip(wanted, seen, strict=True)
        if part == "features" or a is wanted[0]
    )
    assert cost.signal_to_noise == pytest.approx(ratio, abs=1e-2)
    assert (
        json.loads(result.sidecar.read_text())["quantization"]["signal_to_noise"]
        == cost.signal_to_noise
    )


def test_config_and_weights_are_those_of_the_network(trained, exported):
    result = exported("safetensors", "full")
    about = json.loads((result.path / "config.json").read_text())
    names = ModelConfig().to_dict()
    model = EarVAE.from_config(ModelConfig(**{name: about[name] for name in names}))
    model.load_state_dict(load_file(result.path / "model.safetensors"))
    wanted = earteach.load(trained.last).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())
