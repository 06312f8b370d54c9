"""The fixed validation ears from epoch to epoch, as an animated GIF or WebP."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from earteach.data.arrays import sampled_rows
from earteach.errors import EarTeachError
from earteach.files.overwrite_guard import foreign
from earteach.inference.run_record import EpochMetrics

_FORMATS = {".gif": "GIF", ".webp": "WEBP"}
_MARK, _SOFTWARE_TAG = "earteach", 0x131
_WIDEST, _MOST_FRAMES = 800, 100
_BAND, _BAR = 26, 3
_INK, _PAPER, _DONE = (29, 33, 38), (255, 255, 255), (31, 95, 168)
_MILLISECONDS, _LAST_MILLISECONDS = 300, 2000
_log = logging.getLogger(__name__)


def check_animation(path: Path) -> None:
    """Raise `EarTeachError` where no animation can be written to `path`."""
    if path.suffix.lower() not in _FORMATS:
        raise EarTeachError(f"--gif {path}: must end in .gif or .webp")
    if path.is_dir():
        raise EarTeachError(f"--gif {path}: is a folder; name a file")
    if path.exists() and not _is_ours(path):
        raise foreign(path, "report", "--gif")


def _is_ours(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            marks = (image.getexif().get(_SOFTWARE_TAG), image.info.get("comment"))
            return _MARK in marks or _MARK.encode() in marks
    except (OSError, ValueError, Image.DecompressionBombError):
        return False


def animation(
    sheets: Sequence[tuple[EpochMetrics, bytes]], epochs: int, path: Path
) -> tuple[bytes, int]:
    """The file for `path`, and its number of frames: each epoch's PNG under its number and PSNR.

    At most 100 evenly spread epochs, and at most 800 pixels wide.
    """
    rows = sampled_rows(len(sheets), _MOST_FRAMES)
    if len(rows) < len(sheets):
        _log.info("the animation shows %d of %d epochs, evenly spread", len(rows), len(sheets))
    frames = [_frame(sheets[row], epochs) for row in rows]
    kind = _FORMATS[path.suffix.lower()]
    if kind == "GIF":
        frames = _one_palette(frames)
    file = io.BytesIO()
    exif = Image.Exif()
    exif[_SOFTWARE_TAG] = _MARK
    about = {"comment": _MARK.encode()} if kind == "GIF" else {"exif": exif, "quality": 85}
    frames[0].save(
        file,
        format=kind,
        save_all=True,
        append_images=frames[1:],
        duration=[_MILLISECONDS] * (len(frames) - 1) + [_LAST_MILLISECONDS],
        loop=0,
        **about,
    )
    return file.getvalue(), len(frames)


def _frame(shown: tuple[EpochMetrics, bytes], epochs: int) -> Image.Image:
    epoch, png = shown
    sheet = Image.open(io.BytesIO(png)).convert("RGB")
    if sheet.width > _WIDEST:
        size = (_WIDEST, round(sheet.height * _WIDEST / sheet.width))
        sheet = sheet.resize(size, Image.Resampling.LANCZOS)
    frame = Image.new("RGB", (sheet.width, sheet.height + _BAND), _PAPER)
    frame.paste(sheet, (0, _BAND))
    draw = ImageDraw.Draw(frame)
    text = f"epoch {epoch.epoch + 1} of {epochs}"
    if (psnr := epoch.metrics.get("val/psnr")) is not None:
        text += f", {psnr:.2f} dB"
    draw.text(
        (6, (_BAND - _BAR) / 2), text, fill=_INK, font=ImageFont.load_default(14), anchor="lm"
    )
    done = max(1, round(frame.width * (epoch.epoch + 1) / epochs))
    draw.rectangle((0, _BAND - _BAR, done - 1, _BAND - 1), fill=_DONE)
    return frame


def _one_palette(frames: list[Image.Image]) -> list[Image.Image]:
    """The frames in the 256 colours of the last: what does not change is then stored once."""
    palette = frames[-1].quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=2)
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
