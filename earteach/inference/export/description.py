"""What is written about an export: the JSON beside it, and a model card for the Hugging Face Hub."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from earteach._version import __version__
from earteach.checkpoint import file_hash
from earteach.config import ExportFormat, ExportPart
from earteach.inference.export.parity import Parity, Quantization
from earteach.inference.export.parts import Job

LICENCE = (
    "earteach's own licence, Apache-2.0, does not cover these weights. Whether you may share them "
    "depends on the photographs they were trained on and on the consent of the people in them. "
    "Photographs of ears are biometric data."
)
# The checkpoint's key, and how the card names and prints it.
_METRICS = {
    "val/psnr": ("PSNR", "{:.2f} dB"),
    "val/ssim": ("SSIM", "{:.4f}"),
    "val/recon_loss": ("mean squared error (codes with noise)", "{:.6f}"),
    "val/kld": ("KLD", "{:.1f} nats"),
}
_ENCODE = "mu, logvar = model.encode(images)  # images: (B, C, S, S) in [0, 1]"
_CALLS: dict[ExportPart, str] = {
    "full": _ENCODE,
    "encoder": _ENCODE,
    "decoder": "images = model.decode(codes)  # codes: (B, latent_dim)",
    "features": "maps = model.features(images)  # at strides 2, 4, 8, 16",
    "landmarks": "points, confidence = model.landmarks(images)  # points: fractions of the sides",
}


def describe(
    job: Job,
    format: ExportFormat,
    checkpoint_sha256: str,
    files: Mapping[str, Path],
    parity: Parity,
    quantization: Quantization | None,
) -> dict[str, Any]:
    """`files` are the exported files by name; their hashes identify an unchanged export."""
    return {
        "earteach": __version__,
        "format": format,
        "part": job.part,
        "checkpoint": {"name": job.checkpoint.path.name, "sha256": checkpoint_sha256},
        "files": {name: file_hash(path) for name, path in files.items()},
        "inputs": [asdict(job.input)],
        "outputs": [asdict(port) for port in job.outputs],
        "preprocessing": _preprocessing(job),
        "model": job.checkpoint.config.model.to_dict(),
        "parity": asdict(parity),
        "licence": LICENCE,
        **({"opset": job.opset} if format == "onnx" else {}),
        **({"quantization": asdict(quantization)} if quantization else {}),
    }


def _preprocessing(job: Job) -> dict[str, Any]:
    """What images to pass in and what images come out; null for a part without them."""
    channels = job.model.in_channels
    takes_images, gives_images = job.part != "decoder", job.part in ("full", "decoder")
    layout, value_range = ("NHWC", [0, 255]) if job.preprocessing else ("NCHW", [0.0, 1.0])
    return {
        "height": job.size,
        "width": job.size,
        "resize": "to height and width; area interpolation when shrinking, else cubic",
        "colour_order": "RGB" if channels == 3 else "gray",
        "input_layout": layout if takes_images else None,
        "input_range": value_range if takes_images else None,
        "output_range": [0.0, 1.0] if gives_images else None,
        "mean": [0.0] * channels,
        "std": [1.0] * channels,
        "inside_the_graph": job.preprocessing,
    }


def model_card(job: Job) -> str:
    """Markdown behind a YAML header, with the checkpoint's own measurements."""
    model, checkpoint = job.model, job.checkpoint
    measured = checkpoint.about["metrics"]
    rows = {
        "part": "the whole network" if job.part == "full" else f"only the {job.part}",
        "images": f"{model.image_size}×{model.image_size}×{model.in_channels}, values in [0, 1]",
        "latent dimensions": model.latent_dim,
        "trained for": f"{checkpoint.epochs_completed} epochs, {checkpoint.global_step:,} steps",
    } | {
        f"{name} on validation images": form.format(value)
        for key, (name, form) in _METRICS.items()
        if math.isfinite(value := measured.get(key, math.nan))
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
library_name: earteach
pipeline_tag: image-feature-extraction
license: other
license_name: see-model-card
tags: [ear, biometrics, vae, representation-learning]
---

# Ear VAE, {model.image_size} px, {model.latent_dim} latent dimensions

A variational autoencoder of ear photographs, trained and exported with earteach {__version__}.

| | |
| --- | --- |
{table}

## Use

```python
import earteach
model = earteach.load(".")  # this folder
{_CALLS[job.part]}
```

## Licence

{LICENCE}
"""
