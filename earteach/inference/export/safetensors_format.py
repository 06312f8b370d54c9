"""Safetensors: a folder for torch without a pickle, laid out as the Hugging Face Hub expects.

`model.safetensors`, `config.json` with the network's options, and a model card, `README.md`.
`EarVAE.from_pretrained` reads it, as does `huggingface_hub.PyTorchModelHubMixin`.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from earteach._version import __version__
from earteach.config import EncoderKind, ExportPart
from earteach.inference.export.model_card import model_card
from earteach.inference.export.parity import Run, by_torch
from earteach.inference.export.parts import Job, part_of
from earteach.model.pretrained import CONFIG, WEIGHTS
from earteach.model.vae import EarVAE

NEEDS = ("safetensors",)
EXTRA = "export"
_CARD = "README.md"
NAMES = (WEIGHTS, CONFIG, _CARD)
_KEPT: dict[EncoderKind, dict[ExportPart, tuple[str, ...]]] = {
    "attention": {
        "full": ("linear.", "encoder.", "decoder."),
        "encoder": ("linear.", "encoder."),
        "decoder": ("linear.", "decoder."),
        "features": ("linear.", "encoder.blocks."),
    },
    # A student's encoder does without the linear path.
    "mobile": {
        "full": ("linear.", "encoder.", "decoder."),
        "encoder": ("encoder.",),
        "decoder": ("linear.", "decoder."),
        "features": ("encoder.blocks.", "encoder.heads.", "encoder.side."),
    },
}


def write(target: Path, job: Job, example: torch.Tensor) -> None:
    from safetensors.torch import save_file

    weights = {
        name: value.contiguous()
        for name, value in job.model.state_dict().items()
        if name.startswith(_KEPT[job.model.kind][job.part])
    }
    save_file(weights, target / WEIGHTS, metadata={"format": "pt", "part": job.part})
    config = {
        **job.found.config.model.to_dict(),
        "earteach": __version__,
        "part": job.part,
    }
    (target / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (target / _CARD).write_text(model_card(job), encoding="utf-8", errors="replace")


def load(target: Path, job: Job) -> Run:
    module = part_of(EarVAE.from_pretrained(target), job.part)
    return lambda batch: by_torch(module, batch)
