"""A network from a folder with `config.json` and `model.safetensors`, the Hugging Face Hub's layout.

Nothing is downloaded: fetch a folder from the Hub with its own tools first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import torch

from earteach.config import ExportPart, ModelConfig, model_options
from earteach.errors import EarTeachError
from earteach.model.build import build_model
from earteach.model.network_parts import keep_part
from earteach.model.vae import ConvVAE

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_ADVICE = "name a folder that `earteach export --format safetensors` wrote"


def load_pretrained(folder: str | Path) -> ConvVAE:
    """The network in evaluation mode, on the CPU.

    A folder may hold only a part of a network; what needs another part then raises `EarTeachError`. So
    do a folder without the two files, and weights that do not fit.
    """
    folder = Path(folder)
    options = _options(folder)
    with torch.device("meta"):
        network = build_model(_model_config(folder / CONFIG, options))
    part = options.get("part", "full")
    if part not in get_args(ExportPart):
        raise EarTeachError(f"{folder / CONFIG}: has an unknown part {part!r}; {_ADVICE}")
    keep_part(network, part, str(folder))
    try:
        network.load_state_dict(_weights(folder), assign=True)
    except RuntimeError as error:
        raise EarTeachError(
            f"{folder}: the weights in {WEIGHTS} do not fit {CONFIG}; export them again"
        ) from error
    return network.eval()


def _options(folder: Path) -> Mapping[str, Any]:
    if not folder.is_dir():
        raise EarTeachError(f"{folder}: no such folder; {_ADVICE} (nothing is downloaded)")
    path = folder / CONFIG
    try:
        options = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EarTeachError(f"{path}: {error.strerror}; {_ADVICE}") from error
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
        raise EarTeachError(f"{folder / WEIGHTS}: cannot be read; {_ADVICE}") from error
