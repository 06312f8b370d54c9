"""Teaches a network what a human ear looks like.

>>> import earteach
>>> model = earteach.load("checkpoints")
>>> maps = model.features(images)

Importing the package imports neither torch nor Lightning: each public name is fetched when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from earteach._version import __version__ as __version__

# The public names of each module.
_NAMES = {
    "checkpoint": ("load",),
    "config": (
        "DataConfig", "HardwareConfig", "InferenceConfig", "KLDConfig", "ModelConfig", "OptimConfig",
        "RunConfig", "TrainConfig",
    ),
    "data.arrays": ("EarArray",),
    "data.crops": ("Crop",),
    "data.prepare": ("prepare", "prepare_drawn"),
    "data.split": ("Split",),
    "errors": ("EarTeachError",),
    "inference.backbone": ("EarBackbone",),
    "inference.embed": ("embed",),
    "inference.evaluate": ("evaluate",),
    "inference.export": ("export",),
    "inference.landmark_training": ("train_landmarks",),
    "inference.landmarks": ("landmarks",),
    "inference.probe": ("probe",),
    "inference.reconstruct": ("reconstruct",),
    "inference.report": ("report",),
    "inference.sample": ("sample",),
    "inference.sharpen": ("sharpen",),
    "inspection": ("inspect_data",),
    "model.build": ("build_model",),
    "model.vae": ("ConvVAE", "EarVAE"),
    "runs": ("distil", "resume", "train"),
    "training.lightning_module": ("EarVAELightning",),
}  # fmt: skip
_HOMES = {name: f"earteach.{module}" for module, names in _NAMES.items() for name in names}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from earteach.checkpoint import load as load
    from earteach.config import DataConfig as DataConfig
    from earteach.config import HardwareConfig as HardwareConfig
    from earteach.config import InferenceConfig as InferenceConfig
    from earteach.config import KLDConfig as KLDConfig
    from earteach.config import ModelConfig as ModelConfig
    from earteach.config import OptimConfig as OptimConfig
    from earteach.config import RunConfig as RunConfig
    from earteach.config import TrainConfig as TrainConfig
    from earteach.data.arrays import EarArray as EarArray
    from earteach.data.crops import Crop as Crop
    from earteach.data.prepare import prepare as prepare
    from earteach.data.prepare import prepare_drawn as prepare_drawn
    from earteach.data.split import Split as Split
    from earteach.errors import EarTeachError as EarTeachError
    from earteach.inference.backbone import EarBackbone as EarBackbone
    from earteach.inference.embed import embed as embed
    from earteach.inference.evaluate import evaluate as evaluate
    from earteach.inference.export import export as export
    from earteach.inference.landmark_training import train_landmarks as train_landmarks
    from earteach.inference.landmarks import landmarks as landmarks
    from earteach.inference.probe import probe as probe
    from earteach.inference.reconstruct import reconstruct as reconstruct
    from earteach.inference.report import report as report
    from earteach.inference.sample import sample as sample
    from earteach.inference.sharpen import sharpen as sharpen
    from earteach.inspection import inspect_data as inspect_data
    from earteach.model.build import build_model as build_model
    from earteach.model.vae import ConvVAE as ConvVAE
    from earteach.model.vae import EarVAE as EarVAE
    from earteach.runs import distil as distil
    from earteach.runs import resume as resume
    from earteach.runs import train as train
    from earteach.training.lightning_module import EarVAELightning as EarVAELightning


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'earteach' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
