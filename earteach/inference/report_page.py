"""A run's report as one HTML file that needs nothing beside itself."""

from __future__ import annotations

import base64
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from earteach.charts import STYLE
from earteach.data.arrays import resized
from earteach.errors import EarTeachError
from earteach.files.folders import make_folder
from earteach.files.overwrite_guard import carries, foreign

_MARK = '<meta name="generator" content="earteach">'
_GAP = 3


@dataclass(frozen=True)
class Picture:
    """A PNG inside the page."""

    source: str
    width: int
    height: int
    alt: str
    caption: str = ""


def picture(tiles: list[np.ndarray], *, largest: int, alt: str, caption: str = "") -> Picture:
    """Square images, uint8 `(S, S, C)`, left to right, each of `largest` pixels a side at most.

    What lies between them is transparent: the page may be light or dark.
    """
    side = min(largest, tiles[0].shape[1])
    shrunk = [_shrunk(tile, side) for tile in tiles]
    height = shrunk[0].shape[0]
    sheet = np.zeros((height, len(shrunk) * (side + _GAP) - _GAP, 4), np.uint8)
    for place, tile in enumerate(shrunk):
        left = place * (side + _GAP)
        sheet[:, left : left + side, :3] = tile
        sheet[:, left : left + side, 3] = 255
    file = io.BytesIO()
    whole = sheet if len(shrunk) > 1 else np.ascontiguousarray(sheet[..., :3])
    Image.fromarray(whole).save(file, format="PNG", optimize=True)
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return Picture(source, sheet.shape[1], height, alt, caption)


def _shrunk(tile: np.ndarray, side: int) -> np.ndarray:
    """A tile is as wide as an ear, and as high as one or more."""
    ears = np.split(tile, tile.shape[0] // tile.shape[1])
    return np.concatenate([resized(ear, side) for ear in ears])


def render(values: dict[str, Any]) -> bytes:
    """The page of these values, each of which is escaped."""
    environment = Environment(
        loader=PackageLoader("earteach", "inference"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("report.html").render(values, chart_style=STYLE)
    # A file name may hold bytes that are no text.
    return text.encode(errors="replace")


def refuse_foreign_page(path: Path) -> None:
    """Raise `EarTeachError` where `path` exists and is no page that `render` made."""
    if path.is_dir():
        raise EarTeachError(
            f"--out {path}: is a folder; name a file, such as {path / 'report.html'}"
        )
    if path.exists() and not carries(path, _MARK):
        raise foreign(path, "report", "--out")


def prepare(path: Path, option: str) -> None:
    """Make the file's folder, before the long work; `EarTeachError` where it cannot be written."""
    make_folder(path.parent)
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise EarTeachError(
            f"{option} {path}: cannot be written: {error.strerror}; choose another"
        ) from error
