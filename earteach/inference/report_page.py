"""A report as one HTML file that needs no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from earteach.data.arrays import resized
from earteach.errors import EarTeachError
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


def picture(tiles: Sequence[np.ndarray], *, max_side: int, alt: str, caption: str = "") -> Picture:
    """Tiles, uint8 `(H, S, C)`, from left to right, with transparent gaps.

    A tile holds square images one above the other; each is shrunk to `max_side` pixels if larger.
    """
    side = min(max_side, tiles[0].shape[1])
    sheet = []
    for tile in tiles:
        squares = np.split(tile, tile.shape[0] // tile.shape[1])
        opaque = np.concatenate([resized(square, side) for square in squares])
        rgba = np.full((opaque.shape[0], side + _GAP, 4), 255, np.uint8)
        rgba[:, :side, :3], rgba[:, side:] = opaque, 0
        sheet.append(rgba)
    pixels = np.concatenate(sheet, axis=1)[:, :-_GAP]
    if len(tiles) == 1:
        pixels = pixels[..., :3]  # nothing is transparent
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, format="PNG", optimize=True)
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return Picture(source, pixels.shape[1], pixels.shape[0], alt, caption)


def render(**values: Any) -> bytes:
    """The page; all values but Markup are escaped."""
    environment = Environment(
        loader=PackageLoader("earteach", "inference"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # File names may hold bytes that are not text.
    return environment.get_template("report.html").render(values).encode(errors="replace")


def refuse_foreign_page(path: Path) -> None:
    """Raise `EarTeachError` if `path` is a folder, or a file that `render` did not write."""
    if path.is_dir():
        raise EarTeachError(
            f"--out {path}: is a folder; name a file, such as {path / 'report.html'}"
        )
    if path.exists() and not carries(path, _MARK):
        raise foreign(path, "report", "--out")
