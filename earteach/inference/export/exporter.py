"""From a checkpoint to a file: write it, run it in its own runtime, compare, move it into place."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from earteach import checkpoint
from earteach.checkpoint import file_hash
from earteach.config import ExportFormat, ExportPart
from earteach.errors import EarTeachError
from earteach.files.atomic_write import write_error
from earteach.files.folders import make_folder
from earteach.inference.export.description import describe
from earteach.inference.export.formats import FORMATS, check_packages
from earteach.inference.export.parity import (
    Parity,
    Quantization,
    check_parity,
    ear_images,
    inputs_of,
)
from earteach.inference.export.parts import Job, Port, check_part, check_size
from earteach.inference.export.quantization import quantize_onnx

OPSET = 18
_OPSETS = range(18, 25)
_TRACED_IMAGES = 3


@dataclass(frozen=True)
class Export:
    """What was written. `sidecar` is the JSON about it, which `bytes` does not count."""

    checkpoint: Path
    checkpoint_sha256: str
    format: ExportFormat
    part: ExportPart
    path: Path
    sidecar: Path
    bytes: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    opset: int | None
    parity: Parity
    quantization: Quantization | None


def export(
    path: str | Path,
    out: Path,
    *,
    format: ExportFormat = "onnx",
    part: ExportPart = "full",
    opset: int | None = None,
    input_size: int | None = None,
    with_preprocessing: bool = False,
    quantize: Literal["int8"] | None = None,
) -> Export:
    """Write a network or a part of it for another runtime, and check its numbers.

    The file runs in its own runtime on validation images, or on drawn ears without those, in batches
    of 1, 3 and 5, and is compared with torch. `with_preprocessing` makes it take uint8
    `(B, H, W, C)`. `quantize` turns an ONNX file's convolutions to int8 after the float file has passed.

    Raises `EarTeachError` where a package is missing, options contradict each other, another program's
    file is in the way, or an output differs by more than 1e-3. Nothing is written then.
    """
    _check_options(format, part, opset, with_preprocessing, quantize)
    check_packages(format)
    source = checkpoint.find(path)
    check_part(source, part)
    model = source.model()
    size = check_size(model, part, input_size)
    job = Job(source, model, part, size, with_preprocessing, opset or OPSET)
    destination = Destination(out, FORMATS[format].files)
    with _staging(out) as staging:
        destination.check_replaceable(format)
        staging.mkdir()
        target = staging if destination.names else staging / "file"
        FORMATS[format].write(target, job, inputs_of(job, ear_images(job, _TRACED_IMAGES)))
        parity = check_parity(job, FORMATS[format].load(target, job))
        quantization = None
        if quantize is not None:  # measured again; the float file had to pass first
            parity, quantization = quantize_onnx(target, job)
        staged = {name: target / name for name in destination.names} or {out.name: target}
        sha256 = file_hash(source.path)
        written = sum(file.stat().st_size for file in staged.values())
        destination.fill(staged, describe(job, format, sha256, staged, parity, quantization))
    return Export(
        checkpoint=source.path,
        checkpoint_sha256=sha256,
        format=format,
        part=part,
        path=out,
        sidecar=destination.sidecar,
        bytes=written,
        inputs=(job.input,),
        outputs=job.outputs,
        opset=job.opset if format == "onnx" else None,
        parity=parity,
        quantization=quantization,
    )


def _check_options(
    format: ExportFormat,
    part: str,
    opset: int | None,
    with_preprocessing: bool,
    quantize: str | None,
) -> None:
    for option, value in (("--opset", opset), ("--quantize", quantize)):
        if value is not None and format != "onnx":
            raise EarTeachError(
                f"{option} {value}: is only for --format onnx; leave it out with {format}"
            )
    if opset is not None and opset not in _OPSETS:
        raise EarTeachError(f"--opset {opset}: must be from {_OPSETS[0]} to {_OPSETS[-1]}")
    if quantize not in (None, "int8"):
        raise EarTeachError(f"--quantize {quantize}: must be int8")
    if with_preprocessing and part == "decoder":
        raise EarTeachError("--with-preprocessing: the decoder takes codes; leave it out")
    if with_preprocessing and format == "safetensors":
        raise EarTeachError("--with-preprocessing: safetensors holds no graph; leave it out")


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A path beside `out` for a folder that is removed in the end; its I/O errors are the user's."""
    make_folder(out.parent)
    staging = out.parent / f".earteach-{os.getpid()}.partial"
    try:
        yield staging
    except OSError as error:
        raise write_error(out, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@dataclass(frozen=True)
class Destination:
    """One file at `path`, or a folder there with files of these `names`; and the JSON about it."""

    path: Path
    names: tuple[str, ...]

    @property
    def files(self) -> dict[str, Path]:
        return {name: self.path / name for name in self.names} or {self.path.name: self.path}

    @property
    def sidecar(self) -> Path:
        """`export.json` in a folder, `<name>.json` beside a file."""
        path = self.path
        return path / "export.json" if self.names else path.with_name(f"{path.name}.json")

    def check_replaceable(self, format: ExportFormat) -> None:
        """Raise `EarTeachError` for existing files, unless an export wrote them as they are."""
        wrong_kind = self.path.exists() and self.path.is_dir() != bool(self.names)
        existing = {name: path for name, path in self.files.items() if path.exists()}
        if not (wrong_kind or existing or self.sidecar.exists()):
            return
        if wrong_kind or not self._describes(existing, format):
            raise EarTeachError(
                f"{self.path if self.path.exists() else self.sidecar}: exists but was "
                f"changed or not exported to {format} by earteach; move it away or choose another --out"
            )

    def fill(self, staged: Mapping[str, Path], description: Mapping[str, Any]) -> None:
        """Move the staged files here and describe them; other files in the folder stay."""
        text = json.dumps(description, indent=2, ensure_ascii=True) + "\n"
        partial = next(iter(staged.values())).with_name("description")
        partial.write_text(text, encoding="utf-8")
        if self.names:
            self.path.mkdir(exist_ok=True)
        for name, path in self.files.items():
            staged[name].replace(path)
        partial.replace(self.sidecar)

    def _describes(self, existing: Mapping[str, Path], format: ExportFormat) -> bool:
        """Whether the sidecar has the hashes of all existing files."""
        try:
            description = json.loads(self.sidecar.read_text(encoding="utf-8"))
            if "earteach" not in description or description["format"] != format:
                return False
            hashes = description["files"]
            return all(hashes[name] == file_hash(path) for name, path in existing.items())
        except (OSError, ValueError, KeyError, TypeError):
            return False
