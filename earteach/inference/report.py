"""A page for each run: one HTML file with all that can be seen of it.

>>> report("checkpoints").path
PosixPath('checkpoints/report.html')
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from earteach._version import __version__
from earteach.config import InferenceConfig
from earteach.data.arrays import EarArray
from earteach.errors import EarTeachError
from earteach.files.atomic_write import write_atomically
from earteach.inference import report_sections as sections
from earteach.inference.animation import animation, check_animation
from earteach.inference.evaluate import Appraisal, appraise, open_array
from earteach.inference.loaded_model import LoadedModel, load_model
from earteach.inference.report_page import prepare, refuse_foreign_page, render
from earteach.inference.run_record import RunRecord, read_ears, read_record
from earteach.inference.sample import new_ears
from earteach.inference.samplers import find_source

PAGE = "report.html"
# Enough for a mean; more only takes longer.
MOST_IMAGES = 512
_SAMPLES = 16
_TITLES = {
    "quality": "Quality",
    "advice": "What to change",
    "curves": "Curves",
    "reconstructions": "Reconstructions",
    "samples": "New ears",
    "directions": "Directions",
    "configuration": "Configuration",
    "data": "Data",
}
T = TypeVar("T")


@dataclass(frozen=True)
class Animation:
    """The animated picture of the epochs."""

    path: Path
    bytes: int
    frames: int


@dataclass(frozen=True)
class Report:
    """What was written. `images` were measured, 0 where the validation array is gone.

    `missing` says for each section that is not whole what it lacks.
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
    config: InferenceConfig | None = None,
) -> Report:
    """Write the page of a run: a checkpoint, or a folder's best, with its logs and arrays.

    `out` is `report.html` beside the checkpoint where it is left out. Where logs or arrays are gone
    the page says so and shows the rest. At most 512 evenly spread validation images are measured.
    `gif` is a `.gif` or `.webp` for the fixed validation ears from epoch to epoch.

    Raises `EarTeachError` for a checkpoint that cannot be read, for files in the way that are not
    earteach's, and for `gif` where the logs are gone.
    """
    began = time.monotonic()
    config = config or InferenceConfig()
    model = load_model(Path(run), config)
    path = out or model.checkpoint.path.with_name(PAGE)
    refuse_foreign_page(path)
    prepare(path, "--out")
    record = read_record(model.checkpoint)
    moving = None if gif is None else _write_animation(model, record, gif)
    why: dict[str, str] = {}
    if record.missing is not None:
        why["curves"] = f"{record.missing}. These are the losses that the checkpoint keeps."
    seen, values = _values(model, record, seed, config.batch_size, why)
    content = render(values)
    write_atomically(path, lambda partial: partial.write_bytes(content))
    return Report(
        checkpoint=model.checkpoint.path,
        path=path,
        bytes=len(content),
        gif=moving,
        epochs=len(record.epochs),
        images=seen.evaluation.images if seen else 0,
        psnr=seen.evaluation.metrics.psnr if seen else None,
        ssim=seen.evaluation.metrics.ssim if seen else None,
        missing=why,
        seconds=time.monotonic() - began,
    )


def _write_animation(model: LoadedModel, record: RunRecord, path: Path) -> Animation:
    check_animation(path)
    try:
        sheets = read_ears(record)
    except EarTeachError as error:
        raise EarTeachError(f"--gif {path}: {error}; leave out --gif") from error
    prepare(path, "--gif")
    content, frames = animation(sheets, model.checkpoint.config.optim.epochs, path)
    write_atomically(path, lambda partial: partial.write_bytes(content))
    return Animation(path, len(content), frames)


def _values(
    model: LoadedModel, record: RunRecord, seed: int, batch_size: int, why: dict[str, str]
) -> tuple[Appraisal | None, dict[str, Any]]:
    """What was measured, and the values of the template; `why` takes what each section lacks."""
    found = model.checkpoint
    array = _unless(why, ["quality", "advice", "reconstructions"], lambda: _validation(model))
    seen, shown = _measured(model, array, batch_size, why)
    source = find_source(model, None)
    new = _unless(
        why,
        ["samples"],
        lambda: new_ears(
            model, source, _SAMPLES, seed=seed, nearest=source is not None, batch_size=batch_size
        ),
    )
    fitted = seen.beside.pca.fitted if seen and seen.beside else None
    return seen, {
        "name": f"{found.path.absolute().parent.name}/{found.path.name}",
        "checkpoint": str(found.path),
        "version": __version__,
        "about": sections.about(model, record),
        "verdict": sections.verdict(seen, found, len(array) if array else 0),
        "sections": _TITLES,
        "why": why,
        "scores": sections.scores(seen.evaluation, len(array)) if seen and array else None,
        "advice": seen.evaluation.advice if seen else (),
        "curves_note": _CURVES,
        "charts": sections.charts(record, found, seen),
        "epochs": sections.epoch_table(record),
        "reconstructions": shown,
        "samples": sections.samples(new, seed) if new else {"note": "", "pictures": []},
        "directions": _unless(
            why, ["directions"], lambda: sections.directions(model, new, fitted, batch_size)
        ),
        "configuration": sections.configuration(found.config),
        "arrays": sections.arrays(found),
    }


def _validation(model: LoadedModel) -> EarArray:
    path = model.checkpoint.config.data.val_data
    if not path.exists():
        raise EarTeachError(f"the validation images, {path}, are gone")
    return open_array(model)


_CURVES = (
    "The dotted line is this checkpoint. Losses in training are on augmented images, at the weight of "
    "the KLD of each epoch; in validation at its final weight. PCA is dashed."
)


def _measured(
    model: LoadedModel, array: EarArray | None, batch_size: int, why: dict[str, str]
) -> tuple[Appraisal | None, dict[str, Any] | None]:
    """The network on the validation images, and the best and the worst of them."""
    if array is None:
        return None, None
    seen = _unless(
        why,
        ["quality", "advice", "reconstructions"],
        lambda: appraise(model, array, most=MOST_IMAGES, batch_size=batch_size),
    )
    if seen is None:
        return None, None
    return seen, sections.reconstructions(model, array, seen, batch_size)


def _unless(why: dict[str, str], names: list[str], made: Callable[[], T]) -> T | None:
    """What `made` gives; None where it cannot, and then `why` says so for these sections."""
    try:
        return made()
    except EarTeachError as error:
        why.update(dict.fromkeys(names, f"Not shown: {error}"))
        return None
