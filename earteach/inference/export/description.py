"""The JSON beside an export: inputs and outputs, preprocessing, and where the weights come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from earteach._version import __version__
from earteach.checkpoint import file_hash
from earteach.config import ExportFormat
from earteach.inference.export.parity import Parity
from earteach.inference.export.parts import Job
from earteach.inference.export.quantization import Quantization

LICENCE = (
    "earteach's own licence, Apache-2.0, does not cover these weights. Whether you may share them "
    "depends on the photographs they were trained on and on the consent of the people in them. "
    "Photographs of ears are biometric data."
)


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
