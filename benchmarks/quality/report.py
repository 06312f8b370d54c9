"""The report of a benchmark: a table, a curve over time, a sheet of reconstructions."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.quality.results import Results
from benchmarks.quality.settings import MODELS, SHEET_FILE
from earteach.images import side_by_side, write_png

_LABEL_WIDTH, _PAPER, _INK = 90, 255, 0
_SHOWN_SIDE = 128
_MARGIN = {"psnr": 1.0, "ssim": 0.03}
_log = logging.getLogger("benchmarks.quality")

Row = Mapping[str, Any]


def write_report(results: Results, out: Path, originals: np.ndarray) -> str:
    """Write `table.md`, `curve.csv`, `curve.png` and `sheet.png` into `out`; gives the table's text.

    `originals` are the sheet's ears, uint8 `(N, S, S, 3)`.
    """
    text = table(results)
    (out / "table.md").write_text(text, encoding="utf-8")
    write_curve(results.rows, out / "curve.csv")
    draw_curve(results.rows, out / "curve.png")
    decoded = {name: np.load(out / name / SHEET_FILE) for name in results.rows}
    write_png(out / "sheet.png", sheet({"input": originals, **decoded}))
    return text


def table(results: Results) -> str:
    """Reconstruction and samples as two Markdown tables, with machine, date and command."""
    rows, settings = list(results.rows.values()), results.settings
    parts = [
        f"# {settings['minutes']:g} minutes each, {settings['latent_dim']} numbers, "
        f"{settings['image_size']} pixels",
        _markdown(*_reconstruction(rows)),
    ]
    if any(row["samples"] for row in rows):
        parts += [
            f"New ears: GIST distances to {settings['samples']} real ones of the validation arrays "
            "(edges and colours in a grid of 4×4 cells; not FID and KID); smaller is nearer.",
            _markdown(*_samples(rows)),
        ]
    return "\n\n".join([*parts, *_provenance(results)]) + "\n"


def _reconstruction(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    arrays = _arrays(rows)
    heads = ["model", "parameters", "images/s", "minutes"]
    for name in arrays:
        heads += [f"{name} PSNR", f"{name} SSIM", f"{name} active units"]
    lines = []
    for row in rows:
        speed = row["images_per_second"]
        line = [
            row["model"],
            _numbers(row["parameters"], row["fitted"]),
            "–" if speed is None else f"{speed:.0f}",
            f"{row['seconds'] / 60:.1f}",
        ]
        for name in arrays:
            found = row["scores"][name]
            line += [f"{found['psnr']:.2f}", f"{found['ssim']:.4f}", str(found["active_units"])]
        lines.append(line)
    return heads, lines


def _numbers(parameters: int, fitted: int) -> str:
    """Trained parameters in millions, and fitted numbers where they count."""
    parts = [f"{parameters / 1e6:.2f} M"] if parameters else []
    if fitted >= 50_000:
        parts.append(f"{fitted / 1e6:.2f} M fitted")
    return " + ".join(parts) or "0"


def _samples(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    lines = [
        [row["model"], name, f"{found['frechet']:.4g}", f"{found['kernel']:.4g}"]
        for row in rows
        for name, found in row["samples"].items()
    ]
    return ["model", "ears", "Fréchet distance", "kernel distance"], lines


def _markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [heads, ["---", *(["---:"] * (len(heads) - 1))], *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _provenance(results: Results) -> Iterator[str]:
    """Where and when the rows were made, a line for each machine and date, and by which commands."""
    made: dict[str, list[str]] = {}
    for name, row in results.rows.items():
        m = row["machine"]
        processor = (
            m["gpu"]
            or f"{m['cpu']}, {_count(m['cores'], 'core')}, {_count(m['threads'], 'thread')}"
        )
        commit = f" ({m['commit']})" if m["commit"] else ""
        text = f"{processor}, torch {m['torch']}, earteach {m['earteach']}{commit}, {row['date']}"
        made.setdefault(text, []).append(name)
    for text, names in made.items():
        yield f"{', '.join(names)}: {text}."
    for command in dict.fromkeys(
        row["command"] for row in results.rows.values() if "command" in row
    ):
        yield f"`{command}`"
    if "earteach" in results.rows:
        facts = results.rows["earteach"]["facts"]
        yield (
            f"earteach: `{facts['command']}`, {facts['epochs_completed']} epochs, "
            f"{facts['global_step']} steps, {facts['stopped_by']}."
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def write_curve(rows: Mapping[str, Row], path: Path) -> None:
    """Every point of the curve as a line: model, array, seconds, psnr, ssim, active_units."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "array", "seconds", "psnr", "ssim", "active_units"])
        for model, row in rows.items():
            for point in row["curve"]:
                for array, found in point["scores"].items():
                    writer.writerow([
                        model, array, f"{point['seconds']:.1f}", f"{found['psnr']:.4f}",
                        f"{found['ssim']:.5f}", found["active_units"],
                    ])  # fmt: skip


def draw_curve(rows: Mapping[str, Row], path: Path) -> None:
    """PSNR and SSIM over minutes, a column for each array; eigenears are a dashed line.

    The axes begin a little below the lowest of the models' ends: what lies below is cut off.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        _log.info("no curve.png without matplotlib; curve.csv holds its points")
        return
    arrays = _arrays(rows.values())
    figure = Figure(figsize=(5 * len(arrays), 7), layout="constrained")
    axes = figure.subplots(2, len(arrays), squeeze=False, sharex=True)
    for column, array in enumerate(arrays):
        for place, (key, label) in enumerate((("psnr", "PSNR (dB)"), ("ssim", "SSIM"))):
            lowest = min(_draw_lines(axes[place, column], rows, array, key))
            axes[place, column].set_ylim(bottom=lowest - _MARGIN[key])
            axes[place, column].set_ylabel(label)
            axes[place, column].grid(alpha=0.3)
        axes[0, column].set_title(array)
        axes[1, column].set_xlabel("minutes of training")
    axes[0, 0].legend()
    figure.savefig(path, dpi=120)


def _draw_lines(ax: Any, rows: Mapping[str, Row], array: str, key: str) -> list[float]:
    """A line for each model; gives their last values."""
    ends = []
    for model, row in rows.items():
        minutes = [point["seconds"] / 60 for point in row["curve"]]
        values = [point["scores"][array][key] for point in row["curve"]]
        colour = f"C{MODELS.index(model)}"
        if model == "pca":
            ax.axhline(values[-1], linestyle="--", color=colour, label=model)
        else:
            ax.plot(minutes, values, marker="o", markersize=3, color=colour, label=model)
        ends.append(values[-1])
    return ends


def _arrays(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row["scores"]))


def sheet(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Labelled rows of the same ears, uint8 `(H, W, 3)`; small ears are enlarged."""
    lines = []
    for name, ears in rows.items():
        factor = max(1, _SHOWN_SIDE // ears.shape[1])
        large = ears.repeat(factor, axis=1).repeat(factor, axis=2)
        line = side_by_side(list(large))
        lines.append(np.concatenate([_label(name, line.shape[0]), line], axis=1))
    return np.concatenate(lines)


def _label(text: str, height: int) -> np.ndarray:
    picture = Image.new("RGB", (_LABEL_WIDTH, height), (_PAPER,) * 3)
    ImageDraw.Draw(picture).text((6, height // 2 - 6), text, fill=(_INK,) * 3)
    return np.asarray(picture)
