"""What this machine has: accelerator, precision and cores."""

from __future__ import annotations

import ctypes
import logging
import os
import sys

from earteach.config import Precision
from earteach.errors import EarTeachError

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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch raised it for lack of memory, of a GPU or of the machine."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


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


# Options of `mallopt`, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def reuse_freed_memory() -> None:
    """Keep freed memory in this process for its next tensors, where malloc is glibc's.

    Blocks of more than 32 MB otherwise come from the system anew each time, which clears all their
    pages: a third of a training step at the defaults, and half of a reconstruction. In return the peak
    of memory is up to 1.6 times as high, as freed blocks do not always fit. It concerns the whole
    process (https://man7.org/linux/man-pages/man3/mallopt.3.html).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)


def at_most_cores(number: int) -> int:
    """`number`, capped at the cores that this process may use."""
    return min(number, len(os.sched_getaffinity(0)))
