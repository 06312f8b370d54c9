"""From a checkpoint to a file: write it, run it in its own runtime, compare, move it into place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from earteach import checkpoint
from earteach.checkpoint import file_hash
from earteach.config import ExportFormat, ExportPart
from earteach.errors import EarTeachError
from earteach.files.folders import make_folder
from earteach.inference.export.description import describe
from earteach.inference.export.destination import Destination
from earteach.inference.export.formats import FORMATS, check_packages
from earteach.inference.export.parity import (
    Parity,
    Quantization,
    check_parity,
    ear_images,
    inputs_of,
)
from earteach.inference.export.parts import Job, Port, check_size
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
    path = Path(path)
    source = checkpoint.read(checkpoint.best(path) if path.is_dir() else path)
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
    part: ExportPart,
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
        raise EarTeachError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
