"""Pictures: tensors to uint8, grids, and PNG files that say which tool wrote them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from earteach.files.atomic_write import write_atomically
from earteach.files.overwrite_guard import foreign

_SOFTWARE = "earteach"
_PAPER = 255
_LINE = 13  # pixels
# A fifth of the time of Pillow's defaults, for files that are an eighth larger.
_FAST = {"compress_level": 1, "compress_type": zlib.Z_RLE}
# Black, red, yellow, white.
_HEAT = np.clip(np.arange(766)[:, None] - [0, 255, 510], 0, 255).astype(np.uint8)


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """Float `(B, C, H, W)` in [0, 1] to uint8 `(B, H, W, C)`; values outside are clipped."""
    scaled = images.detach().float().cpu().clamp(0, 1).mul(255).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().numpy()


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 in [0, 255] to float32 in [0, 1], on the tensor's own device."""
    return images.to(torch.float32).div_(255)


def heat(error: np.ndarray, full_scale: float = 0.25) -> np.ndarray:
    """Error `(H, W)` in [0, 1] to an RGB heat map, black at 0 and white from `full_scale` on."""
    return _HEAT[np.clip(error * (765 / full_scale) + 0.5, 0, 765).astype(np.uint16)]


def grid(images: Sequence[np.ndarray], columns: int, gap: int = 2) -> np.ndarray:
    """uint8 images of one shape `(H, W, C)`, row by row, on white."""
    height, width, channels = images[0].shape
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap, channels)
    sheet = np.full(shape, _PAPER, np.uint8)
    for place, image in enumerate(images):
        top = gap + place // columns * (height + gap)
        left = gap + place % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def beside(images: Sequence[np.ndarray], gap: int = 2) -> np.ndarray:
    """uint8 images of one height and width, left to right; gray ones become RGB."""
    coloured = [np.repeat(i, 3, axis=2) if i.shape[2] == 1 else i for i in images]
    return grid(coloured, columns=len(coloured), gap=gap)


def labelled(image: np.ndarray, *lines: str) -> np.ndarray:
    """uint8 `(H, W, 3)` with lines of text below it on white, each cut to the width."""
    strip = Image.new("RGB", (image.shape[1], _LINE * len(lines) + 3), (_PAPER,) * 3)
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(_LINE - 2)
    for place, line in enumerate(lines):
        draw.text((2, place * _LINE), line, fill=(0, 0, 0), font=font)
    return np.concatenate([image, np.asarray(strip)])


def write_png(path: Path, image: np.ndarray, facts: Mapping[str, str] | None = None) -> None:
    """uint8 `(H, W, 1 or 3)` to a PNG whose text fields hold `facts`.

    An existing file is replaced only if it is such a PNG; otherwise `EarTeachError` is raised.
    """
    refuse_foreign(path)
    about = PngInfo()
    for key, value in {"Software": _SOFTWARE, **(facts or {})}.items():
        # A file name may hold bytes that are no text.
        about.add_text(key, value.encode(errors="replace").decode())
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    write_atomically(
        path, lambda partial: picture.save(partial, format="PNG", pnginfo=about, **_FAST)
    )


def refuse_foreign(path: Path) -> None:
    """Raise `EarTeachError` where `path` exists and is not a PNG that this tool wrote."""
    if path.exists() and not is_ours(path):
        raise foreign(path)


def is_ours(path: Path) -> bool:
    """Whether `path` is a PNG that `write_png` wrote."""
    try:
        with Image.open(path) as image:
            return image.info.get("Software") == _SOFTWARE
    except (OSError, ValueError, Image.DecompressionBombError):
        return False  # whatever it is, and however large: ours are plain pictures


def remove_stale(folder: Path, pattern: str, keep: Sequence[Path]) -> None:
    """Delete what an earlier call wrote to `folder` under `pattern` and this one did not."""
    kept = set(keep)
    for path in folder.glob(pattern):
        if path not in kept and is_ours(path):
            path.unlink()
