"""The report of a benchmark: tables, and a sheet of reconstructions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.quality.results import Results
from benchmarks.quality.settings import SHEET_FILE
from benchmarks.tables import Cell, Table
from earteach.images import side_by_side, write_png

_LABEL_WIDTH, _PAPER, _INK = 90, 255, 0
_SHOWN_SIDE = 128

Row = Mapping[str, Any]

_LIKENESS = ("frechet", "kernel", "precision", "recall", "two_sample")


def write_report(results: Results, out: Path, originals: np.ndarray) -> None:
    """Write `table.md` and `sheet.png`; `originals` are the sheet's ears, uint8 `(N, S, S, 3)`."""
    (out / "table.md").write_text(markdown(results), encoding="utf-8")
    decoded = {name: np.load(out / name / SHEET_FILE) for name in results.rows}
    write_png(out / "sheet.png", sheet({"input": originals, **decoded}))


def markdown(results: Results) -> str:
    return "\n".join(table.markdown() for table in tables(results).values())


def tables(results: Results) -> dict[str, Table]:
    """Final scores, scores over time and distances of new ears, named with the latent dimension."""
    rows = list(results.rows.values())
    arrays = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    quality = {"PSNR": ".2f", "SSIM": ".4f"}
    scores = {f"{array} {metric}": quality[metric] for array in arrays for metric in quality}
    active = {f"{array} active units": "" for array in arrays}
    latent_dim = results.settings["latent_dim"]
    return {
        f"quality-{latent_dim}": _table(
            results,
            {"model": "", "parameters": "", "images/s": ".0f", "minutes": ".1f", **scores, **active},
            [
                [
                    row["model"], _parameters(row["parameters"], row["fitted"]),
                    row["images_per_second"], row["seconds"] / 60, *_scores(row["scores"], arrays),
                    *(row["scores"][array]["active_units"] for array in arrays),
                ]
                for row in rows
            ],
        ),
        f"curve-{latent_dim}": _table(
            results,
            {"model": "", "minutes": ".1f", **scores},
            [
                [row["model"], point["seconds"] / 60, *_scores(point["scores"], arrays)]
                for row in rows
                for point in row["curve"]
            ],
        ),
        f"samples-{latent_dim}": _table(
            results,
            {
                "model": "", "ears": "", "Fréchet distance": ".3f", "kernel distance": ".5f",
                "precision": ".2f", "recall": ".2f", "two-sample accuracy": ".2f",
            },
            [
                [row["model"], name, *map(measured.get, _LIKENESS)]
                for row in rows
                for name, measured in row["samples"].items()
            ],
        ),
    }  # fmt: skip


def _scores(scores: Mapping[str, Any], arrays: Sequence[str]) -> Iterator[float]:
    for array in arrays:
        yield from (scores[array]["psnr"], scores[array]["ssim"])


def _table(results: Results, columns: Mapping[str, str], rows: Sequence[Sequence[Cell]]) -> Table:
    latest = max(results.rows.values(), key=lambda row: row["date"])
    m = latest["machine"]
    device = m["gpu"] or f"{m['cpu']}, {m['cores']} cores, {m['threads']} threads"
    commit = f" ({m['commit']})" if m["commit"] else ""
    machine = f"{device}, torch {m['torch']}, earteach {m['earteach']}{commit}"
    return Table(columns, rows, latest["command"], machine, latest["date"])


def _parameters(trained: int, fitted: int) -> str:
    """In millions: those trained by gradient, and those fitted if they are more than a few."""
    parts = [f"{trained / 1e6:.2f} M"] if trained else []
    if fitted >= 50_000:
        parts.append(f"{fitted / 1e6:.2f} M fitted")
    return " + ".join(parts) or "0"


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
