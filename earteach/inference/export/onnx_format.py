"""ONNX: one file for onnxruntime and its kin."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from earteach._version import __version__
from earteach.inference.export.parity import Run
from earteach.inference.export.parts import Job
from earteach.inference.export.torch_export_format import free_batch, program

NEEDS = ("onnx", "onnxscript", "onnxruntime")
EXTRA = "export"
NAMES: tuple[str, ...] = ()


def proto(job: Job, example: torch.Tensor) -> Any:
    """The part as an `onnx.ModelProto`."""
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own internals
        made = torch.onnx.export(
            program(job, example),
            (example,),
            dynamo=True,
            opset_version=job.opset,
            input_names=[job.input.name],
            output_names=[port.name for port in job.outputs],
            dynamic_shapes=({0: free_batch()},),
            verbose=False,
        )
    assert made is not None
    graph = made.model_proto
    graph.producer_name = "earteach"
    graph.producer_version = __version__
    onnx.helper.set_model_props(graph, {"checkpoint": job.found.path.name, "part": job.part})
    return graph


def write(target: Path, job: Job, example: torch.Tensor) -> None:
    target.write_bytes(proto(job, example).SerializeToString())


def load(target: Path, job: Job) -> Run:
    import onnxruntime

    # A file name without its real suffix is fine for onnxruntime when it is read as bytes.
    session = onnxruntime.InferenceSession(target.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {job.input.name: batch.numpy()})
