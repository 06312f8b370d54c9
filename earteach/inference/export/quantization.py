"""ONNX with int8 convolutions, and the quality they lose.

onnxruntime's static quantization, with activation ranges measured on validation images. Only
convolutions, which are nearly all of the work, are quantized; PCA, which decides which way an ear
faces, stays in float.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from earteach.data.image_batches import to_batch
from earteach.errors import EarTeachError
from earteach.inference.export.formats import load_onnx, signed
from earteach.inference.export.parity import (
    Parity,
    Quantization,
    ear_images,
    inputs_of,
    run_torch,
)
from earteach.inference.export.parts import Job
from earteach.metrics.eval_metrics import psnr

_IMAGES = 128
_BATCH = 8
# Below this, in dB, the file is of no use.
_MIN_SIGNAL_TO_NOISE = 10.0


def quantize_onnx(target: Path, job: Job) -> tuple[Parity, Quantization]:
    """Replace the float ONNX file by one with int8 convolutions, and measure it in onnxruntime.

    Raises `EarTeachError` where noise drowns the output.
    """
    images = ear_images(job, _IMAGES)
    # Calibrate on every other image and test on the rest; a single image serves for both.
    calibration, test = images[::2], images[1::2] if len(images) > 1 else images
    _write(target, job, inputs_of(job, calibration))
    expected, outputs = _outputs(target, job, inputs_of(job, test))
    # The first output matters; logvar, the encoder's second, hardly varies. Of maps all matter.
    measured = len(outputs) if job.part == "features" else 1
    ratio = min(map(_signal_to_noise, expected[:measured], outputs[:measured]))
    if not ratio >= _MIN_SIGNAL_TO_NOISE:
        raise EarTeachError(
            f"--quantize int8: leaves a signal-to-noise ratio of {ratio:.1f} dB, less than "
            f"{_MIN_SIGNAL_TO_NOISE:g}, so the file was removed; leave out --quantize"
        )
    int8, float32 = (_psnr(job, output[0], test) for output in (outputs, expected))
    loss = None if int8 is None or float32 is None else float32 - int8
    error = max(float(np.abs(a - b).max()) for a, b in zip(expected, outputs, strict=True))
    return (
        Parity(len(test), error, True),
        Quantization("int8", len(test), len(calibration), int8, float32, loss, ratio),
    )


def _write(target: Path, job: Job, calibration: torch.Tensor) -> None:
    import onnx
    from onnxruntime import quantization as ort

    batches = iter([{job.input.name: b.numpy()} for b in torch.split(calibration, _BATCH)])

    class Reader(ort.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(batches, None)

    # onnxruntime's root logger advises to optimise the graph first; torch's exporter already has.
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        ort.quantize_static(
            onnx.load(target, format="protobuf"),
            target,
            Reader(),
            quant_format=ort.QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=["Conv"],
            activation_type=ort.QuantType.QUInt8,
            weight_type=ort.QuantType.QInt8,
        )
    finally:
        logging.disable(previous)
    # onnxruntime has put its own name there. The format is explicit, as onnx goes by the suffix.
    target.write_bytes(signed(onnx.load(target, format="protobuf")).SerializeToString())


def _outputs(
    target: Path, job: Job, inputs: torch.Tensor
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Torch's outputs and the file's, over all inputs."""
    run, batches = load_onnx(target, job), torch.split(inputs, _BATCH)
    pairs = [(run_torch(job.module, batch), run(batch)) for batch in batches]
    expected, outputs = (zip(*results, strict=True) for results in zip(*pairs, strict=True))
    return list(map(np.concatenate, expected)), list(map(np.concatenate, outputs))


def _signal_to_noise(expected: np.ndarray, output: np.ndarray) -> float:
    signal = max(float(expected.var(dtype=np.float64)), 1e-30)
    noise = max(float(np.square(expected - output, dtype=np.float64).mean()), 1e-30)
    return float(10 * np.log10(signal / noise))


def _psnr(job: Job, output: np.ndarray, images: np.ndarray) -> float | None:
    """Of the reconstructions that the output holds, or that its codes are decoded to."""
    if job.part == "features":
        return None
    reconstructions = torch.from_numpy(output)
    if job.part == "encoder":
        with torch.inference_mode():
            reconstructions = job.model.decode(reconstructions)
    return float(psnr(reconstructions, to_batch(images)).mean())
