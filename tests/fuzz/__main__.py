"""Fuzz readers of foreign files, guided by coverage: `python -m tests.fuzz npy -max_total_time=300`.

Whatever the bytes are, a reader returns a result or raises an `EarTeachError` of one line that names
the file. A target is `npy` (headers and arrays), `pickle` (the pickle inside a checkpoint) or
`checkpoint` (the whole file); the options after it go to libFuzzer. Needs `pip install atheris`. Turn
what it finds into a row in `tests/bad_input/cases.py`.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import atheris

INSTRUMENTED = [
    "earteach", "numpy.lib._format_impl", "torch.serialization", "torch._weights_only_unpickler",
]  # fmt: skip

with atheris.instrument_imports(include=INSTRUMENTED):
    import numpy as np
    import torch

    from earteach import checkpoint
    from earteach.config import TrainConfig
    from earteach.data.arrays import EarArray
    from earteach.errors import EarTeachError
    from tests.bad_input.files import npy, torch_saved

# Of a huge array only its first image is read.
_MOST_VALUES = 2**22


def _read_array(path: Path) -> None:
    array = EarArray.open(path)
    if array.height * array.width * array.channels <= _MOST_VALUES:
        image = array.image(0, size=16, channels=3)
        assert image.shape == (16, 16, 3)
        assert image.dtype == np.uint8


def _read_checkpoint(path: Path) -> None:
    read = checkpoint.read(path)
    # Without memory for values the shapes are compared all the same.
    if read.config.model.base_channels <= 64 and read.config.model.latent_dim <= 1024:
        read.model()


def _arrays() -> list[bytes]:
    shapes = [(2, 4, 4, 3), (2, 3, 4, 4), (2, 4, 4), (4, 4, 3)]
    arrays = [
        np.zeros(shape, dtype) for shape in shapes for dtype in ("u1", "<u2", ">f4", "f2", "O")
    ]
    arrays.append(np.asfortranarray(np.ones((2, 4, 5, 3))))
    return [npy(array, allow_pickle=True) for array in arrays]


def _checkpoint() -> bytes:
    state = {
        "earteach": checkpoint.about(TrainConfig(), {}, epochs_completed=1),
        "state_dict": {"model.a": torch.ones(2), "averaged.b": torch.zeros(3, 2)},
        "global_step": 3,
    }
    return torch_saved(state)


def _with_pickle(data: bytes) -> bytes:
    """A checkpoint's archive, sums and all, with other bytes for its pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_WHOLE)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, data if name.endswith("data.pkl") else old.read(name))
    return file.getvalue()


def _pickles() -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(_WHOLE)) as archive:
        return [archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")]


_WHOLE = _checkpoint()
TARGETS: dict[str, tuple[Callable[[Path], None], Callable[[bytes], bytes], list[bytes]]] = {
    "npy": (_read_array, bytes, _arrays()),
    "pickle": (_read_checkpoint, _with_pickle, _pickles()),
    "checkpoint": (_read_checkpoint, bytes, [_WHOLE]),
}


def main() -> None:
    target, *options = sys.argv[1:]
    read, wrapped, seeds = TARGETS[target]
    folder = Path(tempfile.mkdtemp(prefix="earteach-fuzz-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    path = folder / "input"

    def once(data: bytes) -> None:
        path.write_bytes(wrapped(data))
        try:
            read(path)
        except EarTeachError as error:
            text = str(error)
            assert str(path) in text, text
            assert "\n" not in text, text
        assert set(folder.iterdir()) == {path, corpus}

    warnings.simplefilter("error")  # as in the tests
    os.chdir(folder)  # where libFuzzer leaves its findings
    sys.stderr.write(f"findings are left in {folder}\n")
    atheris.Setup([sys.argv[0], "-rss_limit_mb=4096", "-timeout=10", str(corpus), *options], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
