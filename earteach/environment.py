"""The machine and the process: what a bug report needs, and whether this process prints."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from earteach._version import __version__

_PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "torchmetrics", "albumentations",
    "opencv-python-headless", "numpy", "scikit-learn", "tensorboard", "typer", "rich",
    "onnx", "onnxruntime", "safetensors",
)  # fmt: skip


def is_main_process() -> bool:
    """Whether this is the first of a run's processes, of which Lightning starts one per device."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in ranks)


def describe() -> dict[str, str | int]:
    """Versions, devices, cores and paths by their names."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "earteach": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "torch threads": torch.get_num_threads(),
        "GPUs": ", ".join(gpus) or "none",
        "installed in": str(Path(__file__).parent),
        "working folder": str(Path.cwd()),
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
