"""The table of export formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from earteach.config import ExportFormat
from earteach.errors import EarTeachError
from earteach.inference.export import onnx_formats, safetensors_format, torch_formats
from earteach.inference.export.parity import Run
from earteach.inference.export.parts import Job


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
    "onnx": Format(
        onnx_formats.write_onnx,
        onnx_formats.load_onnx,
        packages=("onnx", "onnxscript", "onnxruntime"),
    ),
    "torchscript": Format(torch_formats.write_torchscript, torch_formats.load_torchscript),
    "torch-export": Format(torch_formats.write_program, torch_formats.load_program),
    "safetensors": Format(
        safetensors_format.write,
        safetensors_format.load,
        safetensors_format.FILES,
        packages=("safetensors",),
    ),
    "openvino": Format(
        onnx_formats.write_openvino,
        onnx_formats.load_openvino,
        onnx_formats.OPENVINO_FILES,
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
