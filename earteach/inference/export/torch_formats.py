"""torch's own formats: TorchScript, traced, for libtorch; and `torch.export`, for its successors."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch

from earteach.inference.export.parity import Run, run_torch
from earteach.inference.export.parts import BATCH, Job


def write_torchscript(target: Path, job: Job, example: torch.Tensor) -> None:
    buffer = io.BytesIO()  # given a path, torch insists on its own suffix
    # torch calls TorchScript deprecated, and warns that a trace freezes checks of shapes.
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        traced = torch.jit.trace(job.module, (example,), check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, buffer)
    target.write_bytes(buffer.getbuffer())


def load_torchscript(target: Path, job: Job) -> Run:
    with warnings.catch_warnings(action="ignore"):
        module = torch.jit.load(io.BytesIO(target.read_bytes()))  # type: ignore[no-untyped-call]
    return lambda batch: run_torch(module, batch)


def exported_program(job: Job, example: torch.Tensor) -> torch.export.ExportedProgram:
    """The part's graph for any batch size."""
    with torch.no_grad():
        return torch.export.export(job.module, (example,), dynamic_shapes=({0: any_batch()},))


def any_batch() -> torch.export.Dim:
    return torch.export.Dim(BATCH, min=1)


def write_program(target: Path, job: Job, example: torch.Tensor) -> None:
    buffer = io.BytesIO()
    torch.export.save(exported_program(job, example), buffer)
    target.write_bytes(buffer.getbuffer())


def load_program(target: Path, job: Job) -> Run:
    with warnings.catch_warnings(action="ignore"):  # torch 2.10 warns about its own buffers
        module = torch.export.load(io.BytesIO(target.read_bytes())).module()
    return lambda batch: run_torch(module, batch)
