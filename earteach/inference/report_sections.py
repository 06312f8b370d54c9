"""The sections of a run's page, as the values that its template shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from earteach.charts import Chart, chart, number
from earteach.checkpoint import Checkpoint
from earteach.config import GROUPS, Layout, TrainConfig
from earteach.data.arrays import EarArray, sampled_rows, to_channels
from earteach.errors import EarTeachError
from earteach.images import to_uint8
from earteach.inference.evaluate import Appraisal
from earteach.inference.evaluation import Evaluation, Intervals, Margin
from earteach.inference.evaluation_files import tiles
from earteach.inference.latent_traversal import traverse_axes
from earteach.inference.loaded_model import LoadedModel
from earteach.inference.report_page import Picture, picture
from earteach.inference.run_record import RunRecord
from earteach.inference.sample import NewEars
from earteach.inspection import ArrayReport, Inspection, inspect_data
from earteach.metrics.bootstrap import Interval
from earteach.metrics.eigenears import Eigenears
from earteach.model.annealing import kld_weight

_PICTURED, _DIRECTIONS, _STEPS = 6, 6, 7
_LARGEST, _SMALL = 192, 96
_NONE = "–"
# A row of the table of epochs: what it shows of an epoch's metrics, and how.
_COLUMNS = {
    "loss": ("train/loss", "{:.6f}"),
    "validation loss": ("val/loss", "{:.6f}"),
    "PSNR": ("val/psnr", "{:.2f} dB"),
    "SSIM": ("val/ssim", "{:.4f}"),
    "KLD": ("val/kld", "{:.1f} nats"),
    "learning rate": ("lr", "{:.2e}"),
}


def verdict(seen: Appraisal | None, found: Checkpoint, of: int) -> dict[str, str]:
    """The one line that says how good the network is, and beside what."""
    if seen is None:
        return {"tone": "", "word": "", "text": _as_trained(found)}
    result = seen.evaluation
    images = f"on {_some(result.images, of)} validation images"
    text = f"{result.metrics.psnr:.2f} dB PSNR and {result.metrics.ssim:.4f} SSIM"
    if result.baselines is None or result.over_pca is None:
        return {"tone": "", "word": "", "text": f"{text} {images}; PCA could not be measured."}
    pca = result.baselines.pca
    places = [result.over_pca.psnr.standing, result.over_pca.ssim.standing]
    word = (
        f"{places[0]} PCA" if places[0] == places[1]
        else f"{places[0]} PCA in PSNR, {places[1]} it in SSIM"
    )  # fmt: skip
    tone = next(
        (tone for tone in ("ahead", "behind") if {tone} == {p.split()[0] for p in places}), ""
    )
    beside = f"PCA with {pca.components} components has {pca.psnr:.2f} dB and {pca.ssim:.4f}"
    return {"tone": tone, "word": word[0].upper() + word[1:], "text": f"{text} {images}; {beside}."}


def _as_trained(found: Checkpoint) -> str:
    measured = found.about.get("metrics") or {}
    if "val/psnr" not in measured:
        return "Its quality is not known."
    psnr, ssim = measured["val/psnr"], measured["val/ssim"]
    return f"{psnr:.2f} dB PSNR and {ssim:.4f} SSIM when it was trained."


def _some(count: int, of: int) -> str:
    return f"{count:,}" if count == of else f"{count:,} of {of:,} evenly spread"


def scores(result: Evaluation, of: int) -> dict[str, Any]:
    """The table of this network beside the yardsticks: of each cell the value and its interval."""
    m = result.metrics
    rows = [("this network", *_score(m.psnr, m.ssim, result.intervals))]
    if result.baselines is not None:
        pca, mean = result.baselines.pca, result.baselines.mean_image
        named = ((f"PCA, {pca.components} components", pca), ("mean training image", mean))
        rows += [(name, *_score(s.psnr, s.ssim, s.intervals)) for name, s in named]
    if (over := result.over_pca) is not None:
        margins = (_margin(over.psnr, "+.2f", " dB"), _margin(over.ssim, "+.4f"))
        rows.append(("this network over PCA", *margins))
    return {
        "on": f"Measured on {_some(result.images, of)} images of {result.data}.",
        "columns": ("", "PSNR", "SSIM"),
        "rows": rows,
        "code": f"{m.active_units} of {m.latent_dim} units are active; the KLD is {m.kld:.1f} nats.",
    }


def _score(
    psnr: float, ssim: float, intervals: Intervals
) -> tuple[tuple[str, str], tuple[str, str]]:
    return (
        (f"{psnr:.2f} dB", _range(intervals.psnr, ".2f")),
        (f"{ssim:.4f}", _range(intervals.ssim, ".4f")),
    )


def _margin(margin: Margin, form: str, unit: str = "") -> tuple[str, str]:
    interval = None if margin.low is None or margin.high is None else (margin.low, margin.high)
    return f"{margin.difference:{form}}{unit}", _range(interval, form)


def _range(interval: Interval | None, form: str) -> str:
    return "" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"


def charts(record: RunRecord, found: Checkpoint, seen: Appraisal | None) -> list[Chart]:
    """The curves over the epochs, which count from 1 here."""
    baselines = seen.evaluation.baselines if seen else None
    pca = (
        {"psnr": {"PCA": baselines.pca.psnr}, "ssim": {"PCA": baselines.pca.ssim}}
        if baselines
        else {}
    )
    mark = found.epochs_completed
    training, validation = "training", "validation"

    def curve(title: str, name: str = "", levels: str = "", **others: str) -> Chart | None:
        names = {training: f"train/{name}", validation: f"val/{name}"} if name else others
        series = {label: _series(record, key) for label, key in names.items()}
        return chart(title, series, levels=pca.get(levels), mark=mark)

    epochs, kld = found.config.optim.epochs, found.config.kld
    schedule = [(epoch + 1.0, kld_weight(epoch, epochs, kld)) for epoch in range(epochs)]
    drawn = [
        curve("Loss", "loss"),
        curve("Reconstruction loss, mean squared error", "recon_loss"),
        curve("PSNR, dB", levels="psnr", validation="val/psnr"),
        curve("SSIM", "ssim", levels="ssim"),
        curve("KLD, nats", "kld"),
        curve("Active units", validation="val/active_units"),
        curve("Learning rate", **{"at the epoch's end": "lr"}),
        chart("Weight of the KLD", {"schedule": schedule}, mark=mark),
    ]
    return [one for one in drawn if one is not None]


def _series(record: RunRecord, name: str) -> list[tuple[float, float]]:
    return [(e.epoch + 1.0, e.metrics[name]) for e in record.epochs if name in e.metrics]


def epoch_table(record: RunRecord) -> dict[str, Any]:
    """A row for each epoch; columns that no epoch has are left out."""
    shown = {
        title: column
        for title, column in _COLUMNS.items()
        if any(column[0] in epoch.metrics for epoch in record.epochs)
    }
    rows = [
        (
            str(epoch.epoch + 1),
            *(_cell(epoch.metrics.get(key), form) for key, form in shown.values()),
        )
        for epoch in record.epochs
    ]
    return {"columns": ("epoch", *shown), "rows": rows}


def _cell(value: float | None, form: str) -> str:
    return _NONE if value is None or not math.isfinite(value) else form.format(value)


def reconstructions(
    model: LoadedModel, array: EarArray, seen: Appraisal, batch_size: int
) -> dict[str, Any]:
    """The images with the least and the greatest PSNR, from the most extreme on."""
    pca = seen.beside.pca if seen.beside else None
    columns = [
        "input",
        "reconstruction",
        *(["PCA's"] if pca else []),
        "error of the reconstruction",
    ]
    order = np.argsort(seen.quality.psnr, kind="stable")
    count = min(_PICTURED, len(order))
    groups = {"Worst": order[:count], "Best": order[::-1][:count]}
    return {
        "columns": ", ".join(columns),
        "groups": {
            title: [
                picture(
                    squares, largest=_LARGEST, alt=f"image {seen.rows[place]}: {', '.join(columns)}",
                    caption=_of_image(seen, place),
                )
                for place, squares in zip(
                    places, _rows_of_tiles(model, array, seen, places, batch_size), strict=True
                )
            ]
            for title, places in groups.items()
        },
    }  # fmt: skip


def _rows_of_tiles(
    model: LoadedModel, array: EarArray, seen: Appraisal, places: np.ndarray, batch_size: int
) -> Iterator[list[np.ndarray]]:
    pca = seen.beside.pca if seen.beside else None
    squares = list(tiles(model, array, seen.rows[places].tolist(), pca, batch_size))
    columns = len(squares) // len(places)
    return (squares[start : start + columns] for start in range(0, len(squares), columns))


def _of_image(seen: Appraisal, place: int) -> str:
    quality = seen.quality
    text = f"image {seen.rows[place]}: {quality.psnr[place]:.2f} dB, {quality.ssim[place]:.3f}"
    if seen.beside is None:
        return text
    pca = seen.beside.pca.quality
    return f"{text}; PCA {pca.psnr[place]:.2f} dB, {pca.ssim[place]:.3f}"


def samples(new: NewEars, seed: int) -> dict[str, Any]:
    """New ears, each over its nearest training image."""
    source = "the prior" if new.mixture is None else (
        f"a mixture of {new.mixture.components} Gaussians of the training images' codes"
    )  # fmt: skip
    note = f"Drawn from {source}, with seed {seed}."
    if new.neighbours is not None:
        ours = float(np.median([entry.distance for entry in new.neighbours.nearest]))
        note += f" Below each ear is its nearest training image, at a median distance of {ours:.3f}"
        if (unseen := new.neighbours.validation_distance) is not None:
            note += f"; validation images are at {unseen:.3f} from theirs"
        note += ". Ears that are much nearer were not made up but remembered."
    pictures = [
        picture([tile], largest=_SMALL, alt=f"new ear {place}")
        for place, tile in enumerate(new.tiles, start=1)
    ]
    return {"note": note, "pictures": pictures}


def directions(
    model: LoadedModel, new: NewEars | None, fitted: Eigenears | None, batch_size: int
) -> list[tuple[Picture, ...]]:
    """Eigenears beside the network's directions, in the order of what they explain.

    Raises `EarTeachError` where there is neither.
    """
    columns = []
    if fitted is not None:
        columns.append(_eigenears(fitted, model.checkpoint.config))
    if new is not None and new.mixture is not None:
        columns.append(_network_directions(model, new, batch_size))
    if not columns:
        raise EarTeachError(
            "neither the training images nor a kept mixture of their codes is there"
        )
    return list(zip(*columns, strict=False))


def _eigenears(fitted: Eigenears, config: TrainConfig) -> list[Picture]:
    size, channels = config.model.image_size, config.model.in_channels
    steps = np.linspace(-3, 3, _STEPS, dtype=np.float32)[:, None]
    total = max(float(fitted.variances.sum()), 1e-30)
    drawn = []
    for place in range(min(_DIRECTIONS, fitted.count)):
        along = steps * np.sqrt(fitted.variances[place]) * fitted.components[place]
        ears = torch.from_numpy(fitted.mean + along).reshape(-1, channels, size, size)
        share = float(fitted.variances[place]) / total
        drawn.append(_strip(list(to_uint8(ears)), f"Eigenear {place + 1}", share))
    return drawn


def _network_directions(model: LoadedModel, new: NewEars, batch_size: int) -> list[Picture]:
    assert new.mixture is not None
    count = min(_DIRECTIONS, len(new.mixture.axes))
    _, ears = traverse_axes(model, new.mixture, count, _STEPS, batch_size)
    rows = np.split(ears, count) if count else []
    return [
        _strip(list(row), f"The network's direction {place + 1}", float(new.mixture.shares[place]))
        for place, row in enumerate(rows)
    ]


def _strip(ears: Sequence[np.ndarray], title: str, share: float) -> Picture:
    alt = f"{title}, from −3 to +3 standard deviations"
    return picture(list(ears), largest=_SMALL, alt=alt, caption=f"{title}: {100 * share:.1f} %")


def configuration(config: TrainConfig) -> list[dict[str, Any]]:
    """The options in their groups; `default` is given where the value is another."""
    groups = []
    for name, group in GROUPS.items():
        options = [
            {
                "flag": option.flag,
                "help": option.opt.help,
                "value": _plain(value := getattr(getattr(config, name), option.name)),
                # Everyone's paths are others.
                "default": None
                if value == option.default or isinstance(value, Path)
                else _plain(option.default),
            }
            for option in group.option_fields()
        ]
        groups.append({"title": group.panel, "options": options})
    return groups


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def arrays(found: Checkpoint) -> dict[str, Any]:
    """What the run's arrays hold, whether they are still those of the training, what is wrong there."""
    data = found.config.data
    named = {"train": ("Training", data.train_data), "val": ("Validation", data.val_data)}
    inspected = _inspected([path for _, path in named.values() if path.exists()], data.layout)
    reports = (
        {report.path: report for report in (inspected.train, inspected.val) if report}
        if inspected
        else {}
    )
    both = inspected is not None and inspected.val is not None
    return {
        "tables": [
            _array(title, path, found, key, reports.get(str(path)))
            for key, (title, path) in named.items()
        ],
        "leakage": f"{inspected.leakage.exact:,} exactly, {inspected.leakage.near:,} nearly"
        if inspected and both
        else "",
        "problems": inspected.problems if inspected and both else (),
    }


def _inspected(paths: Sequence[Path], layout: Layout | None) -> Inspection | None:
    """Of both arrays, or of the one that is still there."""
    try:
        return inspect_data(*paths, layout=layout) if paths else None
    except EarTeachError:  # each array's state says what is wrong with it
        return None


def _array(
    title: str, path: Path, found: Checkpoint, key: str, seen: ArrayReport | None
) -> dict[str, Any]:
    facts = {"array": str(path)}
    try:
        array = EarArray.open(path, found.config.data.layout)
        before = found.about.get("data", {}).get(key)
        same = before is None or before == array.fingerprint()
        size, channels = found.config.model.image_size, found.config.model.in_channels
        ears = [
            to_channels(array.image(int(row), size=size, channels=channels), 3)
            for row in sampled_rows(len(array), _STEPS)
        ]
    except EarTeachError as error:
        return {"title": title, "facts": {**facts, "state": str(error)}, "picture": None}
    facts |= {
        "images": f"{len(array):,}",
        "size": f"{array.width}×{array.height}, {array.channels} channels",
        "stored as": f"{array.layout}, {array.dtype}",
        **(_levels(seen) if seen else {}),
        "state": "as in training" if same else "has changed since training",
    }
    shown = picture(ears, largest=_SMALL, alt=f"some images of {path.name}")
    return {"title": title, "facts": facts, "picture": shown}


def _levels(seen: ArrayReport) -> dict[str, str]:
    def levels(values: Sequence[float] | None) -> str:
        return _NONE if values is None else ", ".join(f"{255 * value:.1f}" for value in values)

    def stored(value: float | None) -> str:
        return _NONE if value is None else f"{value:.4g}"

    return {
        "range": f"{stored(seen.min)} to {stored(seen.max)}",
        "mean": levels(seen.channel_means),
        "deviation": levels(seen.channel_stds),
        "NaN or infinite": f"{seen.non_finite:,}",
        "constant": f"{seen.constant:,}",
        "exact repeats": f"{seen.duplicates:,}",
    }


def about(model: LoadedModel, record: RunRecord) -> str:
    """What the network is and how far it was trained, in one line."""
    config, found = model.checkpoint.config, model.checkpoint
    parameters = sum(value.numel() for value in model.network.parameters())
    size, channels = config.model.image_size, config.model.in_channels
    last = max((epoch.epoch + 1 for epoch in record.epochs), default=found.epochs_completed)
    return (
        f"An EarVAE for ears of {size}×{size}×{channels}, {config.model.latent_dim} numbers in a "
        f"code, {parameters:,} parameters. This checkpoint is from after epoch "
        f"{found.epochs_completed} and step {number(found.global_step)}; the run has {last} of "
        f"{config.optim.epochs} epochs behind it."
    )
