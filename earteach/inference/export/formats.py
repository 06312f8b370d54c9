"""The list of formats. A format is a module with these names."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import torch

from earteach.config import ExportFormat
from earteach.errors import EarTeachError
from earteach.inference.export import (
    onnx_format,
    openvino_format,
    safetensors_format,
    torch_export_format,
    torchscript_format,
)
from earteach.inference.export.parity import Run
from earteach.inference.export.parts import Job


class Format(Protocol):
    """A writer and its runner.

    `target` is a file, or a folder for the files in `NAMES` where there are any. `NEEDS` are the
    packages, `EXTRA` the extra of earteach that brings them.
    """

    @property
    def NEEDS(self) -> tuple[str, ...]: ...  # noqa: N802
    @property
    def EXTRA(self) -> str: ...  # noqa: N802
    @property
    def NAMES(self) -> tuple[str, ...]: ...  # noqa: N802

    def write(self, target: Path, job: Job, example: torch.Tensor) -> None: ...
    def load(self, target: Path, job: Job) -> Run: ...


FORMATS: dict[ExportFormat, Format] = {
    "onnx": onnx_format,
    "torchscript": torchscript_format,
    "torch-export": torch_export_format,
    "safetensors": safetensors_format,
    "openvino": openvino_format,
}


def check_packages(format: ExportFormat) -> None:
    """Raise `EarTeachError` where a package is not installed."""
    missing = [name for name in FORMATS[format].NEEDS if find_spec(name) is None]
    if missing:
        raise EarTeachError(
            f"--format {format}: needs {', '.join(missing)}; install them with "
            f"`pip install 'earteach[{FORMATS[format].EXTRA}]'`"
        )
