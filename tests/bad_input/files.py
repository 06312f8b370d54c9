"""What the corpus is made of: contents of bad files, and things that are no files."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

Made = bytes | Callable[[Path], object]


def npy(array: Any, **options: Any) -> bytes:
    """As numpy saves it."""
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    """A .npy file with this header, and 4000 bytes of values."""
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text.encode() + bytes(4000)


def described(shape: str, descr: str = "'|u1'", order: str = "False") -> bytes:
    return header(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}\n")


def torch_saved(state: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file, **options)
    return file.getvalue()


class Calls:
    """Unpickling it calls a function, as a hostile file would."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], Any]:
        return self.call


def archive(pickled: bytes, storages: dict[str, bytes] | None = None, **options: Any) -> bytes:
    """torch's archive with these bytes as its pickle."""
    file = io.BytesIO()
    members = {"data.pkl": pickled, "version": b"3\n", "byteorder": b"little"}
    members |= {f"data/{name}": content for name, content in (storages or {}).items()}
    with zipfile.ZipFile(file, "w", **options) as made:
        for name, content in members.items():
            made.writestr(f"bad/{name}", content)
    return file.getvalue()


def hostile(path: str) -> dict[str, Callable[[], bytes]]:
    """Files that make `path` when they are loaded without care."""
    touch = f"touch {path}"
    python = f"open({path!r}, 'w').close()"
    system = Calls(os.system, touch)
    text = f"cos\nsystem\n(S'{touch}'\ntR.".encode()
    return {
        "os.system": lambda: torch_saved(system),
        "os.system, old format": lambda: torch_saved(
            system, _use_new_zipfile_serialization=False
        ),
        "eval": lambda: torch_saved(Calls(builtins.eval, python)),
        "as a key": lambda: archive(b"\x80\x02}" + text[:-1] + b"K\x01s."),
        "instance opcode": lambda: archive(f"(S'{touch}'\nios\nsystem\n.".encode()),
        "object opcode": lambda: archive(f"(cos\nsystem\nS'{touch}'\no.".encode()),
        "names from the stack": lambda: archive(
            b"\x80\x04\x8c\x02os\x8c\x06system\x93"
            + b"\x8c" + bytes([len(touch)]) + touch.encode() + b"\x85R."
        ),
        "as a persistent object": lambda: archive(
            b"\x80\x02(S'storage'\n" + text[:-1] + b"S'0'\nS'cpu'\nK\x02tQ."
        ),
        "plain pickle": lambda: pickle.dumps(system),
    }  # fmt: skip


def trap(path: str) -> bytes:
    """An array of one object that makes `path` when it is unpickled."""
    values = np.array([Calls(os.mkdir, path)], dtype=object)
    return npy(values, allow_pickle=True)


def png(width: int, height: int, values: bytes = b"") -> bytes:
    """A PNG that claims these sides."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    about = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", about) + chunk(
        b"IDAT", zlib.compress(values)
    ) + chunk(b"IEND", b"")  # fmt: skip


def jpeg(width: int, height: int) -> bytes:
    """A gray JPEG that claims these sides."""
    frame = struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0)
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + bytes(200)
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + scan


def folder(path: Path) -> None:
    path.mkdir(parents=True)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def of_size(size: int, start: bytes) -> Callable[[Path], None]:
    """A file of this size, of which only the start is on the disk."""

    def make(path: Path) -> None:
        path.write_bytes(start)
        os.truncate(path, size)

    return make


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


Change = Callable[[dict[str, Any]], Any]


def altered(change: Change) -> Callable[[Path], None]:
    """The good checkpoint, changed."""

    def make(path: Path) -> None:
        state = torch.load(path.with_name("good.ckpt"), weights_only=True)
        # The run's own log, which others read, stays as it is.
        state["earteach"]["config"]["run"]["log_dir"] = "logs"
        path.write_bytes(torch_saved(change(state)))

    return make


def shortened(share: float) -> Callable[[Path], None]:
    """The good checkpoint's beginning."""

    def make(path: Path) -> None:
        whole = path.with_name("good.ckpt").read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])

    return make


def without(key: str) -> Change:
    return lambda state: {name: value for name, value in state.items() if name != key}


def with_about(**changes: Any) -> Change:
    return lambda state: {**state, "earteach": {**state["earteach"], **changes}}


def with_config(**model: Any) -> Change:
    def change(state: dict[str, Any]) -> dict[str, Any]:
        config = state["earteach"]["config"]
        changed = with_about(config={**config, "model": {**config["model"], **model}})
        return dict(changed(state))

    return change


def with_weights(change: Callable[[str, Any], dict[str, Any]]) -> Change:
    def changed(state: dict[str, Any]) -> dict[str, Any]:
        weights: dict[str, Any] = {}
        for name, value in state["state_dict"].items():
            weights.update(change(name, value))
        return {**state, "state_dict": weights}

    return changed


def hostile_beside(path: str) -> Change:
    return lambda state: {**state, "note": Calls(os.system, f"touch {path}")}
