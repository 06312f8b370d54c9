"""The weights in a folder with `config.json` and `model.safetensors`, the Hugging Face Hub's layout.

Nothing is downloaded: fetch a folder from the Hub with its own tools first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import torch

from earteach.config import ExportPart, ModelConfig, model_options
from earteach.errors import EarTeachError

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_ADVICE = "name a folder that `earteach export --format safetensors` wrote"


@dataclass(frozen=True)
class Pretrained:
    """The configuration of a network, which part of it the folder holds, and that part's weights."""

    config: ModelConfig
    part: ExportPart
    weights: dict[str, torch.Tensor]  # float32


def read_pretrained(folder: Path) -> Pretrained:
    """Raises `EarTeachError` for a folder without the two files, or that earteach did not write."""
    options = _options(folder)
    config = _model_config(folder / CONFIG, options)
    part = options.get("part", "full")
    if part not in get_args(ExportPart):
        raise EarTeachError(f"{folder / CONFIG}: has an unknown part {part!r}; {_ADVICE}")
    return Pretrained(config, part, {name: w.float() for name, w in _weights(folder).items()})


def _options(folder: Path) -> Mapping[str, Any]:
    path = folder / CONFIG
    try:
        options = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EarTeachError(f"{path}: is not JSON; export the folder again") from error
    if not isinstance(options, dict):
        raise EarTeachError(f"{path}: is not a JSON object; export the folder again")
    return options


def _model_config(path: Path, options: Mapping[str, Any]) -> ModelConfig:
    if "earteach" not in options:
        raise EarTeachError(f"{path}: earteach did not write it; {_ADVICE}")
    names = [field.name for field in fields(ModelConfig)]
    try:
        options = model_options(options)
        return ModelConfig(**{name: options[name] for name in names})
    except KeyError as error:
        raise EarTeachError(f"{path}: has no {error.args[0]}; {_ADVICE}") from error
    except EarTeachError as error:
        raise EarTeachError(f"{path}: {error}") from error


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise EarTeachError(f"{folder / WEIGHTS}: cannot be read; {_ADVICE}") from error
