"""The sections of a run's page, as values for its template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markupsafe import Markup

from earteach.charts import Chart, chart, number, svg
from earteach.checkpoint import Checkpoint
from earteach.config import GROUPS, TrainConfig
from earteach.data.arrays import EarArray, sampled_rows, to_channels
from earteach.errors import EarTeachError
from earteach.images import to_uint8
from earteach.inference.evaluate import DetailedEvaluation
from earteach.inference.evaluation_files import comparison_strips
from earteach.inference.latent_traversal import traverse_axes
from earteach.inference.loaded_model import LoadedModel
from earteach.inference.report_page import Picture, picture
from earteach.inference.run_record import RunRecord
from earteach.inference.sample import NewEars
from earteach.inspection import Problem, inspect_data
from earteach.metrics.bootstrap import Interval
from earteach.metrics.eigenears import Eigenears
from earteach.model.annealing import kld_weight

_PICTURED, _DIRECTIONS, _STEPS = 6, 6, 7
_LARGE, _SMALL = 192, 96


def summary(model: LoadedModel, record: RunRecord) -> str:
    """What the network is and how long it was trained, in one paragraph."""
    trained, config = model.checkpoint, model.checkpoint.config
    parameters = sum(value.numel() for value in model.network.parameters())
    size, channels = config.model.image_size, config.model.in_channels
    last = max((epoch.epoch + 1 for epoch in record.epochs), default=trained.epochs_completed)
    return (
        f"{size}×{size}×{channels} images, {config.model.latent_dim} latent dimensions, "
        f"{parameters:,} parameters. Checkpoint after epoch {trained.epochs_completed}, step "
        f"{number(trained.global_step)}; the run has completed {last} of {config.optim.epochs} epochs."
    )


def verdict(
    trained: Checkpoint, evaluation: DetailedEvaluation | None, array: EarArray | None
) -> dict[str, str]:
    """One line: how good the network is, compared with PCA."""
    if evaluation is None or array is None:
        logged = trained.about.get("metrics") or {}
        text = "Its quality is unknown."
        if "val/psnr" in logged:
            text = f"{_quality(logged['val/psnr'], logged['val/ssim'])} in training."
        return {"tone": "", "word": "", "text": text}
    result = evaluation.summary
    metrics, images = result.metrics, _count(result.images, len(array))
    text = f"{_quality(metrics.psnr, metrics.ssim)} on {images} validation images"
    if result.baselines is None or result.over_pca is None:
        return {"tone": "", "word": "", "text": f"{text}; PCA could not be measured."}
    pca = result.baselines.pca
    psnr, ssim = result.over_pca.psnr.standing, result.over_pca.ssim.standing
    word = f"{psnr} PCA" if psnr == ssim else f"{psnr} PCA in PSNR, {ssim} it in SSIM"
    tones = {"ahead of": "ahead", "behind": "behind"}
    tone = tones.get(psnr, "") if psnr == ssim else ""
    text += f"; PCA with {pca.components} components has {_quality(pca.psnr, pca.ssim)}."
    return {"tone": tone, "word": word[0].upper() + word[1:], "text": text}


def _quality(psnr: float, ssim: float) -> str:
    return f"{psnr:.2f} dB PSNR and {ssim:.4f} SSIM"


def _count(count: int, total: int) -> str:
    return f"{count:,}" if count == total else f"{count:,} of {total:,} evenly spread"


def quality(evaluation: DetailedEvaluation, array: EarArray) -> dict[str, Any]:
    """The network beside the baselines: of each cell the value and its interval."""
    result = evaluation.summary
    metrics = result.metrics
    rows: list[tuple[Any, ...]] = [
        (
            name,
            (f"{score.psnr:.2f} dB", _range(intervals.psnr, ".2f")),
            (f"{score.ssim:.4f}", _range(intervals.ssim, ".4f")),
        )
        for name, score, intervals in result.scores()
    ]
    if result.over_pca is not None:
        psnr, ssim = result.over_pca.psnr, result.over_pca.ssim
        rows.append(
            (
                "this model over PCA",
                (f"{psnr.difference:+.2f} dB", _range(psnr.interval, "+.2f")),
                (f"{ssim.difference:+.4f}", _range(ssim.interval, "+.4f")),
            )
        )
    return {
        "data": f"{_count(result.images, len(array))} images of {result.data}",
        "rows": rows,
        "code": f"{metrics.active_units} of {metrics.latent_dim} units are active; the KLD is "
        f"{metrics.kld:.1f} nats.",
    }


def _range(interval: Interval | None, form: str) -> str:
    return "" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"


def charts(
    record: RunRecord, trained: Checkpoint, evaluation: DetailedEvaluation | None
) -> list[tuple[str, Markup]]:
    """Titles and drawings of the curves over epochs, which count from 1 here."""
    baselines = evaluation.summary.baselines if evaluation else None
    pca = vars(baselines.pca) if baselines else {}

    def curve(title: str, keys: dict[str, str], metric: str = "") -> Chart | None:
        series = {
            name: [(e.epoch + 1.0, e.metrics[key]) for e in record.epochs if key in e.metrics]
            for name, key in keys.items()
        }
        levels = {"PCA": pca[metric]} if metric in pca else {}
        return chart(title, series, levels=levels, mark=trained.epochs_completed)

    def both(name: str) -> dict[str, str]:
        return {"training": f"train/{name}", "validation": f"val/{name}"}

    epochs, kld = trained.config.optim.epochs, trained.config.kld
    schedule = [(epoch + 1.0, kld_weight(epoch, epochs, kld)) for epoch in range(epochs)]
    drawn = [
        curve("Loss", both("loss")),
        curve("Reconstruction loss, mean squared error", both("recon_loss")),
        curve("PSNR, dB", {"validation": "val/psnr"}, "psnr"),
        curve("SSIM", both("ssim"), "ssim"),
        curve("KLD, nats", both("kld")),
        curve("Active units", {"validation": "val/active_units"}),
        curve("Learning rate", {"at the end of the epoch": "lr"}),
        chart("KLD weight", {"schedule": schedule}, mark=trained.epochs_completed),
    ]
    return [(each.title, Markup(svg([each]))) for each in drawn if each is not None]


def reconstructions(
    model: LoadedModel, array: EarArray, evaluation: DetailedEvaluation, batch_size: int
) -> dict[str, Any]:
    """The images with the lowest and the highest PSNR, the most extreme first."""
    rows, measured = evaluation.measurement.rows, evaluation.measurement.quality
    baselines = evaluation.baselines
    order = np.argsort(measured.psnr, kind="stable")
    columns = f"input, reconstruction, {'PCA reconstruction, ' if baselines else ''}error"

    def strip(index: int, tiles: list[np.ndarray]) -> Picture:
        name = f"image {rows[index]}"
        caption = f"{name}: {measured.psnr[index]:.2f} dB, {measured.ssim[index]:.3f}"
        if baselines:
            pca = baselines.pca
            caption += f"; PCA {pca.psnr[index]:.2f} dB, {pca.ssim[index]:.3f}"
        return picture(tiles, max_side=_LARGE, alt=f"{name}: {columns}", caption=caption)

    groups = {}
    for title, chosen in (("Worst", order[:_PICTURED]), ("Best", order[::-1][:_PICTURED])):
        strips = comparison_strips(model, array, rows[chosen].tolist(), baselines, batch_size)
        groups[title] = [strip(*each) for each in zip(chosen.tolist(), strips, strict=True)]
    return {"columns": columns, "groups": groups}


def samples(new: NewEars, seed: int) -> dict[str, Any]:
    """New ears, each above its nearest training image."""
    source = "the prior" if new.mixture is None else (
        f"a mixture of {new.mixture.components} Gaussians fitted to the training images' codes"
    )  # fmt: skip
    note = f"Drawn from {source}, with seed {seed}."
    if new.neighbours is not None:
        distance = float(np.median([entry.distance for entry in new.neighbours.nearest]))
        note += (
            f" Below each ear is its nearest training image, at a median distance of {distance:.3f}"
        )
        if (validation := new.neighbours.validation_distance) is not None:
            note += f"; validation images are at {validation:.3f} from theirs"
        note += ". Ears that are much nearer are memorized training images."
    pictures = [
        picture([tile], max_side=_SMALL, alt=f"new ear {index}")
        for index, tile in enumerate(new.tiles, start=1)
    ]
    return {"note": note, "pictures": pictures}


def directions(
    model: LoadedModel,
    new: NewEars | None,
    evaluation: DetailedEvaluation | None,
    batch_size: int,
) -> list[tuple[Picture, ...]]:
    """Eigenears beside the network's directions, by the variance that they explain.

    Raises `EarTeachError` if there are neither.
    """
    columns = []
    if evaluation is not None and evaluation.baselines is not None:
        columns.append(_eigenears(evaluation.baselines.eigenears, model.checkpoint.config))
    if new is not None and new.mixture is not None:
        count = min(_DIRECTIONS, len(new.mixture.axes))
        _, ears = traverse_axes(model, new.mixture, count, _STEPS, batch_size)
        columns.append(
            [
                _strip(ears[index * _STEPS : (index + 1) * _STEPS], f"Network direction {index + 1}",
                       float(new.mixture.shares[index]))
                for index in range(count)
            ]
        )  # fmt: skip
    if not columns:
        raise EarTeachError("the training images are gone, and so is the mixture of their codes")
    return list(zip(*columns, strict=False))


def _eigenears(fitted: Eigenears, config: TrainConfig) -> list[Picture]:
    size, channels = config.model.image_size, config.model.in_channels
    steps = np.linspace(-3, 3, _STEPS, dtype=np.float32)[:, None]
    shares = fitted.variances / max(float(fitted.variances.sum()), 1e-30)
    strips = []
    for index in range(min(_DIRECTIONS, fitted.count)):
        along = steps * np.sqrt(fitted.variances[index]) * fitted.components[index]
        ears = torch.from_numpy(fitted.mean + along).reshape(-1, channels, size, size)
        strips.append(_strip(to_uint8(ears), f"Eigenear {index + 1}", float(shares[index])))
    return strips


def _strip(ears: np.ndarray, title: str, share: float) -> Picture:
    alt = f"{title}, from −3 to +3 standard deviations"
    return picture(list(ears), max_side=_SMALL, alt=alt, caption=f"{title}: {100 * share:.1f} %")


def configuration(config: TrainConfig) -> list[dict[str, Any]]:
    """The options in their groups; `default` is None unless the value differs from it."""
    groups = []
    for name, group in GROUPS.items():
        options = []
        for option in group.option_fields():
            value = getattr(getattr(config, name), option.name)
            # Paths differ in every run.
            same = value == option.default or isinstance(value, Path)
            options.append(
                {
                    "flag": option.flag,
                    "help": option.help,
                    "value": _plain(value),
                    "default": None if same else _plain(option.default),
                }
            )
        groups.append({"title": group.panel, "options": options})
    return groups


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def data(trained: Checkpoint) -> dict[str, Any]:
    """What the run's arrays hold, whether they have changed since training, and their problems."""
    config = trained.config.data
    paths = {"train": config.train_data, "val": config.val_data}
    leakage, problems = "", tuple[Problem, ...]()
    try:
        existing = [path for path in paths.values() if path.exists()]
        inspected = inspect_data(*existing, layout=config.layout) if existing else None
    except EarTeachError:  # the array's state names the error
        inspected = None
    if inspected is not None and inspected.val is not None:
        leakage = f"{inspected.leakage.exact:,} exactly, {inspected.leakage.near:,} nearly"
        problems = inspected.problems
    tables = [_array(trained, name, path) for name, path in paths.items()]
    return {"tables": tables, "leakage": leakage, "problems": problems}


def _array(trained: Checkpoint, name: str, path: Path) -> dict[str, Any]:
    model = trained.config.model
    facts, shown = {"array": str(path)}, None
    try:
        array = EarArray.open(path, trained.config.data.layout)
        ears = _some_ears(array, model.image_size, model.in_channels)
    except EarTeachError as error:
        facts["state"] = str(error)
    else:
        before = trained.about.get("data", {}).get(name)
        same = before is None or before == array.fingerprint()
        facts |= {
            "images": f"{len(array):,}",
            "size": f"{array.width}×{array.height}, {array.channels} channels",
            "stored as": f"{array.layout}, {array.dtype}",
            "state": "as in training" if same else "has changed since training",
        }
        shown = picture(ears, max_side=_SMALL, alt=f"some images of {path.name}")
    return {
        "title": "Training" if name == "train" else "Validation",
        "facts": facts,
        "picture": shown,
    }


def _some_ears(array: EarArray, size: int, channels: int) -> Sequence[np.ndarray]:
    rows = sampled_rows(len(array), _STEPS).tolist()
    return [to_channels(array.image(row, size=size, channels=channels), 3) for row in rows]
