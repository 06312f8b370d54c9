"""A model card, as the Hugging Face Hub shows it, from the checkpoint's own numbers."""

from __future__ import annotations

import json
import math
from pathlib import PurePath
from typing import Any

from earteach._version import __version__
from earteach.inference.export.parts import Job
from earteach.inference.export.sidecar import LICENCE

_MEASURED = {
    "val/psnr": ("psnr", "PSNR", "{:.2f} dB"),
    "val/ssim": ("ssim", "SSIM", "{:.4f}"),
    "val/recon_loss": ("mse", "mean squared error, from noisy codes", "{:.6f}"),
    "val/kld": ("kld", "KLD", "{:.1f} nats"),
}
_HOLDS = {
    "full": "The whole network.",
    "encoder": "The encoder alone: images to codes.",
    "decoder": "The decoder alone: codes to images.",
    "features": "The encoder's blocks alone: images to maps.",
}


def model_card(job: Job) -> str:
    """Markdown behind a YAML header."""
    # JSON is YAML, whatever a file is called.
    header = "".join(f"{key}: {json.dumps(value)}\n" for key, value in _header(job).items())
    return f"---\n{header}---\n\n{_text(job)}"


def _header(job: Job) -> dict[str, Any]:
    data = PurePath(job.found.config.data.val_data).name
    values = _values(job)
    results = [
        {
            "task": {"type": "image-feature-extraction"},
            "dataset": {"name": data, "type": "private"},
            "metrics": [
                {"type": kind, "name": name, "value": values[key]}
                for key, (kind, name, _) in _MEASURED.items()
                if key in values
            ],
        }
    ]
    return {
        "library_name": "earteach",
        "pipeline_tag": "image-feature-extraction",
        "license": "other",
        "license_name": "see-model-card",
        "tags": ["ear", "biometrics", "vae", "representation-learning"],
        **({"model-index": [{"name": _title(job), "results": results}]} if values else {}),
    }


def _values(job: Job) -> dict[str, float]:
    measured = job.found.about.get("metrics", {})
    return {key: measured[key] for key in _MEASURED if math.isfinite(measured.get(key, math.nan))}


def _title(job: Job) -> str:
    model = job.model
    return f"Ear VAE, {model.image_size} px, {model.latent_dim} latent numbers"


def _text(job: Job) -> str:
    model, config, values = job.model, job.found.config, _values(job)
    images = {
        name: found["shape"][0]
        for name, found in job.found.about.get("data", {}).items()
        if isinstance(found, dict) and found.get("shape")
    }
    rows = {
        "holds": _HOLDS[job.part],
        "images": f"{model.image_size}×{model.image_size}, "
        f"{'RGB' if model.in_channels == 3 else 'gray'}, values in [0, 1]",
        "latent numbers": f"{model.latent_dim}",
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}, of the whole network",
        "trained for": f"{job.found.epochs_completed} epochs, {job.found.global_step:,} steps",
        "trained on": f"{images['train']:,} images" if "train" in images else "",
        "augmentation": config.data.augmentation,
        "seed": f"{config.run.seed}",
        **{
            name: f"{form.format(values[key])}{_on(images)}"
            for key, (_, name, form) in _MEASURED.items()
            if key in values
        },
    }
    table = "".join(f"| {name} | {value} |\n" for name, value in rows.items() if value)
    return (
        f"# {_title(job)}\n\nA variational autoencoder of ear photographs with channel and spatial "
        f"attention, trained and written by earteach {__version__}.\n\n"
        f"| | |\n| --- | --- |\n{table}\n## Use\n\n{_use(job)}\n## Licence\n\n{LICENCE}\n"
    )


def _on(images: dict[str, int]) -> str:
    return f", on {images['val']:,} validation images" if "val" in images else ""


def _use(job: Job) -> str:
    calls = {
        "encoder": "mu, logvar = model.encode(images)  # (B, C, S, S) in [0, 1]",
        "decoder": "images = model.decode(codes)  # codes: (B, latent_dim)",
        "features": "maps = model.features(images)  # at strides 2, 4, 8, 16",
    }
    chosen = calls.values() if job.part == "full" else [calls[job.part]]
    lines = "\n".join(
        [
            "from earteach import EarVAE",
            "",
            'model = EarVAE.from_pretrained(".")  # this folder',
            *chosen,
        ]
    )
    return f"```python\n{lines}\n```\n"
