"""`prepare` beside the JPEG decoder, and what `inspect-data` needs."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from benchmarks.speed import memory
from benchmarks.speed.pairs import Row, in_turn
from benchmarks.speed.workspace import drawn_ears
from earteach.data.crops import Crop
from earteach.data.prepare import prepare
from earteach.hardware import at_most_cores

SIZE, TURNS, INSPECT_SECONDS = 256, 5, 6
_SMALL, _LARGE = (500, 700, 300), (3000, 4000, 8)  # width, height, number


def rows(workspace: Path) -> Iterator[Row]:
    folder = workspace / "data"
    folder.mkdir(exist_ok=True)
    ears = np.load(drawn_ears(workspace, size=SIZE, number=32) / "train_teacher.npy")
    yield from _prepare(folder, ears)
    yield _inspecting(drawn_ears(workspace, size=SIZE, number=320))
    yield _memory(folder)


def _prepare(folder: Path, ears: np.ndarray) -> Iterator[Row]:
    for name, (width, height, number), reading, target in (
        ("500×700", _SMALL, cv2.IMREAD_COLOR, 1.3),
        ("12-megapixel", _LARGE, cv2.IMREAD_REDUCED_COLOR_4, 1.1),
    ):
        photos = folder / name
        _photographs(photos, ears, width, height, number)
        paths = sorted(photos.iterdir())
        ours = _preparing(photos, folder / f"{name}-arrays")
        what = f"`prepare` of {number} {name} JPEGs to {SIZE} px"
        decoding = _on_all_cores(paths, _decode, reading)
        yield in_turn(ours, decoding, TURNS).row(
            what, "at most", target, "decoding alone, at the same scale and threads"
        )
        plain = _on_all_cores(paths, _shrink, cv2.IMREAD_COLOR)
        yield in_turn(ours, plain, TURNS).row(
            what, "at most", 1, "decoding whole and INTER_AREA, nothing written, same threads"
        )


def _preparing(photos: Path, out: Path) -> Callable[[], object]:
    return lambda: prepare(photos, out, crop=Crop(SIZE))


def _on_all_cores(
    paths: list[Path], read: Callable[[Path, int], object], flags: int
) -> Callable[[], None]:
    def call() -> None:
        with ThreadPoolExecutor(at_most_cores(len(paths))) as pool:
            for _ in pool.map(lambda path: read(path, flags) is not None, paths):
                pass

    return call


def _decode(path: Path, flags: int) -> np.ndarray:
    image = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    assert image is not None
    return image


def _shrink(path: Path, flags: int) -> np.ndarray:
    return cv2.resize(_decode(path, flags), (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def _photographs(folder: Path, ears: np.ndarray, width: int, height: int, number: int) -> None:
    """Drawn ears enlarged, with a sensor's noise, as JPEGs."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 8, (height // 2, width // 2, 3)).astype(np.float32)
    for place in range(number):
        ear = cv2.resize(ears[place % len(ears)], (width, height), interpolation=cv2.INTER_CUBIC)
        noise = cv2.resize(np.roll(grain, 7 * place, axis=0), (width, height))
        photo = np.clip(ear + noise, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{place:04d}.jpg"), photo, [cv2.IMWRITE_JPEG_QUALITY, 90])


def _inspecting(ears: Path) -> Row:
    """Processor time of the whole command, which fits PCA for its forecast."""
    arrays = [ears / f"{part}_teacher.npy" for part in ("train", "val")]
    for cache in ears.glob("*.npz"):
        cache.unlink()
    before = _children_seconds()
    command = [sys.executable, "-m", "earteach", "inspect-data", *map(str, arrays)]
    subprocess.run(command, check=True, capture_output=True)
    number = len(np.load(arrays[0], mmap_mode="r"))
    what = f"`inspect-data` of {number} images, {SIZE} px: processor time"
    return Row(what, _children_seconds() - before, INSPECT_SECONDS, "s", "at most", 1, "allowed")


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _memory(folder: Path) -> Row:
    path, shape = folder / "sparse.npy", (20_000, 128, 128, 3)
    np.lib.format.open_memmap(path, "w+", np.uint8, shape).flush()
    whole, peak = path.stat().st_size / 2**20, memory.peak("inspect", path)
    path.unlink()
    what = "`inspect-data` of 20,000 images, 128 px: anonymous memory"
    return Row(what, peak, whole, "MB", "at most", 0.1, "the array")
