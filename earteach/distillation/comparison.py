"""A student beside its teacher: what each makes of the same images, and how fast.

>>> compare("students").codes_r2
0.93
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from earteach.config import InferenceConfig, Layout
from earteach.distillation.agreement import Agreement
from earteach.distillation.student_module import side_logits
from earteach.distillation.teacher import find_teacher
from earteach.inference.loaded_model import LoadedModel, load_model
from earteach.metrics.eval_metrics import QualityMeter
from earteach.model.pca_vae import PCAVAE, SideClassifierPCAVAE
from earteach.model.vae import ConvVAE

_TIMED_IMAGES, _ROUNDS = 16, 5


@dataclass(frozen=True)
class EncoderReport:
    """One of the two: its checkpoint, its encoder's size, what its codes are worth, its speed.

    `parameters` are those that `encode` and `features` need; `fixed_numbers` are those of the PCA path,
    where the encoder needs it. PSNR and SSIM are of images decoded from mu.
    """

    checkpoint: Path
    parameters: int
    fixed_numbers: int
    psnr: float
    ssim: float
    images_per_second: float


@dataclass(frozen=True)
class Comparison:
    """How far a student agrees with its teacher on images.

    `codes_r2` is over all numbers of mu but the side; `features_r2` is of each level, finest first;
    `side_agreement` is a share of the images, None where there are no sides. Speed is of `encode`, in
    turn, `timed_images` at a time; `speed_ratio` is how many times as fast the student is.
    """

    data: Path
    images: int
    teacher: EncoderReport
    student: EncoderReport
    codes_r2: float
    features_r2: tuple[float, ...]
    side_agreement: float | None
    speed_ratio: float
    timed_images: int


def compare(
    path: str | Path,
    data: str | Path | None = None,
    *,
    layout: Layout | None = None,
    config: InferenceConfig = InferenceConfig(),
) -> Comparison:
    """Compare the student at `path`, or a folder's best, with its teacher on an array.

    Left out, it is the validation array that the student names. Raises `EarTeachError` for a
    checkpoint that is no student's, where the teacher is gone, and for an array that cannot be read.
    """
    student = load_model(Path(path), config)
    original = find_teacher(student.checkpoint)
    # In the student's arithmetic, as training had it, whatever its own run had.
    config = replace(config, precision=student.precision)
    teacher = load_model(original.path, config)
    array = student.open_data(data, layout)
    agreement = Agreement(teacher.network)
    qualities = QualityMeter("psnr", "ssim"), QualityMeter("psnr", "ssim")
    timed = torch.empty(0)
    for batch in student.batches(array, config.batch_size):
        images = batch.images.to(student.device)
        timed = timed if len(timed) else images[:_TIMED_IMAGES]
        with teacher.running() as network:
            target = network.encode_all(images)
            qualities[0].update(network.decode(target.mu), images)
        with student.running() as network:
            output = network.encode_all(images)
            qualities[1].update(network.decode(output.mu), images)
            agreement.update(output, target, side_logits(network, images))
    speeds = _speeds((teacher, student), timed)
    reports = [_report(*facts) for facts in zip((teacher, student), qualities, speeds, strict=True)]
    return Comparison(
        data=array.path,
        images=len(array),
        teacher=reports[0],
        student=reports[1],
        codes_r2=agreement.codes.r2(),
        features_r2=tuple(agreement.feature_r2()),
        side_agreement=agreement.side_agreement(),
        speed_ratio=speeds[1] / speeds[0],
        timed_images=len(timed),
    )


def _report(model: LoadedModel, meter: QualityMeter, speed: float) -> EncoderReport:
    quality = meter.compute()
    parameters, fixed = encoder_size(model.network)
    return EncoderReport(
        checkpoint=model.checkpoint.path,
        parameters=parameters,
        fixed_numbers=fixed,
        psnr=float(quality.psnr.mean()),
        ssim=float(quality.ssim.mean()),
        images_per_second=speed,
    )


def encoder_size(network: ConvVAE) -> tuple[int, int]:
    """The parameters that `encode` and `features` need, and the fixed numbers."""
    parts: list[nn.Module] = [network.encoder]
    fixed = 0
    if isinstance(network, SideClassifierPCAVAE):
        parts.append(network.side)
    elif isinstance(network, PCAVAE):
        fixed = sum(buffer.numel() for buffer in network.pca.buffers())
    return sum(p.numel() for part in parts for p in part.parameters()), fixed


def _speeds(models: tuple[LoadedModel, LoadedModel], images: torch.Tensor) -> list[float]:
    """Images a second that each encodes: medians of rounds in which they take turns."""
    times: list[list[float]] = [[], []]
    for _ in range(1 + _ROUNDS):
        for taken, model in zip(times, models, strict=True):
            taken.append(_seconds(model, images))
    # The first round warms up.
    return [len(images) / statistics.median(taken[1:]) for taken in times]


def _seconds(model: LoadedModel, images: torch.Tensor) -> float:
    with model.running() as network:
        began = time.perf_counter()
        network.encode(images)
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        return time.perf_counter() - began
