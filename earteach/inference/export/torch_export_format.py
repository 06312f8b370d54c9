"""`torch.export`: one file with torch's own graph, for AOTInductor, ExecuTorch and torch itself."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch

from earteach.inference.export.parity import Run, by_torch
from earteach.inference.export.parts import BATCH, Job

NEEDS: tuple[str, ...] = ()
EXTRA = ""
NAMES: tuple[str, ...] = ()


def program(job: Job, example: torch.Tensor) -> torch.export.ExportedProgram:
    """The part's graph for any batch size."""
    with torch.no_grad():
        return torch.export.export(job.module, (example,), dynamic_shapes=({0: free_batch()},))


def free_batch() -> torch.export.Dim:
    return torch.export.Dim(BATCH, min=1)


def write(target: Path, job: Job, example: torch.Tensor) -> None:
    stored = io.BytesIO()  # torch would want its own suffix
    torch.export.save(program(job, example), stored)
    target.write_bytes(stored.getbuffer())


def load(target: Path, job: Job) -> Run:
    with warnings.catch_warnings():
        # torch 2.10 warns of its own tensors over bytes.
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        module = torch.export.load(io.BytesIO(target.read_bytes())).module()
    return lambda batch: by_torch(module, batch)
