"""Exports run in their own runtimes and compute torch's numbers."""

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

import earteach
from earteach.errors import EarTeachError
from earteach.inference.export import Export, export, formats
from earteach.inference.export.formats import FORMATS
from earteach.model.vae import ConvVAE
from earteach.synthetic.drawn_ear import draw_ear
from tests.inference.conftest import rename_arrays

PARTS = ["full", "encoder", "decoder", "features"]
MAPS = {
    "stride_2": [8, 16, 16],
    "stride_4": [16, 8, 8],
    "stride_8": [32, 4, 4],
    "stride_16": [64, 2, 2],
    **{f"pyramid_{stride}": [64, 32 // stride, 32 // stride] for stride in (2, 4, 8, 16)},
}
SHAPES = {
    "full": ({"images": [3, 32, 32]}, {"reconstructions": [3, 32, 32]}),
    "encoder": ({"images": [3, 32, 32]}, {"mu": [16], "logvar": [16]}),
    "decoder": ({"codes": [16]}, {"images": [3, 32, 32]}),
    "features": ({"images": [3, 32, 32]}, MAPS),
}
# torch takes seconds for a graph, which these formats share, and again to store its own.
GRAPHS = ["onnx", "openvino", "torch-export"]
QUICK = {("torchscript", "full"), *(("safetensors", part) for part in PARTS)}
TABLE = [
    pytest.param(format, part, marks=[] if (format, part) in QUICK else [pytest.mark.slow])
    for format in ("safetensors", "torchscript", *GRAPHS)
    for part in PARTS
]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def images(number: int) -> np.ndarray:
    return np.stack([draw_ear(number, index, 32).image for index in range(number)])


def inputs(part: str, number: int) -> torch.Tensor:
    if part == "decoder":
        return torch.randn((number, 16), generator=torch.Generator().manual_seed(number))
    return torch.from_numpy(images(number)).permute(0, 3, 1, 2).float() / 255


def in_torch(model: ConvVAE, part: str, batch: torch.Tensor) -> list[np.ndarray]:
    calls = {
        "full": model.reconstruct, "encoder": model.encode, "decoder": model.decode,
        "features": lambda images: [*(maps := model.features(images)), *model.pyramid(maps)],
    }  # fmt: skip
    with torch.no_grad():
        outputs = calls[part](batch)
    listed = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    return [tensor.numpy() for tensor in listed]


def in_onnxruntime(path: Path, batch: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (port,) = session.get_inputs()
    return session.run(None, {port.name: batch})


def run(result: Export, batch: torch.Tensor) -> list[np.ndarray]:
    """In the runtime of the format, without earteach's code for it."""
    if result.format == "onnx":
        return in_onnxruntime(result.path, batch.numpy())
    if result.format == "safetensors":
        return in_torch(earteach.load(result.path), result.part, batch)
    if result.format == "openvino":
        openvino = pytest.importorskip("openvino", reason="the extra openvino is not installed")
        hint = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.compile_model(result.path / "model.xml", "CPU", hint)
        return list(compiled(batch.numpy()).to_tuple())
    file = io.BytesIO(result.path.read_bytes())
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        scripted = result.format == "torchscript"
        module = torch.jit.load(file) if scripted else torch.export.load(file).module()
        return [output.numpy() for output in module(batch)]


def assert_close(outputs: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for one, other in zip(outputs, expected, strict=True):
        # A map's values may be in the hundreds, and their last bits are in the small ones too.
        np.testing.assert_allclose(
            one, other, atol=max(1e-4, 1e-6 * np.abs(other).max()), rtol=1e-5
        )


def once_per_part(make: Callable[..., Any]) -> Callable[..., Any]:
    results: dict[str, Any] = {}

    def cached(job: Any, example: torch.Tensor) -> Any:
        if job.part not in results:
            results[job.part] = make(job, example)
        return results[job.part]

    return cached


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory) -> Iterator[Callable[[str, str], Export]]:
    """Each format and part once; ONNX, OpenVINO and torch.export share the graph of a part."""
    folder, results = tmp_path_factory.mktemp("exports"), {}

    def get(format: str, part: str) -> Export:
        if format == "openvino":
            pytest.importorskip("openvino", reason="the extra openvino is not installed")
        if (format, part) not in results:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(formats, "exported_program", program)
                patch.setattr(formats, "model_proto", proto)
                out = folder / f"{format}-{part}"
                results[format, part] = export(trained.last, out, format=format, part=part)
        return results[format, part]

    program = once_per_part(formats.exported_program)
    proto = once_per_part(formats.model_proto)
    return get


@pytest.fixture
def patched(monkeypatch) -> Callable[..., None]:
    """Replace how a format writes or loads."""

    def patch(format: str, **functions: Any) -> None:
        monkeypatch.setitem(FORMATS, format, replace(FORMATS[format], **functions))

    return patch


@pytest.mark.parametrize(("format", "part"), TABLE)
def test_an_export_computes_torchs_numbers_in_its_own_runtime(trained, exported, format, part):
    result = exported(format, part)
    model = earteach.load(trained.last)
    largest = 10.0  # maps have values of hundreds, and sums of such values
    for number in (1, 2, 5):
        batch = inputs(part, number)
        expected = in_torch(model, part, batch)
        assert_close(run(result, batch), expected)
        largest = max(largest, *(np.abs(output).max() for output in expected))
    assert result.parity.passed
    assert result.parity.images == 7  # the validation images
    assert 0 <= result.parity.max_abs_error < 1e-5 * largest

    assert_described(result, sha256(trained.last))


def assert_described(result: Export, checkpoint_sha256: str) -> None:
    """The JSON beside an export."""
    part, folder = result.part, result.format in ("safetensors", "openvino")
    about = json.loads(result.sidecar.read_text())
    for ports, expected in zip((about["inputs"], about["outputs"]), SHAPES[part], strict=True):
        assert {port["name"]: port["shape"][1:] for port in ports} == expected
        assert {(port["shape"][0], port["dtype"]) for port in ports} == {("batch", "float32")}
    assert (about["format"], about["part"]) == (result.format, part)
    assert about["earteach"] == earteach.__version__
    assert about["checkpoint"] == {"name": "last.ckpt", "sha256": checkpoint_sha256}
    assert result.path.is_dir() == folder
    assert result.sidecar.name == ("export.json" if folder else f"{result.path.name}.json")
    where = result.path if folder else result.path.parent
    assert {name: sha256(where / name) for name in about["files"]} == about["files"]
    assert result.bytes == sum((where / name).stat().st_size for name in about["files"])
    ready = about["preprocessing"]
    assert (ready["height"], ready["width"], ready["colour_order"]) == (32, 32, "RGB")
    expected = (None, None) if part == "decoder" else ([0.0, 1.0], "NCHW")
    assert (ready["input_range"], ready["input_layout"]) == expected
    assert ready["output_range"] == ([0.0, 1.0] if part in ("full", "decoder") else None)
    assert about["parity"] == vars(result.parity)
    assert about["model"]["latent_dim"] == 16
    assert "biometric" in about["licence"]


def test_the_onnx_file_declares_its_inputs_and_outputs(exported):
    result = exported("onnx", "encoder")
    proto = onnx.load(result.path, format="protobuf")
    onnx.checker.check_model(proto)
    for graph, expected in zip(
        (proto.graph.input, proto.graph.output), SHAPES["encoder"], strict=True
    ):
        shapes = {p.name: [d.dim_value for d in p.type.tensor_type.shape.dim][1:] for p in graph}
        assert shapes == expected
        assert all(p.type.tensor_type.shape.dim[0].dim_param for p in graph)  # any batch
    assert proto.producer_name == "earteach"
    assert [entry.version for entry in proto.opset_import if not entry.domain] == [18]
    assert result.opset == 18
    assert {p.key: p.value for p in proto.metadata_props} == {
        "checkpoint": "last.ckpt", "part": "encoder",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("format", "part", "options"),
    [
        ("torchscript", "encoder", {}),
        pytest.param("torchscript", "full", {}, marks=pytest.mark.slow),
        pytest.param("onnx", "encoder", {"opset": 20}, marks=pytest.mark.slow),
    ],
)
def test_a_graph_can_take_uint8_images(trained, tmp_path, format, part, options):
    result = export(
        trained.last, tmp_path / "x", format=format, part=part, with_preprocessing=True, **options
    )
    batch = torch.from_numpy(images(4))
    expected = in_torch(earteach.load(trained.last), part, inputs(part, 4))
    assert_close(run(result, batch), expected)
    (port,) = result.inputs
    assert (port.shape, port.dtype) == (("batch", 32, 32, 3), "uint8")
    ready = json.loads(result.sidecar.read_text())["preprocessing"]
    assert (ready["input_layout"], ready["input_range"]) == ("NHWC", [0, 255])
    assert ready["inside_the_graph"]
    if format == "onnx":
        imports = onnx.load(result.path, format="protobuf").opset_import
        assert [entry.version for entry in imports if not entry.domain] == [20]


def test_features_without_pca_take_images_of_another_size(sideless, tmp_path):
    result = export(sideless, tmp_path / "x", format="torchscript", part="features", input_size=48)
    assert [port.shape for port in result.outputs] == [
        ("batch", 8, 24, 24), ("batch", 16, 12, 12), ("batch", 32, 6, 6), ("batch", 64, 3, 3),
        *[("batch", 64, side, side) for side in (24, 12, 6, 3)],
    ]  # fmt: skip
    batch = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    assert_close(run(result, batch), in_torch(earteach.load(sideless), "features", batch))
    with pytest.raises(EarTeachError, match="--input-size 40: must be a multiple of 16"):
        export(sideless, tmp_path / "y", part="features", input_size=40)


REFUSED = [
    ({"format": "safetensors", "opset": 18}, "--opset 18: is only for --format onnx"),
    ({"opset": 11}, "--opset 11: must be from 18 to"),
    ({"part": "decoder", "with_preprocessing": True}, "the decoder takes codes"),
    ({"format": "safetensors", "with_preprocessing": True}, "holds no graph"),
    ({"format": "torchscript", "quantize": "int8"}, "--quantize int8: is only for --format onnx"),
    ({"quantize": "int4"}, "--quantize int4: must be int8"),
    ({"input_size": 48}, "--input-size 48: the codes of this network are for 32×32"),
    ({"input_size": 48, "part": "features"}, "starts from eigenears of 32×32 images"),
]


def test_options_that_contradict_each_other_are_refused(trained, tmp_path):
    for options, words in REFUSED:
        with pytest.raises(EarTeachError, match=words):
            export(trained.last, tmp_path / "new" / "x", **options)
    assert list(tmp_path.iterdir()) == []


def test_parity_runs_batches_of_1_3_and_5_different_images(trained, tmp_path, patched):
    load, batches = FORMATS["safetensors"].load, []

    def recording(*args: Any) -> Any:
        run = load(*args)
        return lambda batch: batches.append(batch) or run(batch)

    patched("safetensors", load=recording)
    result = export(trained.checkpoints, tmp_path / "out", format="safetensors")
    assert str(result.checkpoint) == trained.result["best"]["loss"]["path"]
    assert [len(batch) for batch in batches] == [1, 3, 5]
    assert len({image.numpy().tobytes() for image in torch.cat(batches)}) == 7


def test_parity_with_few_or_no_validation_images(placed, ears, tmp_path):
    np.save(tmp_path / "two.npy", np.load(ears / "val_teacher.npy")[:2])
    for array, number in (("two.npy", 2), ("gone.npy", 9)):  # 9 drawn ears
        checkpoint = rename_arrays(placed, val_data=tmp_path / array)
        result = export(checkpoint, tmp_path / "out", format="safetensors")
        assert (result.parity.images, result.parity.passed) == (number, True)


NAMES = ["model.json", "模型 (1).onnx", "n" * 250]


@pytest.fixture
def instant(patched) -> None:
    """A torchscript export that takes no time: only names and places are tested."""

    def write(target: Path, job: Any, example: torch.Tensor) -> None:
        target.write_bytes(b"graph")

    def load(target: Path, job: Any) -> Any:
        assert target.read_bytes() == b"graph"
        return lambda batch: [output.numpy() for output in job.module(batch)]

    patched("torchscript", write=write, load=load)


def decoder(trained: Any, out: Path, format: str = "torchscript") -> Export:
    with torch.inference_mode():
        return export(trained.last, out, format=format, part="decoder")


@pytest.mark.parametrize("name", NAMES)
def test_any_file_name_works_and_our_export_is_replaced(trained, tmp_path, instant, name):
    for _ in range(2):
        result = decoder(trained, tmp_path / "sub" / name)
    assert result.path == tmp_path / "sub" / name
    assert sorted((tmp_path / "sub").iterdir()) == sorted([result.path, result.sidecar])


def test_a_path_that_the_system_refuses_is_one_line(trained, tmp_path, instant, patched):
    with pytest.raises(EarTeachError, match="cannot be written: File name too long"):
        decoder(trained, tmp_path / ("n" * 300))
    (tmp_path / "file").touch()
    with pytest.raises(EarTeachError, match="is a file; name a folder"):
        decoder(trained, tmp_path / "file" / "model.onnx")

    def full(target: Path, *_: Any) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    patched("torchscript", write=full)
    with pytest.raises(
        EarTeachError, match="cannot be written: the disk is full; free space, then try again"
    ):
        decoder(trained, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def a_folder(about: str | None) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        save_file({"a": torch.zeros(1)}, path / "model.safetensors")
        if about is not None:
            (path / "export.json").write_text(about)

    return make


OTHER_HASH = '{"earteach": "0", "format": "safetensors", "files": {"model.safetensors": "0"}}'
FOREIGN: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "empty file": ("torchscript", lambda path: path.write_bytes(b"")),
    "folder for a file": ("torchscript", a_folder('{"earteach": "0"}')),
    "JSON without a file": ("torchscript", lambda path: Path(f"{path}.json").write_bytes(b"{}")),
    "file for a folder": ("safetensors", lambda path: path.write_bytes(b"mine")),
    "folder without JSON": ("safetensors", a_folder(None)),
    "another file's hash": ("safetensors", a_folder(OTHER_HASH)),
    "a word for JSON": ("safetensors", a_folder('"earteach"')),
}


def contents(path: Path) -> dict[str, bytes | None]:
    return {str(p): p.read_bytes() if p.is_file() else None for p in path.rglob("*")}


@pytest.mark.parametrize(("format", "make"), FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_stays(trained, tmp_path, format, make):
    make(tmp_path / "out")
    before = contents(tmp_path)
    with pytest.raises(EarTeachError, match=rf"not exported to {format} .*; move it away"):
        decoder(trained, tmp_path / "out", format)
    assert contents(tmp_path) == before


def test_our_folder_is_replaced_unless_it_was_changed(trained, tmp_path):
    out = tmp_path / "out"
    export(trained.last, out, format="safetensors", part="full")
    (out / "notes.md").write_text("mine")
    export(trained.last, out, format="safetensors", part="encoder")
    assert json.loads((out / "config.json").read_text())["part"] == "encoder"
    parts = {name.partition(".")[0] for name in load_file(out / "model.safetensors")}
    assert parts == {"pca", "encoder", "pyramid"}
    assert (out / "notes.md").read_text() == "mine"
    (out / "README.md").write_bytes(b"mine")
    before = contents(tmp_path)
    with pytest.raises(EarTeachError, match="not exported to safetensors"):
        export(trained.last, out, format="safetensors")
    assert contents(tmp_path) == before


def test_a_small_difference_is_reported_and_a_large_one_refused(trained, tmp_path, patched):
    out, load = tmp_path / "out", FORMATS["safetensors"].load

    def off_by(error: float, load: Any) -> Any:
        return lambda *args: lambda batch: [output + error for output in load(*args)(batch)]

    patched("safetensors", load=off_by(5e-4, load))
    result = export(trained.last, out, format="safetensors")
    assert result.parity.max_abs_error == pytest.approx(5e-4, rel=1e-3)
    before = contents(tmp_path)
    for error in (0.01, float("nan"), float("inf")):
        patched("safetensors", load=off_by(error, load))
        with pytest.raises(EarTeachError, match=r"differs from torch's by .*so it was removed"):
            export(trained.last, out, format="safetensors", part="encoder")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("format", "missing", "extra"),
    [("onnx", ["onnx", "onnxscript"], "export"), ("openvino", ["openvino"], "openvino")],
)
def test_a_missing_package_is_named(trained, tmp_path, monkeypatch, format, missing, extra):
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name in missing else name)
    with pytest.raises(EarTeachError) as caught:
        export(trained.last, tmp_path / "out", format=format)
    expected = f"--format {format}: needs {', '.join(missing)}; install them with"
    assert str(caught.value).startswith(expected)
    assert f"pip install 'earteach[{extra}]'" in str(caught.value)


def psnr_of(model: ConvVAE, part: str, output: np.ndarray, batch: torch.Tensor) -> float:
    """Of the images in the output, or of those that its codes are decoded to."""
    decoded = output
    if part == "encoder":
        (decoded,) = in_torch(model, "decoder", torch.from_numpy(output))
    errors = np.square(batch.numpy().astype(np.float64) - decoded).mean(axis=(1, 2, 3))
    return float((-10 * np.log10(errors)).mean())


@pytest.mark.parametrize(
    "part",
    ["encoder", *(pytest.param(p, marks=pytest.mark.slow) for p in PARTS if p != "encoder")],
)
def test_int8_and_the_quality_it_loses(trained, exported, ears, tmp_path, patched, part):
    float_file = exported("onnx", part).path
    patched("onnx", write=lambda target, *_: target.write_bytes(float_file.read_bytes()))
    result = export(trained.last, tmp_path / "x.json", part=part, quantize="int8")
    proto = onnx.load(result.path, format="protobuf")
    types = {w.data_type for w in proto.graph.initializer if w.name.endswith("_quantized")}
    assert onnx.TensorProto.INT8 in types
    assert "QuantizeLinear" in {node.op_type for node in proto.graph.node}
    assert proto.producer_name == "earteach"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "x.json", tmp_path / "x.json.json"]
    loss = result.quantization
    test_images = np.load(ears / "val_teacher.npy")[1::2]  # the others are for calibration
    assert (loss.images, loss.calibration_images) == (3, 4)
    batch = torch.from_numpy(test_images.transpose(0, 3, 1, 2) / np.float32(255))
    model = earteach.load(trained.last)
    fed = batch if part != "decoder" else torch.from_numpy(in_torch(model, "encoder", batch)[0])
    expected, outputs = in_torch(model, part, fed), in_onnxruntime(result.path, fed.numpy())
    error = max(np.abs(a - b).max() for a, b in zip(expected, outputs, strict=True))
    assert error > 0
    assert result.parity.max_abs_error == pytest.approx(error, rel=1e-4)
    if part != "features":
        before, after = (psnr_of(model, part, o[0], batch) for o in (expected, outputs))
        reported = (loss.float_psnr, loss.psnr, loss.psnr_loss)
        assert reported == pytest.approx((before, after, before - after), abs=1e-3)
    measured = len(MAPS) if part == "features" else 1
    ratios = [
        10 * np.log10(a.var() / np.square(a - b).mean())
        for a, b in zip(expected[:measured], outputs[:measured], strict=True)
    ]
    assert loss.signal_to_noise == pytest.approx(min(ratios), abs=1e-2)
    about = json.loads(result.sidecar.read_text())
    assert about["quantization"]["signal_to_noise"] == loss.signal_to_noise
