"""Image arrays: conversion to and from tensors, grids, heat maps, and PNG files tagged as ours."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from earteach.files.atomic_write import write_atomically
from earteach.files.overwrite_guard import refuse_foreign

_SOFTWARE = "earteach"
_WHITE = 255
_LINE_HEIGHT = 13  # pixels
# Five times as fast as Pillow's defaults, for files that are an eighth larger.
_FAST = {"compress_level": 1, "compress_type": zlib.Z_RLE}
# Black, red, yellow, white.
_HEAT_COLOURS = np.clip(np.arange(766)[:, None] - [0, 255, 510], 0, 255).astype(np.uint8)


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """Convert float `(B, C, H, W)` in [0, 1], clipped, to uint8 `(B, H, W, C)`."""
    scaled = images.detach().float().cpu().clamp(0, 1).mul(255).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().numpy()


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Convert uint8 in [0, 255] to float32 in [0, 1], on the tensor's own device."""
    return images.to(torch.float32).div_(255)


def heat_map(error: np.ndarray, full_scale: float = 0.25) -> np.ndarray:
    """Colour error `(H, W)` in [0, 1] from black at 0 to white at `full_scale`, uint8 `(H, W, 3)`."""
    return _HEAT_COLOURS[np.clip(error * (765 / full_scale) + 0.5, 0, 765).astype(np.uint16)]


def grid(images: Sequence[np.ndarray], columns: int, padding: int = 2) -> np.ndarray:
    """Lay out uint8 images of one shape `(H, W, C)` row by row on white."""
    height, width, channels = images[0].shape
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    shape = (rows * (height + padding) + padding, columns * (width + padding) + padding, channels)
    sheet = np.full(shape, _WHITE, np.uint8)
    for index, image in enumerate(images):
        top = padding + index // columns * (height + padding)
        left = padding + index % columns * (width + padding)
        sheet[top : top + height, left : left + width] = image
    return sheet


def side_by_side(images: Sequence[np.ndarray], padding: int = 2) -> np.ndarray:
    """Lay out uint8 images of one height and width from left to right; gray ones become RGB."""
    rgb = [np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image for image in images]
    return grid(rgb, columns=len(rgb), padding=padding)


def with_caption(image: np.ndarray, *lines: str) -> np.ndarray:
    """Put lines of text on white below a uint8 image `(H, W, 3)`, each cut to its width."""
    caption = Image.new("RGB", (image.shape[1], _LINE_HEIGHT * len(lines) + 3), (_WHITE,) * 3)
    draw = ImageDraw.Draw(caption)
    font = ImageFont.load_default(_LINE_HEIGHT - 2)
    for row, line in enumerate(lines):
        draw.text((2, row * _LINE_HEIGHT), line, fill=(0, 0, 0), font=font)
    return np.concatenate([image, np.asarray(caption)])


def write_png(path: Path, image: np.ndarray, metadata: Mapping[str, str] | None = None) -> None:
    """Write uint8 `(H, W, 1 or 3)` as a PNG with `metadata` in its text fields.

    Raises `EarTeachError` instead of replacing a file that this function did not write.
    """
    check_overwrite(path)
    text = PngInfo()
    for key, value in {"Software": _SOFTWARE, **(metadata or {})}.items():
        # A file name may hold bytes that are not valid text.
        text.add_text(key, value.encode(errors="replace").decode())
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    write_atomically(
        path, lambda partial: picture.save(partial, format="PNG", pnginfo=text, **_FAST)
    )


def check_overwrite(path: Path) -> None:
    """Raise `EarTeachError` if `path` exists and `write_png` did not write it."""
    refuse_foreign(path, is_own_png)


def is_own_png(path: Path) -> bool:
    """Whether `write_png` wrote the file."""
    try:
        with Image.open(path) as image:
            return image.info.get("Software") == _SOFTWARE
    except (OSError, ValueError, Image.DecompressionBombError):
        return False


def remove_stale(folder: Path, pattern: str, keep: Sequence[Path]) -> None:
    """Delete PNGs of an earlier call that match `pattern` and are not in `keep`."""
    current = set(keep)
    for path in folder.glob(pattern):
        if path not in current and is_own_png(path):
            path.unlink()
