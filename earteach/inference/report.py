"""A page for each run: one HTML file that shows everything about it.

>>> report("checkpoints").path
PosixPath('checkpoints/report.html')
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from earteach._version import __version__
from earteach.charts import number
from earteach.config import GROUPS, InferenceConfig
from earteach.data.arrays import EarArray
from earteach.errors import EarTeachError
from earteach.files.atomic_write import write_atomically
from earteach.files.folders import make_writable_folder
from earteach.files.overwrite_guard import carries, refuse_foreign
from earteach.inference import report_sections as sections
from earteach.inference.animation import animate, check_animation
from earteach.inference.evaluate import DetailedEvaluation, evaluate_model
from earteach.inference.loaded_model import LoadedModel, load_model
from earteach.inference.run_record import EpochMetrics, read_record, read_validation_ears
from earteach.inference.sample import new_ears
from earteach.metrics.diagnostics import recorded_advice
from earteach.run_files import REPORT_PAGE

_MARK = '<meta name="generator" content="earteach">'
# Enough for accurate means.
MAX_IMAGES = 512
_SAMPLES = 16
T = TypeVar("T")


@dataclass(frozen=True)
class Animation:
    """The animated picture of the epochs."""

    path: Path
    bytes: int
    frames: int


@dataclass(frozen=True)
class Report:
    """The files that were written.

    `images` is the number of images measured, 0 if the validation array is gone. `missing` names the
    incomplete sections and what they lack.
    """

    checkpoint: Path
    path: Path
    bytes: int
    gif: Animation | None
    epochs: int
    images: int
    psnr: float | None
    ssim: float | None
    missing: dict[str, str]
    seconds: float


def report(
    run: str | Path,
    *,
    out: Path | None = None,
    gif: Path | None = None,
    seed: int = 42,
    config: InferenceConfig = InferenceConfig(),
) -> Report:
    """Write the page of a checkpoint, or a folder's best, from its logs and arrays.

    `out` defaults to `report.html` beside the checkpoint. If logs or arrays are gone, the page says so
    and shows the rest. Up to 512 evenly spread validation images are measured. `gif` is a `.gif` or
    `.webp` that animates the fixed validation ears over the epochs.

    Raises `EarTeachError` if the checkpoint cannot be read, if files are in the way that earteach did
    not write, and for `gif` if the logs are gone.
    """
    start = time.monotonic()
    model = load_model(Path(run), config)
    path = out or model.checkpoint.path.with_name(REPORT_PAGE)
    _refuse_foreign_page(path)
    make_writable_folder(path.parent, f"--out {path}")
    epochs, reason = read_record(model.checkpoint)
    missing = {} if reason is None else {"curves": f"Losses not shown: {reason}"}
    animation = None if gif is None else _write_animation(model, epochs, reason, gif)
    evaluation, content = _page(model, epochs, seed, config, missing)
    write_atomically(path, lambda partial: partial.write_bytes(content))
    summary = evaluation.summary if evaluation else None
    return Report(
        checkpoint=model.checkpoint.path,
        path=path,
        bytes=len(content),
        gif=animation,
        epochs=len(epochs) or model.checkpoint.epochs_completed,
        images=summary.images if summary else 0,
        psnr=summary.metrics.psnr if summary else None,
        ssim=summary.metrics.ssim if summary else None,
        missing=missing,
        seconds=time.monotonic() - start,
    )


def _page(
    model: LoadedModel,
    epochs: Sequence[EpochMetrics],
    seed: int,
    config: InferenceConfig,
    missing: dict[str, str],
) -> tuple[DetailedEvaluation | None, bytes]:
    """The evaluation and the HTML, section by section; adds to `missing` what sections lack."""

    def attempt(names: list[str], make: Callable[[], T]) -> T | None:
        try:
            return make()
        except EarTeachError as error:
            missing.update(dict.fromkeys(names, f"Not shown: {error}"))
            return None

    measured = attempt(["quality", "reconstructions"], lambda: _evaluate(model, config))
    array, evaluation = measured or (None, None)
    new = attempt(["samples"], lambda: new_ears(model, _SAMPLES, seed, config.batch_size))
    directions = attempt(
        ["directions"], lambda: sections.directions(model, new, evaluation, config.batch_size)
    )
    trained, summary = model.checkpoint, evaluation.summary if evaluation else None
    content = _render(
        name=f"{trained.path.absolute().parent.name}/{trained.path.name}",
        version=__version__,
        missing=missing,
        trained=trained,
        config=trained.config,
        parameters=sum(value.numel() for value in model.network.parameters()),
        epochs=epochs[-1].epoch + 1 if epochs else trained.epochs_completed,
        advice=recorded_advice(trained.state),
        evaluation=summary,
        total=len(array) if array else 0,
        charts=sections.charts(epochs, trained, evaluation),
        reconstructions=measured and sections.reconstructions(model, *measured, config.batch_size),
        samples=new and sections.samples(new),
        seed=seed,
        directions=directions,
        groups=GROUPS,
        data=sections.data(model),
    )
    return evaluation, content


def _render(**values: Any) -> bytes:
    """The page; all values but Markup are escaped."""
    loader = PackageLoader("earteach", "inference")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["number"] = number
    # File names may hold bytes that are not text.
    return environment.get_template("report.html").render(values).encode(errors="replace")


def _refuse_foreign_page(path: Path) -> None:
    """Raise `EarTeachError` if `path` is a folder, or a file that `report` did not write."""
    if path.is_dir():
        raise EarTeachError(f"--out {path}: is a folder; name a file, such as {path / REPORT_PAGE}")
    refuse_foreign(path, lambda path: carries(path, _MARK), "report", "--out")


def _evaluate(model: LoadedModel, config: InferenceConfig) -> tuple[EarArray, DetailedEvaluation]:
    path = model.checkpoint.config.data.val_data
    if not path.exists():
        raise EarTeachError(f"the validation images, {path}, are gone")
    array = model.open_data(None, None)
    return array, evaluate_model(model, array, config, max_images=MAX_IMAGES)


def _write_animation(
    model: LoadedModel, epochs: Sequence[EpochMetrics], reason: str | None, path: Path
) -> Animation:
    check_animation(path)
    try:
        if reason is not None:
            raise EarTeachError(reason)
        sheets = read_validation_ears(model.checkpoint, epochs)
    except EarTeachError as error:
        raise EarTeachError(f"--gif {path}: {error}; leave out --gif") from error
    make_writable_folder(path.parent, f"--gif {path}")
    content, frames = animate(sheets, model.checkpoint.config.optim.epochs, path)
    write_atomically(path, lambda partial: partial.write_bytes(content))
    return Animation(path, len(content), frames)
