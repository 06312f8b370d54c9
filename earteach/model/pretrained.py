"""The weights in a folder with `config.json` and `model.safetensors`, the Hugging Face Hub's layout.

Nothing is downloaded: fetch a folder from the Hub with its own tools first.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args

import torch

from earteach.config import ExportPart, ModelConfig, model_options
from earteach.errors import EarTeachError

CONFIG, WEIGHTS = "config.json", "model.safetensors"


@dataclass(frozen=True)
class Pretrained:
    """The configuration of a network, which part of it the folder holds, and that part's weights."""

    config: ModelConfig
    part: ExportPart
    weights: dict[str, torch.Tensor]  # float32


def read_pretrained(folder: Path) -> Pretrained:
    """Raises `EarTeachError` for a folder without the two files, or that earteach did not write."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / CONFIG
    try:
        options = json.loads(path.read_text(encoding="utf-8"))
        known = model_options(options)
        config = ModelConfig(**{field.name: known[field.name] for field in fields(ModelConfig)})
        part = options.get("part", "full")
        if part not in get_args(ExportPart):
            raise EarTeachError(f"unknown part {part!r}")
        path = folder / WEIGHTS
        weights = {name: weight.float() for name, weight in load_file(path).items()}
    except (EarTeachError, OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise EarTeachError(
            f"{path}: is not as earteach writes it ({reason}); name a folder that "
            "`earteach export --format safetensors` wrote"
        ) from error
    return Pretrained(config, part, weights)
