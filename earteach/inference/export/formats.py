"""The export formats: how each is written, and how what was written is run."""

from __future__ import annotations

import copy
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from earteach import checkpoint
from earteach._version import __version__
from earteach.config import ExportFormat
from earteach.errors import EarTeachError
from earteach.inference.export.description import model_card
from earteach.inference.export.parity import Run, run_torch
from earteach.inference.export.parts import BATCH, Job, PartModule
from earteach.model.network_parts import keep_part
from earteach.model.pretrained import CONFIG, WEIGHTS

_CARD = "README.md"
_GRAPH = "model.xml"


def write_torchscript(target: Path, job: Job, example: torch.Tensor) -> None:
    # The trace is gone before an error of writing could keep it: Python 3.12.1 crashes where its garbage
    # collector has to free one.
    target.write_bytes(_torchscript(job, example))


def _torchscript(job: Job, example: torch.Tensor) -> bytes:
    buffer = io.BytesIO()  # given a path, torch insists on its own suffix
    # torch calls TorchScript deprecated, and warns that a trace freezes checks of shapes.
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        traced = torch.jit.trace(job.module, (example,), check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, buffer)
    return buffer.getvalue()


def load_torchscript(target: Path, job: Job) -> Run:
    with warnings.catch_warnings(action="ignore"):
        module = torch.jit.load(io.BytesIO(target.read_bytes()))  # type: ignore[no-untyped-call]
    return lambda batch: run_torch(module, batch)


def exported_program(job: Job, example: torch.Tensor) -> torch.export.ExportedProgram:
    """The part's graph for any batch size."""
    with torch.no_grad():
        return torch.export.export(job.module, (example,), dynamic_shapes=_any_batch())


def _any_batch() -> tuple[dict[int, torch.export.Dim]]:
    return ({0: torch.export.Dim(BATCH, min=1)},)


def write_program(target: Path, job: Job, example: torch.Tensor) -> None:
    buffer = io.BytesIO()
    torch.export.save(exported_program(job, example), buffer)
    target.write_bytes(buffer.getbuffer())


def load_program(target: Path, job: Job) -> Run:
    with warnings.catch_warnings(action="ignore"):  # torch 2.10 warns about its own buffers
        module = torch.export.load(io.BytesIO(target.read_bytes())).module()
    return lambda batch: run_torch(module, batch)


def model_proto(job: Job, example: torch.Tensor) -> Any:
    """The part as an `onnx.ModelProto`."""
    import onnx

    with warnings.catch_warnings(action="ignore"):  # torch's exporter warns about its internals
        exported = torch.onnx.export(
            exported_program(job, example),
            (example,),
            dynamo=True,
            opset_version=job.opset,
            input_names=[job.input.name],
            output_names=[port.name for port in job.outputs],
            dynamic_shapes=_any_batch(),
            verbose=False,
        )
    assert exported is not None
    proto = signed(exported.model_proto)
    onnx.helper.set_model_props(proto, {"checkpoint": job.checkpoint.path.name, "part": job.part})
    return proto


def signed(proto: Any) -> Any:
    """The same `onnx.ModelProto`, with earteach as its producer."""
    proto.producer_name, proto.producer_version = "earteach", __version__
    return proto


def write_onnx(target: Path, job: Job, example: torch.Tensor) -> None:
    target.write_bytes(model_proto(job, example).SerializeToString())


def load_onnx(target: Path, job: Job) -> Run:
    import onnxruntime

    # Read as bytes, the file may have any name.
    session = onnxruntime.InferenceSession(target.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {job.input.name: batch.numpy()})


def write_openvino(target: Path, job: Job, example: torch.Tensor) -> None:
    """By way of ONNX: OpenVINO's own `convert_model` sends usage statistics."""
    import openvino

    model = openvino.Core().read_model(model_proto(job, example).SerializeToString())
    openvino.save_model(model, target / _GRAPH, compress_to_fp16=False)


def load_openvino(target: Path, job: Job) -> Run:
    import openvino

    # By default OpenVINO computes in bfloat16 on processors that can.
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(target / _GRAPH, "CPU", options)
    return lambda batch: list(compiled(batch.numpy()).to_tuple())


def write_safetensors(target: Path, job: Job, example: torch.Tensor) -> None:
    """The Hugging Face Hub's layout: the weights, the network's options and a model card."""
    from safetensors.torch import save_file

    part = keep_part(copy.deepcopy(job.model), job.part, "")
    weights = {name: weight.contiguous() for name, weight in part.state_dict().items()}
    save_file(weights, target / WEIGHTS, metadata={"format": "pt", "part": job.part})
    model = job.checkpoint.config.model.to_dict()
    options = {**model, "earteach": __version__, "part": job.part}
    (target / CONFIG).write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")
    (target / _CARD).write_text(model_card(job), encoding="utf-8", errors="replace")


def load_safetensors(target: Path, job: Job) -> Run:
    module = PartModule(checkpoint.load(target), job.part)
    return lambda batch: run_torch(module, batch)


@dataclass(frozen=True)
class Format:
    """How to write a format and how to run what was written.

    Both take the path of a file, or of a folder that holds `files`. `packages` come with
    `pip install 'earteach[extra]'`.
    """

    write: Callable[[Path, Job, torch.Tensor], None]
    load: Callable[[Path, Job], Run]
    files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    extra: str = "export"


FORMATS: dict[ExportFormat, Format] = {
    "onnx": Format(write_onnx, load_onnx, packages=("onnx", "onnxscript", "onnxruntime")),
    "torchscript": Format(write_torchscript, load_torchscript),
    "torch-export": Format(write_program, load_program),
    "safetensors": Format(write_safetensors, load_safetensors, (WEIGHTS, CONFIG, _CARD)),
    "openvino": Format(
        write_openvino,
        load_openvino,
        files=(_GRAPH, "model.bin"),
        packages=("onnx", "onnxscript", "openvino"),
        extra="openvino",
    ),
}


def check_packages(format: ExportFormat) -> None:
    """Raise `EarTeachError` where a package is not installed."""
    missing = [name for name in FORMATS[format].packages if find_spec(name) is None]
    if missing:
        raise EarTeachError(
            f"--format {format}: needs {', '.join(missing)}; install them with "
            f"`pip install 'earteach[{FORMATS[format].extra}]'`"
        )
