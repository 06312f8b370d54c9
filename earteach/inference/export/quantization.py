"""ONNX with 8-bit convolutions, and what they cost in quality.

Static quantization by onnxruntime: the ranges of activations are those seen on validation images. Only
convolutions are quantized, which are nearly all of the work; the linear path, which decides what side an
ear is from, stays in float.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from earteach._version import __version__
from earteach.data.image_batches import to_batch
from earteach.errors import EarTeachError
from earteach.inference.export import onnx_format
from earteach.inference.export.parity import Parity, by_torch, ear_images, inputs_of
from earteach.inference.export.parts import Job
from earteach.metrics.image_quality import psnr

QuantizeTo = Literal["int8"]
_IMAGES = 128
_BATCH = 8
# Less than this and the file is of no use.
_LEAST_SIGNAL_TO_NOISE = 10.0


@dataclass(frozen=True)
class Quantization:
    """What 8 bits cost on validation images that the ranges were not taken from.

    `psnr` and `float_psnr` are those of reconstructions, in dB, where the other side of the network
    is in float; `psnr_loss` is what is lost. None for features, which make no picture.
    `signal_to_noise` is that of the output, of the codes' mu or of the worst map, in dB: the variance
    of the float network's over the mean squared difference from it.
    """

    to: QuantizeTo
    images: int
    calibration_images: int
    psnr: float | None
    float_psnr: float | None
    psnr_loss: float | None
    signal_to_noise: float


def quantized(target: Path, job: Job, proto: Any) -> tuple[Quantization, Parity]:
    """Write `proto` with 8-bit convolutions, and measure it in onnxruntime.

    Raises `EarTeachError` where little of the outputs is left.
    """
    images = ear_images(job, _IMAGES)
    # Every other image is measured on; of one image both are done on it.
    seen, unseen = images[::2], images[1::2] if len(images) > 1 else images
    _write(target, job, proto, inputs_of(job, seen))
    run = onnx_format.load(target, job)
    inputs = inputs_of(job, unseen)
    pairs = [(by_torch(job.module, batch), run(batch)) for batch in torch.split(inputs, _BATCH)]
    wanted, got = (
        [np.concatenate(output) for output in zip(*side, strict=True)]
        for side in zip(*pairs, strict=True)
    )
    ratio = min(map(_signal_to_noise, *(_judged(job, side) for side in (wanted, got))))
    if not ratio >= _LEAST_SIGNAL_TO_NOISE:
        raise EarTeachError(
            f"--quantize int8: leaves a signal of {ratio:.1f} dB over its noise, less than "
            f"{_LEAST_SIGNAL_TO_NOISE:g}, so the file was removed; leave out --quantize"
        )
    now, before = _psnr(job, got[0], unseen), _psnr(job, wanted[0], unseen)
    loss = None if now is None or before is None else before - now
    worst = max(float(np.abs(a - b).max()) for a, b in zip(wanted, got, strict=True))
    return (
        Quantization("int8", len(unseen), len(seen), now, before, loss, ratio),
        Parity(len(unseen), worst, True),
    )


def _write(target: Path, job: Job, proto: Any, calibration: torch.Tensor) -> None:
    from onnxruntime import quantization as ort

    batches = iter([{job.input.name: b.numpy()} for b in torch.split(calibration, _BATCH)])

    class Reader(ort.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(batches, None)

    with _without_advice():
        ort.quantize_static(
            proto,
            target,
            Reader(),
            quant_format=ort.QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=["Conv"],
            activation_type=ort.QuantType.QUInt8,
            weight_type=ort.QuantType.QInt8,
        )
    _sign(target)


def _sign(target: Path) -> None:
    """onnxruntime gives its own name as the producer."""
    import onnx

    # Named, or onnx would take a `.json` for text.
    made = onnx.load(target, format="protobuf")
    made.producer_name, made.producer_version = "earteach", __version__
    target.write_bytes(made.SerializeToString())


@contextmanager
def _without_advice() -> Iterator[None]:
    """onnxruntime advises to optimise the graph first, by the root logger; torch's exporter has."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _judged(job: Job, outputs: list[np.ndarray]) -> list[np.ndarray]:
    """All maps; else the first output: the width of the posterior hardly varies, and decides little."""
    return outputs if job.part == "features" else outputs[:1]


def _signal_to_noise(wanted: np.ndarray, got: np.ndarray) -> float:
    noise = float(np.square(wanted - got, dtype=np.float64).mean())
    return float(10 * np.log10(max(float(wanted.var(dtype=np.float64)), 1e-30) / max(noise, 1e-30)))


def _psnr(job: Job, output: np.ndarray, images: np.ndarray) -> float | None:
    """Of the reconstructions that the part's first output is, or that its codes are decoded to."""
    if job.part == "features":
        return None
    made = torch.from_numpy(output)
    if job.part == "encoder":
        with torch.inference_mode():
            made = job.model.decode(made)
    return float(psnr(made, to_batch(images)).mean())
