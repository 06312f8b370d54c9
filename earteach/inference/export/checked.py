"""The one way from a checkpoint to a file: write it, run it in its own runtime, compare, place it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from earteach import checkpoint
from earteach.checkpoint import file_hash
from earteach.config import ExportFormat, ExportPart
from earteach.errors import EarTeachError
from earteach.files.folders import make_folder
from earteach.inference.export import onnx_format, quantization
from earteach.inference.export.formats import FORMATS, check_packages
from earteach.inference.export.parity import Parity, compared, ear_images, inputs_of
from earteach.inference.export.parts import Job, Port, check_size
from earteach.inference.export.quantization import Quantization
from earteach.inference.export.sidecar import check_target, describe, sidecar_path

OPSET = 18
_OPSETS = range(18, 25)
_EXAMPLES = 3


@dataclass(frozen=True)
class Export:
    """What was written; `sidecar` is the JSON about it, and `bytes` the size without that."""

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
    """Write the network, a side of it or its maps for another runtime, and check its numbers.

    The file is run by its own runtime on validation images, or on drawn ears where those are gone, at
    batch 1, 3 and 5, and compared with torch. `with_preprocessing` lets it take uint8 `(B, H, W, C)`.
    `quantize` makes an ONNX file's convolutions 8 bits wide, once the float file has passed.

    Raises `EarTeachError` where a package is missing, options do not go together, a foreign file is in
    the way, or the outputs differ by more than 1e-3; nothing is left behind then.
    """
    _check_options(format, part, opset, with_preprocessing, quantize)
    check_packages(format)
    path = Path(path)
    found = checkpoint.read(checkpoint.best(path) if path.is_dir() else path)
    model = found.model()
    size = check_size(model, part, input_size)
    job = Job(found, model, part, size, with_preprocessing, opset or OPSET)
    names = FORMATS[format].NAMES
    make_folder(out.parent)
    staging = out.parent / f".earteach-{os.getpid()}.partial"
    try:
        check_target(out, names, format)
        staging.mkdir()
        staged = {name: staging / name for name in names} or {out.name: staging / "file"}
        target = staging if names else staging / "file"
        parity, costs = _written(target, job, format, quantize)
        sha256 = file_hash(found.path)
        about = describe(job, format, sha256, staged, parity)
        bytes_written = sum(file.stat().st_size for file in staged.values())
        _place(staging, staged, out, names, {**about, **_more(job, format, costs)})
    except OSError as error:
        raise EarTeachError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Export(
        checkpoint=found.path,
        checkpoint_sha256=sha256,
        format=format,
        part=part,
        path=out,
        sidecar=sidecar_path(out, names),
        bytes=bytes_written,
        inputs=(job.input,),
        outputs=job.outputs,
        opset=job.opset if format == "onnx" else None,
        parity=parity,
        quantization=costs,
    )


def _check_options(
    format: ExportFormat,
    part: ExportPart,
    opset: int | None,
    with_preprocessing: bool,
    quantize: str | None,
) -> None:
    if opset is not None and format != "onnx":
        raise EarTeachError(f"--opset {opset}: is of --format onnx; leave it out with {format}")
    if opset is not None and opset not in _OPSETS:
        raise EarTeachError(
            f"--opset {opset}: must be from {_OPSETS[0]} to {_OPSETS[-1]}, which torch writes"
        )
    if quantize not in (None, "int8"):
        raise EarTeachError(f"--quantize {quantize}: must be int8")
    if quantize and format != "onnx":
        raise EarTeachError(
            f"--quantize {quantize}: is of --format onnx; leave it out with {format}"
        )
    if with_preprocessing and part == "decoder":
        raise EarTeachError(
            "--with-preprocessing: the decoder takes codes, not images; leave it out"
        )
    if with_preprocessing and format == "safetensors":
        raise EarTeachError(
            "--with-preprocessing: safetensors holds weights and no graph; leave it out or choose "
            "another --format"
        )


def _written(
    target: Path, job: Job, format: ExportFormat, quantize: str | None
) -> tuple[Parity, Quantization | None]:
    example = inputs_of(job, ear_images(job, _EXAMPLES))
    if quantize is None:
        FORMATS[format].write(target, job, example)
        return compared(job, FORMATS[format].load(target, job)), None
    proto = onnx_format.proto(job, example)
    target.write_bytes(proto.SerializeToString())
    compared(job, onnx_format.load(target, job))
    costs, parity = quantization.quantized(target, job, proto)
    return parity, costs


def _more(job: Job, format: ExportFormat, costs: Quantization | None) -> dict[str, Any]:
    opset = {"opset": job.opset} if format == "onnx" else {}
    return {**opset, **({"quantization": asdict(costs)} if costs else {})}


def _place(
    staging: Path,
    staged: Mapping[str, Path],
    out: Path,
    names: tuple[str, ...],
    about: Mapping[str, Any],
) -> None:
    """Move what was written to its place; in a folder, other files stay."""
    sidecar = staging / "about"
    sidecar.write_text(json.dumps(about, indent=2, ensure_ascii=True) + "\n", encoding="utf-8")
    if names:
        out.mkdir(exist_ok=True)
    for name, file in staged.items():
        file.replace(out / name if names else out)
    sidecar.replace(sidecar_path(out, names))
