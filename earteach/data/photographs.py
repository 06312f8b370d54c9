"""Find photographs in a folder, read them upright, and cut squares from them."""

from __future__ import annotations

import io
import math
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps

from earteach.config import Fit
from earteach.data.arrays import is_dark, resized, to_channels
from earteach.data.colour import in_srgb
from earteach.errors import EarTeachError
from earteach.files.search import Found, find_files, without_repeats

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".avif",
     ".heic", ".heif"}
)  # fmt: skip
# Photographs too, but of formats that are not read: they are reported as rejected.
_UNREAD = frozenset(
    {".jxl", ".jp2", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".ppm", ".pgm",
     ".tga"}
)  # fmt: skip
_ARCHIVES = frozenset({".zip", ".gz", ".tgz", ".tar", ".7z", ".rar"})
_MOST_PIXELS = 2**27
LARGEST_SQUARE = math.isqrt(_MOST_PIXELS)
# Others may be transparent, and then Pillow decodes them, with four bytes a pixel and several copies.
_MOST_PIXELS_OF_OTHERS = 2**26
_MOST_BYTES = 2**30
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "AVIF", "HEIF")
_HEIC_STARTS = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftyphevc")
# Those that OpenCV may lack, and kinds of pixels that it changes without a word.
_PILLOW_FORMATS = ("GIF", "AVIF", "HEIF")
_PILLOW_MODES = ("F", "I")
# What Pillow raises for damaged files.
_DAMAGE = (OSError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, EOFError,
           RuntimeError, struct.error)  # fmt: skip
# Factors by which the JPEG decoder can shrink the sides; other decoders cannot. Shrinking the whole
# picture differs by a PSNR of 45 dB or more for factors up to 4 (on AMI), and of 40 dB for 8.
_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
}
_PILLOW = threading.Lock()
_NOT_AN_IMAGE = "not an image that can be read"
_UNREAD_TIFF = "a TIFF that is damaged, or of a kind that is not read; save it with 8 or 16 bits"
_TIFF_STARTS = (b"II*\0", b"MM\0*")
_PHOTOMETRIC, _SAMPLE_FORMAT, _BITS = 262, 339, 258  # tags of TIFF
# White shows through transparent parts, as in image viewers.
_BACKGROUND = (255, 255, 255)

# OpenCV writes to stderr about damaged files; these are reported by name instead.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class Unreadable(Exception):
    """A photograph that cannot be read; the message says why."""


@dataclass(frozen=True)
class Square:
    """A square cut from a photograph, and its box: left, top, width, height in pixels.

    The box reaches outside the photograph if edges were reflected, and is not square if the picture was
    stretched.
    """

    image: np.ndarray  # uint8 (size, size, channels)
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Decoded:
    """An upright photograph: uint8 BGR, shrunk by `scale`, and its full width and height (`size`)."""

    bgr: np.ndarray
    size: tuple[int, int]
    scale: int = 1

    def square(self, size: int, channels: int = 3, fit: Fit = "stretch") -> Square:
        """The whole photograph as a square of side `size`, uint8 `(size, size, channels)`.

        "stretch" scales both sides to the same length. "reflect" keeps the proportions and extends the
        shorter side by reflecting its edges, which shows parts of the ear twice in a tight crop.
        """
        height, width = self.bgr.shape[:2]
        whole = cut(self.bgr, _whole(width, height, fit))
        return Square(_small(whole, size, channels), _whole(*self.size, fit))

    def crop(self, box: tuple[int, int, int, int], size: int, channels: int = 3) -> Square:
        """A box of the photograph as a square of side `size`, uint8 `(size, size, channels)`.

        Edges are reflected if the box reaches outside. The box moves by less than `scale` pixels, to the
        pixels of the shrunk picture.
        """
        left, top, width, height = (round(value / self.scale) for value in box)
        small = (left, top, max(1, width), max(1, height))
        image = _small(cut(self.bgr, small), size, channels)
        left, top, width, height = (value * self.scale for value in small)
        return Square(image, (left, top, width, height))


class Photograph:
    """A photograph's file, read into memory but not yet decoded.

    `width` and `height` are those in its header. Raises `Unreadable` if it is not a photograph.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() in _UNREAD:
            raise Unreadable(f"{path.suffix} is not supported; convert it to JPEG or PNG")
        self._data = _bytes(path)
        if self._data[4:12] in _HEIC_STARTS and not _reads_heic():  # whatever its suffix
            raise Unreadable("HEIC needs pip install 'earteach[heic]'; or convert it to JPEG")
        with _pillow(_UNREAD_TIFF if self._data.startswith(_TIFF_STARTS) else _NOT_AN_IMAGE):
            formats = [name for name in _FORMATS if name in Image.registered_extensions().values()]
            self._picture = Image.open(io.BytesIO(self._data), formats=formats)
            _check_tiff(self._picture)
        self._profile = self._picture.info.get("icc_profile")
        self._is_jpeg = self._picture.format in ("JPEG", "MPO")
        if (self._is_jpeg or self._picture.format == "BMP") and _ends_converted(self._data):
            raise Unreadable(
                "its line ends were converted, as Git and FTP do with text; copy it as a binary file"
            )
        self.width, self.height = self._picture.size
        if self.height * self.width > (_MOST_PIXELS if self._is_jpeg else _MOST_PIXELS_OF_OTHERS):
            raise Unreadable(f"{self.width}×{self.height} pixels are too many")

    def orientation(self) -> int:
        """The EXIF orientation, 1 to 8; 1 if there is none."""
        with suppress(Unreadable), _pillow():
            if self._is_jpeg:  # without XMP, which the decoder does not read
                exif = Image.Exif()
                exif.load(self._picture.info.get("exif", b""))
            else:
                exif = self._picture.getexif()
            return int(exif.get(ExifTags.Base.Orientation, 1))
        return 1

    def decoded(self, side: float, size: int) -> Decoded:
        """The picture, of which a square of `side` pixels will be made one of `size`.

        The decoder shrinks JPEGs that are several times as large, which takes a half to a quarter of the
        time.
        """
        if self._needs_pillow():
            bgr = self._through_pillow()
            return Decoded(bgr, (bgr.shape[1], bgr.shape[0]))
        # The largest scale that leaves a side at least twice as long as `size`.
        scales = [scale for scale in _REDUCED if side >= 2 * size * scale]
        scale = max(scales, default=1) if self._is_jpeg else 1
        bgr = _decoded(self._data, scale)
        if self._profile:
            bgr = bgr_of(in_srgb(Image.fromarray(bgr[..., ::-1]), self._profile))
        if scale == 1:
            return Decoded(bgr, (bgr.shape[1], bgr.shape[0]))
        turned = 5 <= self.orientation() <= 8
        sides = (self.height, self.width) if turned else (self.width, self.height)
        return Decoded(bgr, sides, scale)

    def _needs_pillow(self) -> bool:
        picture = self._picture
        return (
            picture.format in _PILLOW_FORMATS
            or picture.mode.startswith(_PILLOW_MODES)
            or picture.has_transparency_data
            or (self._profile is not None and picture.mode != "RGB")
        )

    def _through_pillow(self) -> np.ndarray:
        """The picture over white, uint8 BGR, upright; the first of several frames."""
        with _pillow():
            upright = _eight_bits(ImageOps.exif_transpose(self._picture))
            alpha = _alpha(upright)
            colours = in_srgb(upright, self._profile)
            _check_bright(np.asarray(colours))
            if alpha is not None:
                background = Image.new("RGB", upright.size, _BACKGROUND)
                colours = Image.composite(colours, background, alpha)
        return bgr_of(colours)


def find(source: Path) -> Found:
    """The photographs below a folder, as `find_files` finds them, and what was passed over.

    Raises `EarTeachError` if there is no such folder, or no photograph in it.
    """
    if not source.exists():
        raise EarTeachError(f"{source}: no such folder; name a folder of photographs")
    if not source.is_dir():
        advice = "unpack it, and name" if source.suffix.lower() in _ARCHIVES else "name"
        raise EarTeachError(
            f"{source}: is a file; {advice} the folder of photographs that it is in"
        )
    found = without_repeats(find_files(source, SUFFIXES | _UNREAD))
    if not found.files:
        raise EarTeachError(
            f"{source}: holds no photographs; looked for {', '.join(sorted(SUFFIXES))} there and below"
        )
    return _without_pairs(found)


def _without_pairs(found: Found) -> Found:
    """The same without a camera's raw files whose photograph lies beside them, as `1.CR2` by `1.jpg`."""
    readable = {path.with_suffix("") for path in found.files if path.suffix.lower() in SUFFIXES}
    unread = [path for path in found.files if path.suffix.lower() in _UNREAD]
    raw = {path for path in unread if path.with_suffix("") in readable}
    why = "is not supported; the photograph of the same name beside it is used"
    return replace(
        found,
        files=[path for path in found.files if path not in raw],
        left_out=found.left_out + [(path, f"{path.suffix} {why}") for path in sorted(raw)],
    )


def read(path: Path) -> np.ndarray:
    """A photograph as uint8 RGB `(H, W, 3)`, turned by its EXIF orientation.

    Transparent parts become white; an animation gives its first frame. Raises `Unreadable` for a file
    that is not a photograph.
    """
    return cv2.cvtColor(Photograph(path).decoded(0, 1).bgr, cv2.COLOR_BGR2RGB)


def read_square(path: Path, size: int, channels: int = 3, fit: Fit = "stretch") -> Square:
    """The photograph in a file as `Decoded.square`; raises `Unreadable` if it is not a photograph."""
    photograph = Photograph(path)
    side = min(photograph.width, photograph.height)
    return photograph.decoded(side, size).square(size, channels, fit)


def square(image: np.ndarray, size: int, channels: int = 3, fit: Fit = "stretch") -> Square:
    """A picture in memory, uint8 RGB `(H, W, 3)`, made square in the same way."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return Decoded(bgr, (image.shape[1], image.shape[0])).square(size, channels, fit)


def _bytes(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise Unreadable("is not a regular file")  # a pipe may never end
        if path.stat().st_size > _MOST_BYTES:
            raise Unreadable(f"{path.stat().st_size:,} bytes are too many")
        data = path.read_bytes()
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error
    if not data:
        raise Unreadable("the file is empty")
    return data


def bgr_of(picture: Image.Image) -> np.ndarray:
    """An RGB picture as uint8 BGR `(H, W, 3)`."""
    return np.ascontiguousarray(np.asarray(picture)[..., ::-1])


def _alpha(picture: Image.Image) -> Image.Image | None:
    """How opaque the picture is; None if it is, or if all of it is clear, as some programs leave it."""
    if not picture.has_transparency_data:
        return None
    alpha = picture.convert("RGBA").getchannel("A")
    return None if alpha.getextrema() == (0, 0) else alpha


def _ends_converted(data: bytes) -> bool:
    """Whether `\\n` became `\\r\\n`; decoders of JPEG and BMP read such files as noise."""
    end = data[-(2**16) :]
    return 2 < end.count(b"\n") == end.count(b"\r\n")


def _check_tiff(picture: Image.Image) -> None:
    """Raise `Unreadable` for kinds of a TIFF's gray that Pillow reads as another kind."""
    tags = getattr(picture, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) == 0 and picture.mode.startswith(_PILLOW_MODES):
        raise Unreadable("its white is 0 (MinIsWhite) in over 8 bits; save it with black as 0")
    if 2 in tags.get(_SAMPLE_FORMAT, ()) and min(tags.get(_BITS, (1,))) < 32:
        raise Unreadable("holds signed integers; save it with unsigned ones of 8 or 16 bits")


def _check_bright(image: np.ndarray) -> None:
    """Raise `Unreadable` for a picture that became nearly black, as of 12 bits in 16."""
    if is_dark(brightest := int(image.max()), 255):
        raise Unreadable(
            f"nearly black: it reaches {brightest} of 255 as 8 bits; scale its values up to their range"
        )


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Gray of 16 or 32 bits, with its transparent value if it has one, as gray or gray with alpha.

    Floats and 32 bits say no range; they are taken as reaching 1, 255 or 65,535. Raises `Unreadable` for
    other values.
    """
    transparent = picture.info.get("transparency")
    if not picture.mode.startswith(_PILLOW_MODES):
        if isinstance(transparent, tuple):  # of 16 bits, of which Pillow keeps the upper 8
            picture.info["transparency"] = tuple(v >> 8 if v > 255 else v for v in transparent)
        return picture
    values = np.asarray(picture)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 65_535):  # False for NaN
        what = "NaN" if math.isnan(low) else "values outside 0 to 65,535"
        raise Unreadable(f"holds {what}; save it with 8 or 16 bits")
    is_wide = picture.mode.startswith("I;16") or high > 255
    largest = 65_535 if is_wide else 1 if picture.mode == "F" and high <= 1 else 255
    gray = Image.fromarray(np.rint(values.astype(np.float64) * (255 / largest)).astype(np.uint8))
    if isinstance(transparent, int):
        opaque = np.where(values == transparent, 0, 255).astype(np.uint8)
        return Image.merge("LA", (gray, Image.fromarray(opaque)))
    return gray


@cache
def _reads_heic() -> bool:
    """Whether the package that reads HEIC is installed; then Pillow knows it from here on."""
    if find_spec("pi_heif") is None:
        return False
    import pi_heif

    pi_heif.register_heif_opener()
    return True


@contextmanager
def _pillow(problem: str = _NOT_AN_IMAGE) -> Iterator[None]:
    """Turn Pillow's errors into `Unreadable`, and ignore its warnings, which name no file."""
    with _PILLOW, warnings.catch_warnings():  # which no two threads may do at once
        warnings.simplefilter("ignore")
        try:
            yield
        except Image.DecompressionBombError as error:
            raise Unreadable("it has too many pixels") from error
        except _DAMAGE as error:
            raise Unreadable(problem) from error


def _decoded(data: bytes, scale: int) -> np.ndarray:
    """The picture as upright uint8 BGR, its sides divided by `scale`."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _REDUCED[scale])
    except cv2.error as error:
        raise Unreadable("too large or damaged") from error
    if image is None:
        raise Unreadable(_NOT_AN_IMAGE)
    _check_bright(image)
    return image


def _whole(width: int, height: int, fit: Fit) -> tuple[int, int, int, int]:
    if fit == "stretch":
        return 0, 0, width, height
    side = max(height, width)
    return -((side - width) // 2), -((side - height) // 2), side, side


def cut(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """A box of an image, with edges mirrored where it reaches outside."""
    left, top, width, height = box
    if left >= 0 and top >= 0 and top + height <= image.shape[0] and left + width <= image.shape[1]:
        return image[top : top + height, left : left + width]
    check_square(max(height, width))
    rows = _mirrored(top, height, image.shape[0])
    columns = _mirrored(left, width, image.shape[1])
    return image[rows[:, None], columns]


def check_square(side: int) -> None:
    """Raise `Unreadable` for a square, around a long strip perhaps, that is too large to cut out."""
    if side > LARGEST_SQUARE:
        raise Unreadable(f"a square of {side}×{side} pixels is too large")


def _mirrored(start: int, length: int, end: int) -> np.ndarray:
    """Indices in [0, end) of a row extended by its mirror image: … 1 0 | 0 1 2 … end-1 | end-1 …"""
    indices = np.arange(start, start + length) % (2 * end)
    return np.minimum(indices, 2 * end - 1 - indices)


def _small(bgr: np.ndarray, size: int, channels: int) -> np.ndarray:
    return to_channels(cv2.cvtColor(_shrunk(bgr, size), cv2.COLOR_BGR2RGB), channels)


def _shrunk(image: np.ndarray, size: int) -> np.ndarray:
    """Like `resized`, but three times as fast if the sides are not multiples of `size`.

    OpenCV's area method is slow for such sides, slower than the JPEG decoder. This takes a linear step
    to `size` times a power of two, which skips no pixel, and halves from there. The results differ by
    0.4 levels (RMS), as much as rounding does.
    """
    height, width = image.shape[:2]
    longer, shorter = max(height, width), min(height, width)
    if shorter < size or (height % size == 0 and width % size == 0):
        return resized(image, size)
    side = size * 2 ** max(1, int(math.log2(longer / size)))
    image = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
    while side > size:
        side //= 2
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return image
