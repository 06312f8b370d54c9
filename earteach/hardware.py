"""What this machine has: accelerator, precision, cores and memory."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from earteach.config import Precision
from earteach.errors import EarTeachError

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_log = logging.getLogger(__name__)


def on_cpu(accelerator: str) -> bool:
    """Whether `accelerator` ("auto", "gpu", "cpu" or "tpu") means the CPU here.

    Raises `EarTeachError` for "gpu" without a GPU.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if accelerator == "gpu" and not has_gpu:
        raise EarTeachError(
            "--accelerator gpu: torch finds no GPU here; use --accelerator cpu, or install a torch "
            "build for your GPU (see https://pytorch.org)"
        )
    return accelerator == "cpu" or (accelerator == "auto" and not has_gpu)


def precision_on_cpu(precision: Precision) -> Precision:
    """The precision that the CPU uses for `precision`; logs a note where they differ."""
    import torch

    # Measured: training ran at 4 images/s in bf16 on one thread, 80 in float32 on two.
    if precision != "32" and torch.backends.cpu.get_cpu_capability() == "AVX2":
        _log.info("--precision %s would be many times slower on this CPU: running as 32", precision)
        return "32"
    if precision == "16":
        _log.info("--precision 16 has no benefit on a CPU: running as bf16")
        return "bf16"
    return precision


def at_most_cores(number: int) -> int:
    """`number`, capped at the cores that this process may use."""
    return min(number, len(os.sched_getaffinity(0)))


def memory_of_machine() -> int:
    """Memory in bytes: the machine's, or the container's limit if that is smaller."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no control groups, or "max"
        return min(machine, int(_CGROUP_LIMIT.read_text()))
    return machine
