"""What is written about an export: the JSON beside it, and a model card for the Hugging Face Hub."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any

from earteach._version import __version__
from earteach.checkpoint import file_hash
from earteach.config import ExportFormat
from earteach.inference.export.parity import Parity, Quantization
from earteach.inference.export.parts import Job

LICENCE = (
    "earteach's own licence, Apache-2.0, does not cover these weights. Whether you may share them "
    "depends on the photographs they were trained on and on the consent of the people in them. "
    "Photographs of ears are biometric data."
)
# The checkpoint's key: the Hub's metric type, and how the card names and prints it.
_METRICS = {
    "val/psnr": ("psnr", "PSNR", "{:.2f} dB"),
    "val/ssim": ("ssim", "SSIM", "{:.4f}"),
    "val/recon_loss": ("mse", "mean squared error (codes with noise)", "{:.6f}"),
    "val/kld": ("kld", "KLD", "{:.1f} nats"),
}
_CALLS = {
    "encoder": "mu, logvar = model.encode(images)  # images: (B, C, S, S) in [0, 1]",
    "decoder": "images = model.decode(codes)  # codes: (B, latent_dim)",
    "features": "maps = model.features(images)  # at strides 2, 4, 8, 16\n"
    "levels = model.pyramid(maps)  # if --teach-weight was above 0",
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
    title = f"Ear VAE, {job.model.image_size} px, {job.model.latent_dim} latent dimensions"
    # JSON is valid YAML, whatever a file name holds.
    header = "".join(f"{key}: {json.dumps(value)}\n" for key, value in _header(job, title).items())
    table = "".join(f"| {name} | {value} |\n" for name, value in _rows(job))
    calls = "\n".join(_calls(job))
    return (
        f"---\n{header}---\n\n# {title}\n\n"
        "A variational autoencoder of ear photographs with channel and spatial attention, trained "
        f"and exported with earteach {__version__}.\n\n"
        f"| | |\n| --- | --- |\n{table}\n## Use\n\n"
        f'```python\nimport earteach\n\nmodel = earteach.load(".")  # this folder\n{calls}\n```\n\n'
        f"## Licence\n\n{LICENCE}\n"
    )


def _calls(job: Job) -> Iterator[str]:
    parts = ("encoder", "decoder", "features") if job.part == "full" else (job.part,)
    return (_CALLS[part] for part in parts)


def _header(job: Job, title: str) -> dict[str, Any]:
    header: dict[str, Any] = {
        "library_name": "earteach",
        "pipeline_tag": "image-feature-extraction",
        "license": "other",
        "license_name": "see-model-card",
        "tags": ["ear", "biometrics", "vae", "representation-learning"],
    }
    if metrics := [{"type": t, "name": name, "value": v} for t, name, v, _ in _measured(job)]:
        data = PurePath(job.checkpoint.config.data.val_data).name
        result = {
            "task": {"type": "image-feature-extraction"},
            "dataset": {"name": data, "type": "private"},
            "metrics": metrics,
        }
        header["model-index"] = [{"name": title, "results": [result]}]
    return header


def _rows(job: Job) -> Iterator[tuple[str, str]]:
    model, checkpoint = job.model, job.checkpoint
    size, colour = model.image_size, "RGB" if model.in_channels == 3 else "gray"
    yield "weights", "the whole network" if job.part == "full" else f"only the {job.part}"
    yield "images", f"{size}×{size}, {colour}, values in [0, 1]"
    yield "latent dimensions", f"{model.latent_dim}"
    yield "parameters", f"{sum(p.numel() for p in model.parameters()):,} in the whole network"
    yield "trained for", f"{checkpoint.epochs_completed} epochs, {checkpoint.global_step:,} steps"
    if (images := _images(job, "train")) is not None:
        yield "trained on", f"{images:,} images"
    yield "augmentation", checkpoint.config.data.augmentation
    yield "seed", f"{checkpoint.config.run.seed}"
    images = _images(job, "val")
    suffix = "" if images is None else f" on {images:,} validation images"
    for _, name, _, text in _measured(job):
        yield name, f"{text}{suffix}"


def _measured(job: Job) -> Iterator[tuple[str, str, float, str]]:
    """Type, name, value and printed value of each metric that the checkpoint has."""
    metrics = job.checkpoint.about["metrics"]
    for key, (kind, name, form) in _METRICS.items():
        if math.isfinite(value := metrics.get(key, math.nan)):
            yield kind, name, value, form.format(value)


def _images(job: Job, split: str) -> int | None:
    """How many images the array had in training; None where the checkpoint does not say."""
    array = job.checkpoint.about["data"].get(split)
    return array["shape"][0] if isinstance(array, dict) and array.get("shape") else None
