"""Arrays of ear images on disk, read one image at a time.

An array is a `.npy` file of shape `(N, H, W, C)`, `(N, C, H, W)` or `(N, H, W)`, with uint8, uint16 or
float values. It is memory-mapped, never read whole and never unpickled:

    >>> ears = EarArray.open("data/preprocessed/train_teacher.npy")
    >>> ears.image(0, size=64, channels=3).shape
    (64, 64, 3)

Images that are too many for one file may lie in several, which a pattern names: they are one array, in
the order of their names.

    >>> ears = EarArray.open("data/*/train_teacher.npy")
"""

from __future__ import annotations

import hashlib
import logging
import mmap
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from earteach.config import Layout
from earteach.errors import EarTeachError

Scale = Literal["uint8", "uint16", "unit", "byte"]

SAMPLED_ROWS = 64
# Floats whose largest value lies between 1 and this are meant to lie in [0, 1].
MOST_OVER_ONE = 2.0
_PHOTOGRAPH = "make arrays of a folder of photographs with earteach prepare"
# The first bytes of files that people take for arrays, what they are, and how an array is made of them.
_OTHER_FILES = (
    (b"\x89HDF", "an HDF5 file",
     "convert it: f = h5py.File('{path}'); numpy.save('{npy}', f[list(f)[0]])"),
    (b"MATLAB 5", "a MATLAB file",
     "convert it: numpy.save('{npy}', scipy.io.loadmat('{path}')['NAME'])"),
    (b"PAR1", "a Parquet file",
     "convert it: numpy.save('{npy}', numpy.stack(pandas.read_parquet('{path}')['NAME']))"),
    (b"\x80", "a pickle, which could run any code",
     "load it where you trust it, and save the array with numpy.save"),
    (b"version ", "a pointer of Git LFS", "fetch the file itself: git lfs pull"),
    (b"\x89PNG", "a photograph", _PHOTOGRAPH),
    (b"\xff\xd8", "a photograph", _PHOTOGRAPH),
)  # fmt: skip
_log = logging.getLogger(__name__)


class EarArray:
    """A memory-mapped array of ear images; `open` finds out its layout.

    `path` is as it was named, and `files` are the files. `raw` is the mapped array as it is stored;
    `dtype` is its type in this machine's byte order.
    """

    def __init__(self, path: Path, files: list[Path], raw: _Rows, layout: Layout) -> None:
        self.path, self.files = path, files
        self.layout = layout
        self.raw = raw
        self._in_random_order = False
        self.dtype = raw.dtype.newbyteorder("=")
        self.shape = raw.shape
        sides = dict(zip(layout, map(int, raw.shape), strict=True))
        self.height, self.width, self.channels = sides["h"], sides["w"], sides.get("c", 1)

    @classmethod
    def open(cls, path: str | Path, layout: Layout | None = None) -> EarArray:
        """Map the file, or the files if it is a pattern. Only headers and lengths are checked.

        Raises `EarTeachError` for a file that is no such array, for files whose images differ in shape
        or type, or where the layout is ambiguous.
        """
        path = Path(path)
        files = _files(path)
        raw = _map_all(files)
        dtype = raw.dtype.newbyteorder("=")
        if dtype not in (np.uint8, np.uint16) and dtype.kind != "f":
            raise EarTeachError(
                f"{path}: holds {dtype.name} values; images are uint8, uint16 or float; "
                f"{_conversion(dtype)}"
            )
        return cls(path, files, raw, find_layout(path, raw.shape, layout))

    def cache(self, content: str) -> Path:
        """Where something computed from the array is kept: beside it, or beside its first file."""
        more = f"-and-{len(self.files) - 1}-more" if len(self.files) > 1 else ""
        return self.files[0].with_name(f"{self.files[0].stem}{more}.{content}.npz")

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memmap would carry the whole file to each worker.
        return {**self.__dict__, "raw": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, raw=_map_all(state["files"]))
        if self._in_random_order:
            self.read_in_random_order()

    def read_in_random_order(self) -> None:
        """Ask the disk for a whole image at once, not for the 4 kB that are needed first."""
        self._in_random_order = self.raw.whole = True

    def stored(self, index: int) -> np.ndarray:
        """One image in its stored type and scale, `(H, W, C)`."""
        row = self.raw[index]
        if self.layout == "nchw":
            return row.transpose(1, 2, 0)
        return row if self.layout == "nhwc" else row[..., None]

    @cached_property
    def scale(self) -> Scale:
        """How stored values become brightness; for floats judged by a sample of the rows.

        Raises `EarTeachError` if the sampled values are neither in [0, 1] nor in [0, 255], or so low in
        the range of their type that all images would be nearly black.
        """
        rows = sampled_rows(len(self)).tolist()
        if self.dtype.kind == "u":
            brightest = max(int(self.raw[row].max()) for row in rows)
            white = int(np.iinfo(self.dtype).max)
            scale_of_bits = 2 ** max(1, brightest.bit_length()) - 1
            self._check_bright(brightest, white, f"multiply them: array * {white // scale_of_bits}")
            return "uint8" if white == 255 else "uint16"
        largest = max(self._checked_maximum(row, 255.0) for row in rows)
        advice = "rescale them to [0, 1]"
        if 1.0 < largest < MOST_OVER_ONE:
            advice = "a little over 1: clip them with `array.clip(0, 1)`, or multiply by 255"
        self._check_bright(largest, 1 if largest <= 1.0 else 255, advice)
        return "unit" if largest <= 1.0 else "byte"

    def _check_bright(self, brightest: float, white: int, advice: str) -> None:
        if is_dark(brightest, white):
            raise EarTeachError(
                f"{self.path}: its {self.dtype} values reach {brightest:g} of {white:,}, so its images "
                f"would be nearly black; {advice}"
            )

    def _checked_maximum(self, index: int, limit: float) -> float:
        row = self.raw[index]
        low, high = float(row.min()), float(row.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise EarTeachError(
                f"{self.path}: image {index} holds NaN or infinity; "
                f"`earteach inspect-data {self.path}` lists all such images: remove them"
            )
        if low < 0 or high > limit:
            raise EarTeachError(
                f"{self.path}: image {index} holds values from {low:g} to {high:g}; floats must lie "
                "in [0, 1] or in [0, 255]: rescale the array"
            )
        return high

    def image(self, index: int, *, size: int, channels: int) -> np.ndarray:
        """One image as the network takes it before scaling: uint8 `(size, size, channels)`.

        It is resized (by area when shrinking); gray becomes equal channels, colour becomes luma. Raises
        `EarTeachError` for values out of the array's range.
        """
        return to_channels(resized(self.image_uint8(index), size), channels)

    def image_uint8(self, index: int) -> np.ndarray:
        """One image at its stored size, uint8 `(H, W, C)`; wider types are rounded to 8 bits."""
        stored = self.stored(index)
        scale = self.scale
        if scale == "uint8":
            return np.ascontiguousarray(stored)
        if scale == "uint16":
            return np.rint(stored.astype(np.float32) / 257).astype(np.uint8)
        self._checked_maximum(index, 1.0 if scale == "unit" else 255.0)
        factor = 255.0 if scale == "unit" else 1.0
        return np.rint(stored.astype(np.float32) * factor).astype(np.uint8)

    def note_conversions(self, size: int, channels: int) -> None:
        """Log how images are converted for this size and number of channels."""
        if self.channels != channels:
            change = "gray is copied to three channels" if channels == 3 else "colour becomes gray"
            _log.info("%s: %s, as the network expects", self.path, change)
        if (self.height, self.width) != (size, size):
            _log.info(
                "%s: images of %d×%d are resized to %d×%d",
                self.path, self.width, self.height, size, size,
            )  # fmt: skip

    def fingerprint(self) -> dict[str, Any]:
        """Identifies this array: shape, type and a hash of a fixed sample of rows."""
        digest = hashlib.sha256()
        for index in sampled_rows(len(self)):
            digest.update(np.ascontiguousarray(self.raw[int(index)]).tobytes())
        return {
            "shape": list(map(int, self.shape)),
            "dtype": self.dtype.str,
            "sample_sha256": digest.hexdigest(),
        }


def is_dark(brightest: float, white: float) -> bool:
    """Whether the brightest value is so low that all would be nearly black, as of 12 bits in 16."""
    return 0 < brightest < white / 15


def sampled_rows(length: int, most: int = SAMPLED_ROWS) -> np.ndarray:
    """Up to `most` row numbers, evenly spread from the first to the last."""
    return np.linspace(0, length - 1, min(length, most)).round().astype(int)


class _Rows:
    """The rows of one or several mapped arrays; if `whole`, each is read from the disk in one piece."""

    def __init__(self, arrays: Sequence[np.memmap]) -> None:
        self._arrays = arrays
        self._ends = np.cumsum([len(array) for array in arrays])
        self.dtype = arrays[0].dtype
        self.shape = (int(self._ends[-1]), *arrays[0].shape[1:])
        self.whole = False

    def __getitem__(self, index: int) -> np.ndarray:
        number = int(np.searchsorted(self._ends, index, side="right"))
        array = self._arrays[number]
        position = index - int(self._ends[number]) + len(array)
        row: np.ndarray = array[position]
        if self.whole:
            _prefetch(array, position * array.strides[0], row.nbytes)
        return row


def _prefetch(array: np.memmap, start: int, length: int) -> None:
    """Ask the system for bytes of a mapped array, counted from its first."""
    mapped: Any = array.base
    if hasattr(mapped, "madvise"):  # not on Windows
        # A map begins where a page does, at or before the array.
        start += array.offset % mmap.ALLOCATIONGRANULARITY
        page = start - start % mmap.PAGESIZE
        mapped.madvise(mmap.MADV_WILLNEED, page, start + length - page)


def _files(path: Path) -> list[Path]:
    """The file, or those that the pattern names."""
    if "*" not in str(path) or path.exists():
        return [path]
    root = Path(path.anchor)
    found = sorted(root.glob(str(path.relative_to(root))))
    if not found:
        raise EarTeachError(
            f"{path}: matches no file; name .npy files, as in 'data/*/train_teacher.npy'"
        )
    return found


def _map_all(files: Sequence[Path]) -> _Rows:
    arrays = [_map(path) for path in files]
    kinds = [(array.shape[1:], array.dtype) for array in arrays]
    for path, kind in zip(files, kinds, strict=True):
        if kind != kinds[0]:
            raise EarTeachError(
                f"{path}: holds {kind[1]} images of shape {kind[0]}, and {files[0]} {kinds[0][1]} "
                f"images of shape {kinds[0][0]}; read as one array, they must be alike"
            )
    return _Rows(arrays)


def _map(path: Path) -> np.memmap:
    _check_magic(path)
    try:
        with np.errstate(over="raise"):
            array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy evaluates the header: a damaged one can raise anything
        raise EarTeachError(f"{path}: {_reason(path, error)}") from error
    _check_end(path, array)
    if array.ndim == 0:
        raise EarTeachError(f"{path}: {_misfit((), ambiguous=False)}")
    return array


def _check_end(path: Path, array: np.memmap) -> None:
    """Raise `EarTeachError` if the file goes on after the array, as if bytes were added to it."""
    extra = path.stat().st_size - array.offset - array.nbytes
    if extra == 0 or array.size == 0:
        return
    with path.open("rb") as file:
        header = file.read(array.offset)
    if header.endswith(b"\r"):
        raise EarTeachError(
            f"{path}: its line ends were converted, as Git and FTP do with text, which damages arrays; "
            "copy it again as a binary file"
        )
    raise EarTeachError(
        f"{path}: holds {extra:,} bytes after its array; copy it again, or save one array in it"
    )


def _check_magic(path: Path) -> None:
    """Raise `EarTeachError` unless the path can be read and starts as a `.npy` file does."""
    try:
        if path.exists() and not path.is_file():  # of a pipe the first read may never end
            if path.is_dir():
                raise EarTeachError(
                    f"{path}: is a folder; name a .npy file in it, or make arrays of its photographs: "
                    f"earteach prepare {path}"
                )
            raise EarTeachError(f"{path}: is not a regular file; name a .npy file")
        with path.open("rb") as file:
            start = file.read(300)
    except FileNotFoundError as error:
        raise EarTeachError(
            f"{path}: no such file; make it from photographs with `earteach prepare FOLDER`, "
            "or from drawn ears with `earteach prepare --synthetic 256`"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise EarTeachError(f"{path}: {reason}; name a .npy file") from error
    if not start:
        raise EarTeachError(f"{path}: is empty (0 bytes); copy or save it again")
    if not start.startswith(b"\x93NUMPY"):
        raise EarTeachError(f"{path}: {_other_kind(path, start)}")


def _other_kind(path: Path, start: bytes) -> str:
    """What a file that is no array is, from its first bytes, and how an array is made of it."""
    if start.startswith(b"PK"):
        return _archive(path, start)
    for magic, kind, convert in _OTHER_FILES:
        if start.startswith(magic):
            return f"is {kind}; {convert.format(path=path, npy=_converted(path))}"
    return "is not a .npy file; save the array with numpy.save"


def _archive(path: Path, start: bytes) -> str:
    """What a zip file is, from the name of the first file in it, which follows a header of 30 bytes."""
    name = start[30 : 30 + int.from_bytes(start[26:28], "little")].decode(errors="replace")
    npy = _converted(path)
    if name.endswith(".npy"):
        array = f"numpy.load('{path}')['{name.removesuffix('.npy')}']"
        return f"is an .npz archive; convert it: numpy.save('{npy}', {array})"
    if name.endswith("data.pkl"):
        tensor = f"torch.load('{path}', weights_only=True)"
        return (
            f"is a file of torch; convert it: numpy.save('{npy}', {tensor}.numpy()), or of a dict of "
            f"tensors {tensor}['NAME'].numpy()"
        )
    return "is an archive; unpack it"


def _conversion(dtype: np.dtype) -> str:
    if dtype.names:
        return f"save one of the fields, as in array['{dtype.names[0]}']"
    if dtype.kind == "b":
        return "convert with `array.astype('uint8') * 255`"
    if dtype.kind in "iu":
        return (
            "convert with `array.astype('uint8')` if the values lie in 0 to 255, else rescale them"
        )
    return "save the images' pixels"


def _converted(path: Path) -> Path:
    """Where an array made of the file would lie."""
    return path.with_name(f"{path.stem}{'-array' if path.suffix == '.npy' else ''}.npy")


def _reason(path: Path, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "Python objects" in text:
        return "holds Python objects, which are never unpickled; save the images as one uint8 array"
    if "mmap length" in text or path.stat().st_size < 128:
        return f"is cut short ({path.stat().st_size} bytes); copy or save it again"
    return f"its header cannot be read ({text[:120]}); save the array again with numpy.save"


def find_layout(path: Path, shape: tuple[int, ...], layout: Layout | None = None) -> Layout:
    """The order of the axes, from which axis has length 1 or 3.

    Raises `EarTeachError` if no order fits, or if two do and `layout` does not choose one of them.
    """
    if 0 in shape:
        raise EarTeachError(f"{path}: has shape {shape}: no images; it needs at least one")
    fitting = _fitting_layouts(shape)
    if layout is not None:
        if layout not in fitting and not (layout == "nhw" and len(shape) == 3):
            raise EarTeachError(f"{path}: has shape {shape}, which is not {layout}; drop --layout")
        return layout
    if len(fitting) != 1:
        raise EarTeachError(f"{path}: {_misfit(shape, ambiguous=bool(fitting))}")
    return fitting[0]


def _fitting_layouts(shape: tuple[int, ...]) -> list[Layout]:
    if len(shape) == 3:
        single = shape[-1] in (1, 3) or shape[0] == 3
        return [] if single else ["nhw"]
    if len(shape) != 4:
        return []
    channels: dict[Layout, int] = {"nhwc": shape[3], "nchw": shape[1]}
    return [layout for layout, count in channels.items() if count in (1, 3)]


def _misfit(shape: tuple[int, ...], ambiguous: bool) -> str:
    if ambiguous:
        return f"shape {shape} could be nhwc or nchw; say which with --layout nhwc or nchw"
    if len(shape) == 3:
        return (
            f"shape {shape} looks like one image; stack images to (N, H, W, 3), "
            "or say --layout nhw if these are gray images"
        )
    if len(shape) == 4 and 4 in (shape[1], shape[3]):
        return f"shape {shape} has four channels (RGBA); keep the first three: array[..., :3]"
    return (
        f"shape {shape} is not a stack of images; images are (N, H, W, C), (N, C, H, W) or "
        "(N, H, W) with 1 or 3 channels"
    )


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 `(H, W, C)` to `(size, size, C)`: each side by area when shrinking, else cubic."""
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    shrunk = cv2.resize(image, (min(width, size), min(height, size)), interpolation=cv2.INTER_AREA)
    out = cv2.resize(shrunk, (size, size), interpolation=cv2.INTER_CUBIC)
    return out.reshape(size, size, image.shape[2])


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """uint8 `(H, W, 1 or 3)` to `channels`: gray repeated, or colour's luma (ITU-R BT.601)."""
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=2)
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
