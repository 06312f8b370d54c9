"""The JSON beside an export: what goes in and comes out, how images are made ready, whose it is.

It lies beside a file as `<name>.json`, and in a folder as `export.json`. The hashes in it tell the
files that earteach wrote from those that somebody else wrote or changed since.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from earteach._version import __version__
from earteach.checkpoint import file_hash
from earteach.config import ExportFormat
from earteach.errors import EarTeachError
from earteach.inference.export.parity import Parity
from earteach.inference.export.parts import Job

IN_FOLDER = "export.json"
LICENCE = (
    "Whether and to whom these weights may be given follows from the photographs that they were "
    "trained on, and from what the people shown agreed to; earteach's own licence, Apache-2.0, does "
    "not cover them. Photographs of ears are biometric data."
)


def sidecar_path(out: Path, names: tuple[str, ...]) -> Path:
    """Of a folder with files of these names, or of one file where there are none."""
    return out / IN_FOLDER if names else out.with_name(out.name + ".json")


def describe(
    job: Job,
    format: ExportFormat,
    checkpoint_sha256: str,
    files: Mapping[str, Path],
    parity: Parity,
) -> dict[str, Any]:
    return {
        "earteach": __version__,
        "format": format,
        "part": job.part,
        "checkpoint": {"name": job.found.path.name, "sha256": checkpoint_sha256},
        "files": {name: file_hash(path) for name, path in files.items()},
        "inputs": [asdict(job.input)],
        "outputs": [asdict(port) for port in job.outputs],
        "preprocessing": preprocessing(job),
        "model": job.found.config.model.to_dict(),
        "parity": asdict(parity),
        "licence": LICENCE,
    }


def preprocessing(job: Job) -> dict[str, Any]:
    """How images come to the network, and from it; null where none do."""
    layout, span = ("NHWC", [0, 255]) if job.preprocessing else ("NCHW", [0.0, 1.0])
    takes_images, gives_images = job.part != "decoder", job.part in ("full", "decoder")
    return {
        "height": job.size,
        "width": job.size,
        "resize": "both sides to the size: by area when shrinking, else cubic",
        "colour_order": "RGB" if job.model.in_channels == 3 else "gray",
        "input_layout": layout if takes_images else None,
        "input_range": span if takes_images else None,
        "output_range": [0.0, 1.0] if gives_images else None,
        "mean": [0.0] * job.model.in_channels,
        "std": [1.0] * job.model.in_channels,
        "inside_the_graph": job.preprocessing,
    }


def check_target(out: Path, names: tuple[str, ...], format: ExportFormat) -> None:
    """Raise `EarTeachError` where something is in the way that is no such export, as it was written."""
    files = {name: out / name for name in names} or {out.name: out}
    sidecar = sidecar_path(out, names)
    in_the_way = out.exists() and out.is_dir() != bool(names)
    existing = {name: path for name, path in files.items() if path.exists()}
    if not in_the_way and not existing and not sidecar.exists():
        return
    if in_the_way or not _is_ours(sidecar, existing, format):
        found = out if out.exists() else sidecar
        raise EarTeachError(
            f"{found}: exists and is no {format} export of earteach, or was changed since; move it "
            "away or choose another --out"
        )


def _is_ours(sidecar: Path, existing: Mapping[str, Path], format: ExportFormat) -> bool:
    try:
        about = json.loads(sidecar.read_text(encoding="utf-8"))
        if "earteach" not in about or about["format"] != format:
            return False
        return all(about["files"][name] == file_hash(path) for name, path in existing.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False
