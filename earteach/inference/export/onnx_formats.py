"""ONNX, one file, and OpenVINO, a folder with the graph and its weights.

OpenVINO converts from ONNX here: its `convert_model` would take torch's graph, but sends usage
statistics.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from earteach._version import __version__
from earteach.inference.export.parity import Run
from earteach.inference.export.parts import Job
from earteach.inference.export.torch_formats import any_batch, exported_program

_GRAPH = "model.xml"
OPENVINO_FILES = (_GRAPH, "model.bin")


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
            dynamic_shapes=({0: any_batch()},),
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
    import openvino

    model = openvino.Core().read_model(model_proto(job, example).SerializeToString())
    openvino.save_model(model, target / _GRAPH, compress_to_fp16=False)


def load_openvino(target: Path, job: Job) -> Run:
    import openvino

    # By default OpenVINO computes in bfloat16 on processors that can.
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(target / _GRAPH, "CPU", options)
    return lambda batch: list(compiled(batch.numpy()).to_tuple())
