"""OpenVINO: a folder with the graph in `model.xml` and its weights in `model.bin`.

It is made from ONNX by OpenVINO's own reader. `openvino.convert_model` would take torch's graph as
well, but sends usage statistics.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from earteach.inference.export import onnx_format
from earteach.inference.export.parity import Run
from earteach.inference.export.parts import Job

NEEDS = ("onnx", "onnxscript", "openvino")
EXTRA = "openvino"
_GRAPH, _WEIGHTS = "model.xml", "model.bin"
NAMES = (_GRAPH, _WEIGHTS)


def write(target: Path, job: Job, example: torch.Tensor) -> None:
    import openvino

    graph = onnx_format.proto(job, example).SerializeToString()
    model = openvino.Core().read_model(graph)
    openvino.save_model(model, target / _GRAPH, compress_to_fp16=False)


def load(target: Path, job: Job) -> Run:
    import openvino

    # Left to itself OpenVINO computes in bfloat16 on processors that can.
    compiled = openvino.Core().compile_model(
        target / _GRAPH, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )

    def run(batch: torch.Tensor) -> list[np.ndarray]:
        results = compiled(batch.numpy())
        return [results[place] for place in range(len(job.outputs))]

    return run
