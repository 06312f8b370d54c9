"""Landmarks on the ears in pictures: files of their places, and the pictures with them.

>>> landmarks("landmarks.ckpt", [Path("ear.jpg")], Path("out")).images[0].points
((0.61, 0.22), …)
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from glob import escape
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch

from earteach.config import InferenceConfig
from earteach.data import photographs
from earteach.data.annotations.annotation import Annotation, Misfit, Square
from earteach.data.annotations.boxes import read_boxes
from earteach.data.annotations.landmark_formats import is_landmark_file, write_csv, write_pts
from earteach.data.image_batches import to_batch
from earteach.data.photographs import Decoded, Unreadable
from earteach.errors import EarTeachError
from earteach.files.folders import make_folder
from earteach.files.overwrite_guard import refuse_foreign
from earteach.hardware import at_most_cores
from earteach.images import is_own_png, write_png
from earteach.inference.inputs import check_inputs_kept, unique_name
from earteach.inference.loaded_model import LoadedModel, load_model
from earteach.model.landmark_head import Landmarks

TABLE = "landmarks.csv"
# Space around an ear, as `prepare` leaves it.
_MARGIN = 0.15
# The curves of the iBUG ear scheme of 55 points: outer rim, inner rim, concha, antihelix.
_CURVES = {55: (slice(0, 20), slice(20, 35), slice(35, 50), slice(50, 55))}
_COLOUR = (255, 140, 0)
# Whole photographs wait in memory.
_AT_ONCE = 8
# Larger pictures are shown smaller.
_LARGEST_SIDE = 640
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LandmarkedEar:
    """One ear: `points` as fractions of the picture's width and height, with a confidence each.

    The confidence is the share of a point's heat map that lies near it. `output` shows the points.
    """

    input: str
    output: Path
    points: tuple[tuple[float, float], ...]
    confidence: tuple[float, ...]


@dataclass(frozen=True)
class FoundLandmarks:
    """What `landmarks` found; `table` holds every point in pixels."""

    checkpoint: Path
    table: Path
    images: tuple[LandmarkedEar, ...]


@dataclass(frozen=True)
class _Picture:
    """An ear to look at: in a box of the photograph, or filling it."""

    path: Path
    name: str  # its path below the folder
    stem: str  # of its files in the output folder
    decoded: Decoded
    square: Square  # where the ear is looked for
    shown: Square  # what is shown with its points


def landmarks(
    path: str | Path,
    inputs: Sequence[Path],
    out: Path,
    *,
    boxes: Path | None = None,
    config: InferenceConfig = InferenceConfig(),
) -> FoundLandmarks:
    """Find the landmarks of the ears in images and folders of them, and write them to `out`.

    Each picture shows one ear, which fills most of it; with `boxes`, a file that `read_boxes` takes, the
    ears are in the boxes of larger photographs. `path` is a checkpoint that `train_landmarks` wrote.

    `out` gets a picture and a `.pts` file of each ear and one `landmarks.csv`, both in pixels.

    Raises `EarTeachError` for a network without landmarks and for inputs that cannot be read.
    """
    check_inputs_kept(inputs, out)
    model = load_model(path, config)
    pictures = _pictures(inputs, boxes)
    found: list[LandmarkedEar] = []
    pixels: list[tuple[str, np.ndarray]] = []
    while batch := list(islice(pictures, min(config.batch_size, _AT_ONCE))):
        fractions = _found(model, batch)
        make_folder(out)
        for file in (out / TABLE, *(out / f"{picture.stem}.pts" for picture in batch)):
            refuse_foreign(file, _is_ours, "landmarks")
        with ThreadPoolExecutor(at_most_cores(len(batch))) as pool:
            found += pool.map(
                lambda *each: _written(out, *each), batch, *map(np.asarray, fractions)
            )
        for picture, points in zip(batch, fractions[0], strict=True):
            pixels.append((picture.name, points * picture.decoded.size))
    if not found:
        raise EarTeachError("--input: none of the photographs could be read; try others")
    write_csv(out / TABLE, pixels)
    return FoundLandmarks(model.checkpoint.path, out / TABLE, tuple(found))


def _is_ours(path: Path) -> bool:
    """Labels made by hand begin like ours, but have no picture beside them that `landmarks` drew."""
    folder, pictures = path.parent, "*.png" if path.name == TABLE else f"{escape(path.stem)}.png"
    return is_landmark_file(path) and any(map(is_own_png, folder.glob(pictures)))


def _pictures(inputs: Sequence[Path], boxes: Path | None) -> Iterator[_Picture]:
    names = set[str]()
    for source in inputs:
        paths = photographs.find(source).files if source.is_dir() else [source]
        folder = source if source.is_dir() else source.parent
        relative = [path.relative_to(folder) for path in paths]
        annotated = read_boxes(boxes).of(relative) if boxes else [(None,)] * len(paths)
        for path, name, ears in zip(paths, relative, annotated, strict=True):
            try:
                photograph = photographs.Photograph(path)
                decoded = photograph.decoded(0, 1)
                for ear in ears or ():
                    whole = (0, 0, *decoded.size)
                    if ear is None:
                        square, shown = Annotation(box=whole).square(decoded.size, 0.0), whole
                    else:
                        annotation = ear.in_pixels(decoded.size, photograph.orientation)
                        square = shown = annotation.square(decoded.size, _MARGIN)
                    photographs.check_square(square[2])
                    stem = unique_name("-".join(name.with_suffix("").parts), names)
                    yield _Picture(path, name.as_posix(), stem, decoded, square, shown)
            except (Unreadable, Misfit) as error:
                if not source.is_dir():
                    raise EarTeachError(
                        f"--input {path}: {error}; name an image or a folder"
                    ) from error
                _log.info("left out %s: %s", path, error)


def _found(model: LoadedModel, pictures: Sequence[_Picture]) -> tuple[np.ndarray, np.ndarray]:
    """Points `(B, K, 2)` as fractions of the pictures, and their confidence `(B, K)`.

    The first look is at the box or the whole picture; the second at the points that it found.
    """
    squares = [picture.square for picture in pictures]
    points, _ = _look(model, pictures, squares)
    points, confidence = _look(model, pictures, list(map(_square_around, points, squares)))
    return points / np.array([picture.decoded.size for picture in pictures])[:, None], confidence


def _square_around(points: np.ndarray, before: Square) -> Square:
    """The square around points `(K, 2)`, at least half as large as the one that they were found in."""
    low, high = points.min(axis=0), points.max(axis=0)
    side = max(round(float((high - low).max()) * (1 + 2 * _MARGIN)), -(-before[2] // 2))
    side = min(side, photographs.LARGEST_SQUARE)
    left, top = np.round((low + high - side) / 2).astype(int).tolist()
    return left, top, side, side


def _look(
    model: LoadedModel, pictures: Sequence[_Picture], squares: Sequence[Square]
) -> tuple[np.ndarray, np.ndarray]:
    """Points in pixels of the pictures, from squares of them: the means of each ear and its mirror."""
    network = model.network
    crops = [
        picture.decoded.crop(square, network.image_size, network.in_channels)
        for picture, square in zip(pictures, squares, strict=True)
    ]
    images = to_batch(np.stack([crop.image for crop in crops])).to(model.device)
    with model.running():
        ear, mirror = network.landmarks(images), network.landmarks(images.flip(3))
    turned = torch.stack([1 - mirror.points[..., 0], mirror.points[..., 1]], dim=2)
    mean = Landmarks((ear.points + turned) / 2, (ear.confidence + mirror.confidence) / 2)
    points, confidence = (each.float().cpu().numpy() for each in mean)
    boxes = np.array([crop.box for crop in crops], float)[:, None]
    return boxes[..., :2] + points * boxes[..., 2:], confidence


def _written(
    out: Path, picture: _Picture, points: np.ndarray, confidence: np.ndarray
) -> LandmarkedEar:
    path = out / f"{picture.stem}.png"
    write_png(path, _drawn(picture, points), {"Input": str(picture.path)})
    write_pts(path.with_suffix(".pts"), points * picture.decoded.size)
    return LandmarkedEar(
        str(picture.path), path, tuple(map(tuple, points.tolist())), tuple(confidence.tolist())
    )


def _drawn(picture: _Picture, points: np.ndarray) -> np.ndarray:
    """What is shown of the picture, with the points; known schemes as curves. uint8 `(H, W, 3)`."""
    left, top, width, height = picture.shown
    scale = min(1.0, _LARGEST_SIDE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = photographs.cut(picture.decoded.bgr, (left, top, width, height))
    image = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
    places = (points * picture.decoded.size - (left, top)) * scale
    thickness = max(1, round(max(size) / 200))
    for curve in _CURVES.get(len(points), ()):
        line = np.round(places[curve]).astype(np.int32)
        cv2.polylines(image, [line], False, _COLOUR, thickness, cv2.LINE_AA)
    for x, y in np.round(places).astype(int).tolist():
        cv2.circle(image, (x, y), thickness + 1, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(image, (x, y), thickness, _COLOUR, -1, cv2.LINE_AA)
    return image
