"""What a bug report needs to say about the machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from earteach._version import __version__

_PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "torchmetrics", "albumentations",
    "opencv-python-headless", "numpy", "scikit-learn", "tensorboard", "typer", "rich",
    "onnx", "onnxruntime", "safetensors",
)  # fmt: skip


def describe() -> dict[str, str | int]:
    """Versions, devices, cores and paths, name to value."""
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
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
