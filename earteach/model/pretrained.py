"""A network from a folder with `config.json` and `model.safetensors`, the Hugging Face Hub's layout.

Nothing is downloaded: a folder of the Hub is fetched by its own tools first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from earteach.config import ModelConfig
from earteach.errors import EarTeachError
from earteach.model.vae import EarVAE

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_SIDES = ("encoder", "encoder.squeeze", "encoder.to_code", "decoder")


class LeftOut(nn.Module):
    """A side of the network that a folder does not hold."""

    def __init__(self, side: str, folder: Path, part: str) -> None:
        super().__init__()
        self._why = (
            f"{folder}: holds {part} of the network and no {side}; export it with --part full"
        )

    def forward(self, *_: object) -> None:
        raise EarTeachError(self._why)

    maps = forward


def load_pretrained(folder: str | Path) -> EarVAE:
    """The network in evaluation mode, on the CPU.

    Of a folder with one part, calling what another part would do is an `EarTeachError`, as are a folder
    without the two files and weights that do not fit.
    """
    folder = Path(folder)
    about = _config(folder)
    config = _model_config(folder, about)
    weights = _weights(folder)
    with torch.device("meta"):
        model = EarVAE.from_config(config)
    part = str(about.get("part", "a part"))
    for side in _SIDES:
        if not any(name.startswith(f"{side}.") for name in weights):
            parent, _, name = side.rpartition(".")
            owner = model.get_submodule(parent)
            if not isinstance(owner, LeftOut):
                setattr(owner, name, LeftOut(side.partition(".")[0], folder, part))
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise EarTeachError(
            f"{folder}: the weights in {WEIGHTS} do not fit {CONFIG}; export them again"
        ) from error
    return model.eval().requires_grad_(True)


def _config(folder: Path) -> Mapping[str, Any]:
    if not folder.is_dir():
        raise EarTeachError(
            f"{folder}: no such folder; name one that `earteach export --format safetensors` wrote "
            "(nothing is downloaded)"
        )
    try:
        about = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except OSError as error:
        raise EarTeachError(
            f"{folder / CONFIG}: {error.strerror}; name a folder that "
            "`earteach export --format safetensors` wrote"
        ) from error
    except ValueError as error:
        raise EarTeachError(f"{folder / CONFIG}: is not JSON; export the folder again") from error
    if not isinstance(about, dict):
        raise EarTeachError(f"{folder / CONFIG}: is not a JSON object; export the folder again")
    return about


def _model_config(folder: Path, about: Mapping[str, Any]) -> ModelConfig:
    names = [field.name for field in fields(ModelConfig)]
    missing = [name for name in names if name not in about]
    if missing:
        raise EarTeachError(
            f"{folder / CONFIG}: has no {missing[0]}, so it is not of earteach; name another folder"
        )
    try:
        return ModelConfig(**{name: about[name] for name in names})
    except EarTeachError as error:
        raise EarTeachError(f"{folder / CONFIG}: {error}") from error


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise EarTeachError(
            f"{folder}: needs safetensors; install it with `pip install 'earteach[export]'`"
        ) from error
    try:
        return load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise EarTeachError(
            f"{folder / WEIGHTS}: cannot be read; name a folder that "
            "`earteach export --format safetensors` wrote"
        ) from error
