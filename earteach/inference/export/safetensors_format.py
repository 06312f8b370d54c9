"""Safetensors: a folder for torch without a pickle, in the Hugging Face Hub's layout.

`model.safetensors`, `config.json` with the network's options, and `README.md`, a model card.
`earteach.load` and `huggingface_hub.PyTorchModelHubMixin` read it.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from earteach._version import __version__
from earteach.inference.export.model_card import model_card
from earteach.inference.export.parity import Run, run_torch
from earteach.inference.export.parts import Job, PartModule
from earteach.model.network_parts import part_weights
from earteach.model.pretrained import CONFIG, WEIGHTS, load_pretrained

_CARD = "README.md"
FILES = (WEIGHTS, CONFIG, _CARD)


def write(target: Path, job: Job, example: torch.Tensor) -> None:
    from safetensors.torch import save_file

    names, state = part_weights(job.model, job.part), job.model.state_dict()
    weights = {name: state[name].contiguous() for name in state if name in names}
    save_file(weights, target / WEIGHTS, metadata={"format": "pt", "part": job.part})
    options = {
        **job.checkpoint.config.model.to_dict(), "earteach": __version__, "part": job.part,
    }  # fmt: skip
    (target / CONFIG).write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")
    (target / _CARD).write_text(model_card(job), encoding="utf-8", errors="replace")


def load(target: Path, job: Job) -> Run:
    module = PartModule(load_pretrained(target), job.part)
    return lambda batch: run_torch(module, batch)
