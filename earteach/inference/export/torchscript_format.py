"""TorchScript: one file for libtorch, traced."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from earteach.inference.export.parity import Run, by_torch
from earteach.inference.export.parts import Job

NEEDS: tuple[str, ...] = ()
EXTRA = ""
NAMES: tuple[str, ...] = ()


@contextmanager
def _deprecated() -> Iterator[None]:
    """torch calls TorchScript deprecated; whoever asks for it has a runtime that needs it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.")
        # The shapes that are checked are those of this very network.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield


def write(target: Path, job: Job, example: torch.Tensor) -> None:
    stored = io.BytesIO()  # torch would want its own suffix
    with _deprecated(), torch.no_grad():
        traced = torch.jit.trace(job.module, (example,), check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, stored)
    target.write_bytes(stored.getbuffer())


def load(target: Path, job: Job) -> Run:
    with _deprecated():
        module = torch.jit.load(io.BytesIO(target.read_bytes()))  # type: ignore[no-untyped-call]
    return lambda batch: by_torch(module, batch)
