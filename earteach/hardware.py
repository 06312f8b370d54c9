"""What `--accelerator` and `--precision` mean on this machine."""

from __future__ import annotations

import logging

import torch

from earteach.config import Precision
from earteach.errors import EarTeachError

_log = logging.getLogger(__name__)


def on_cpu(accelerator: str) -> bool:
    """Whether `accelerator` ("auto", "gpu", "cpu" or "tpu") stands for the CPU here.

    Raises `EarTeachError` for a GPU that is not there.
    """
    there = torch.cuda.is_available()
    if accelerator == "gpu" and not there:
        raise EarTeachError(
            "--accelerator gpu: torch finds no GPU here; use --accelerator cpu, or install a torch "
            "build for your GPU (see https://pytorch.org)"
        )
    return accelerator == "cpu" or (accelerator == "auto" and not there)


def precision_on_cpu(precision: Precision) -> Precision:
    """`precision` as the CPU runs it; a note says where that is another one."""
    # Measured on one: 4 images a second in training on one thread, where float32 had 80 on two.
    if precision != "32" and torch.backends.cpu.get_cpu_capability() == "AVX2":
        _log.info("--precision %s would be many times slower on this CPU: running as 32", precision)
        return "32"
    if precision == "16":
        _log.info("--precision 16 has no use on a CPU: running as bf16")
        return "bf16"
    return precision
