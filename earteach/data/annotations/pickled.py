"""Old pickled dictionaries of `image_paths` and `bboxes`, read without running anything in them.

A pickle names functions and has them called. Of these, the few are answered that NumPy writes for its
arrays, and by stand-ins that only keep what they are given: nothing of NumPy's own is called with what a
file says, and any other name is refused.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from earteach.data.annotations.annotation import Annotation
from earteach.errors import EarTeachError

_MOST_BYTES = 2**30
_KEYS = ("image_paths", "bboxes")
# Of numbers and of text, with their sizes: no objects, no structures.
_KINDS = frozenset("biufUS")
_DAMAGE = (
    pickle.UnpicklingError, struct.error, ValueError, TypeError, KeyError, IndexError, AttributeError,
    EOFError, MemoryError, OverflowError, RecursionError, AssertionError, ImportError,
)  # fmt: skip


class _Refused(Exception):
    """A name that arrays, text and numbers have no need of."""


class _Dtype:
    """What a pickle says of a dtype: its code, and then its byte order."""

    def __init__(self, code: str, *_: object) -> None:
        self._code, self._order = str(code), "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = {">": ">", "<": "<", "|": "|", "=": "="}[state[1]]

    def real(self) -> np.dtype[Any]:
        if self._code[:1] not in _KINDS or not self._code[1:].isdecimal():
            raise ValueError(f"an array of dtype {self._code[:20]}")
        return np.dtype(self._order + self._code)


class _Array:
    """What a pickle says of an array: shape, dtype, order, and its bytes or, of objects, a list."""

    state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def real(self) -> list[Any]:
        _, shape, dtype, fortran, data = self.state
        if isinstance(data, list):  # of objects: text of any length, or arrays of several lengths
            return data if len(shape) == 1 else _in_rows(data, *shape)
        if isinstance(data, str):  # as Python 2 wrote bytes
            data = data.encode("latin1")
        flat = np.frombuffer(data, dtype.real())
        if (
            flat.dtype.kind == "U"
            and flat.view(f"{flat.dtype.byteorder}u4").max(initial=0) > 0x10FFFF
        ):
            raise ValueError("text that is none")  # NumPy would fail within
        return list(flat.reshape(shape, order="F" if fortran else "C").tolist())


def _in_rows(values: list[Any], rows: int, columns: int) -> list[list[Any]]:
    """As they are stored, row by row (objects in Fortran's order are stored so too)."""
    if len(values) != rows * columns:
        raise ValueError("another number of objects than it says")
    return [values[row * columns : (row + 1) * columns] for row in range(rows)]


def _scalar(dtype: _Dtype, data: bytes | str) -> Any:
    raw = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(raw, dtype.real())[0].item()


def _from_buffer(data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.state = (1, shape, dtype, order == "F", bytes(data))
    return array


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise _Refused("_codecs.encode to another encoding than latin1")
    return text.encode("latin1")


class _Answer:
    """A function that may be called and not altered, as a pickle could a plain one."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise _Refused("a change to a function")


_MULTIARRAY = {"_reconstruct": _Answer(lambda *_: _Array()), "scalar": _Answer(_scalar)}
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Answer(_encoded),
    **{
        (f"numpy.{core}.multiarray", name): made
        for core in ("core", "_core")
        for name, made in _MULTIARRAY.items()
    },
    **{
        (f"numpy.{core}.numeric", "_frombuffer"): _Answer(_from_buffer)
        for core in ("core", "_core")
    },
}


class _Unpickler(pickle._Unpickler):
    """The one in Python: the other takes memory for whatever places and lengths a file claims."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused(" ".join(f"{module}.{name}"[:80].split())) from None

    def load_bytearray8(self) -> None:
        (length,) = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        self.append(bytearray(self.read(min(length, _MOST_BYTES))))  # type: ignore[attr-defined]

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }

    def persistent_load(self, pid: object) -> Any:
        raise _Refused("a persistent object")


def read_pickled(path: Path) -> dict[str, list[Annotation]]:
    """The boxes of each photograph: left, top, width and height in pixels, one box or several for each.

    Raises `EarTeachError` for a file that holds anything but dictionaries, lists, arrays, text and
    numbers, or not these two keys.
    """
    data = _load(path)
    if not isinstance(data, dict) or any(key not in data for key in _KEYS):
        raise EarTeachError(
            f"--boxes {path}: is not a dictionary with `image_paths` and `bboxes`; write the boxes as a "
            ".csv"
        )
    found: defaultdict[str, list[Annotation]] = defaultdict(list)
    try:
        names, boxes = (_listed(data[key]) for key in _KEYS)
        for name, its in zip(names, boxes, strict=True):
            found[_text(name)].extend(Annotation(box=box) for box in _boxes(its))
    except _DAMAGE as error:
        raise EarTeachError(
            f"--boxes {path}: its `bboxes` are not four numbers (x, y, w, h) for each of `image_paths` "
            f"({error}); write them as a .csv"
        ) from error
    return dict(found)


def _load(path: Path) -> Any:
    try:
        return _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except _Refused as error:
        raise EarTeachError(
            f"--boxes {path}: holds {error}, which could run anything; only dictionaries, arrays, text "
            "and numbers are read: write the boxes as a .csv"
        ) from error
    except OSError as error:
        raise EarTeachError(f"--boxes {path}: {error.strerror}; name another file") from error
    except _DAMAGE as error:
        raise EarTeachError(
            f"--boxes {path}: is not a pickle that can be read ({type(error).__name__}); write the "
            "boxes as a .csv"
        ) from error


def _listed(value: Any) -> list[Any]:
    real = value.real() if isinstance(value, _Array) else value
    if not isinstance(real, list | tuple):
        raise TypeError(f"a {type(real).__name__.strip('_')} instead of a list")
    return list(real)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str):
        raise TypeError("a path that is no text")
    return value


def _boxes(value: Any) -> list[tuple[float, float, float, float]]:
    if value is None:
        return []
    entries = _listed(value)
    if entries and not isinstance(entries[0], list | tuple | _Array):
        entries = [entries]
    boxes = []
    for entry in entries:
        left, top, width, height = (float(number) for number in _listed(entry))
        boxes.append((left, top, width, height))
    return boxes
