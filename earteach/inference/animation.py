"""The fixed validation ears over the epochs, as an animated GIF or WebP."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from earteach.data.arrays import sampled_rows
from earteach.errors import EarTeachError
from earteach.files.overwrite_guard import refuse_foreign
from earteach.inference.run_record import EpochMetrics

_FORMATS = {".gif": "GIF", ".webp": "WEBP"}
_MARK, _SOFTWARE_TAG = "earteach", 0x131
_MAX_WIDTH, _MAX_FRAMES = 800, 100
_LABEL_HEIGHT, _BAR_HEIGHT = 26, 3
_INK, _PAPER, _BAR = (29, 33, 38), (255, 255, 255), (31, 95, 168)
_MILLISECONDS, _LAST_MILLISECONDS = 300, 2000
_log = logging.getLogger(__name__)


def check_animation(path: Path) -> None:
    """Raise `EarTeachError` if no animation can be written to `path`."""
    if path.suffix.lower() not in _FORMATS:
        raise EarTeachError(f"--gif {path}: must end in .gif or .webp")
    if path.is_dir():
        raise EarTeachError(f"--gif {path}: is a folder; name a file")
    refuse_foreign(path, _is_ours, "report", "--gif")


def _is_ours(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            marks = (image.getexif().get(_SOFTWARE_TAG), image.info.get("comment"))
            return _MARK in marks or _MARK.encode() in marks
    except (OSError, ValueError, Image.DecompressionBombError):
        return False


def animate(
    sheets: Sequence[tuple[EpochMetrics, bytes]], epochs: int, path: Path
) -> tuple[bytes, int]:
    """The content of `path` and its number of frames: each epoch's PNG below its number and PSNR.

    Up to 100 evenly spread epochs, up to 800 pixels wide.
    """
    rows = sampled_rows(len(sheets), _MAX_FRAMES)
    if len(rows) < len(sheets):
        _log.info("the animation shows %d of %d epochs, evenly spread", len(rows), len(sheets))
    frames = [_frame(epoch, png, epochs) for epoch, png in (sheets[row] for row in rows)]
    exif = Image.Exif()
    exif[_SOFTWARE_TAG] = _MARK
    kind = _FORMATS[path.suffix.lower()]
    if kind == "GIF":
        # One palette for all frames: pixels that do not change are stored once.
        palette = frames[-1].quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=2)
        frames = [each.quantize(palette=palette, dither=Image.Dither.NONE) for each in frames]
    durations = [_MILLISECONDS] * (len(frames) - 1) + [_LAST_MILLISECONDS]
    file = io.BytesIO()
    # A format ignores the other one's options.
    frames[0].save(
        file, format=kind, save_all=True, append_images=frames[1:], duration=durations, loop=0,
        comment=_MARK.encode(), exif=exif, quality=85,
    )  # fmt: skip
    return file.getvalue(), len(frames)


def _frame(epoch: EpochMetrics, png: bytes, epochs: int) -> Image.Image:
    sheet = Image.open(io.BytesIO(png)).convert("RGB")
    if sheet.width > _MAX_WIDTH:
        size = (_MAX_WIDTH, round(sheet.height * _MAX_WIDTH / sheet.width))
        sheet = sheet.resize(size, Image.Resampling.LANCZOS)
    frame = Image.new("RGB", (sheet.width, sheet.height + _LABEL_HEIGHT), _PAPER)
    frame.paste(sheet, (0, _LABEL_HEIGHT))
    text = f"epoch {epoch.epoch + 1} of {epochs}"
    if (psnr := epoch.metrics.get("val/psnr")) is not None:
        text += f", {psnr:.2f} dB"
    draw, middle = ImageDraw.Draw(frame), (_LABEL_HEIGHT - _BAR_HEIGHT) / 2
    draw.text((6, middle), text, fill=_INK, font=ImageFont.load_default(14), anchor="lm")
    done = max(1, round(frame.width * (epoch.epoch + 1) / epochs))
    draw.rectangle((0, _LABEL_HEIGHT - _BAR_HEIGHT, done - 1, _LABEL_HEIGHT - 1), fill=_BAR)
    return frame
