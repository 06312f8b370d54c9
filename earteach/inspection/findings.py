"""What is wrong with the arrays: a new check is an entry in `CHECKS`, which is in reporting order.

Thresholds follow the extremes of 13,755 EarVN photographs: of these 3 are nearly black, 0 nearly
white, 11 blurred and 7 clipped, and all of them look it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from earteach.data.arrays import sampled_rows
from earteach.inspection.inspection_report import ArrayName, Problem, Severity
from earteach.inspection.near_duplicates import (
    exact_matches,
    exact_repeats,
    near_matches,
    near_repeats,
)
from earteach.inspection.survey import Survey

FEW_IMAGES = 32
BLACK_LEVEL, WHITE_LEVEL = 10, 245
CLIPPED_SHARE = 0.3
BLURRED = 0.08
"""Share of the array's median sharpness; a Gaussian blur of 3 pixels (at 64×64) leaves 0.02."""
BARRED = 0.03
"""Share of the side; none of 13,755 EarVN and 560 AMI photographs has such bars."""
SWAPPED_SHARE = 0.8
"""Share of images with more blue than red; 0.03 in EarVN, 0.00 in AMI and drawn ears."""
MAX_LISTED = 5


class Check(NamedTuple):
    """A test of one array, given it and the training array.

    It returns whether the whole array fails, or a mask, bool `(N,)`, of the images that fail, or pairs
    `(K, 2)` of the rows of copies and of the training images that they resemble. `message` is a format
    of the two surveys `i` and `train`, the `rows`, what they are `like`, and `them`.
    """

    severity: Severity
    code: str
    test: Callable[[Survey, Survey], bool | np.ndarray]
    message: str
    arrays: tuple[ArrayName, ...] = ("train", "val")


def find_problems(surveys: Mapping[ArrayName, Survey]) -> list[Problem]:
    """The problems of the training array, then those of the validation array."""
    train = surveys["train"]
    return [
        _problem(check, name, images, train, rows, like)
        for name, images in surveys.items()
        for check in CHECKS
        if name in check.arrays
        for rows, like in _failures(check.test(images, train))
    ]


Rows = tuple[int, ...]


def _failures(result: bool | np.ndarray) -> list[tuple[Rows, Rows]]:
    """No or one failure: its rows, empty for the whole array, and for copies what they are like."""
    if not isinstance(result, np.ndarray):
        return [((), ())] if result else []
    if result.dtype == bool:
        rows = tuple(np.flatnonzero(result).tolist())
        return [(rows, ())] if rows else []
    copies, originals = (tuple(column) for column in result.T.tolist())
    return [(copies, originals)] if copies else []


def _problem(
    check: Check, name: ArrayName, images: Survey, train: Survey, rows: Rows, like: Rows
) -> Problem:
    them = "it" if len(rows) == 1 else "them"
    text = check.message.format(i=images, train=train, rows=rows, like=like, them=them)
    subject = f"{images.array.path}: {_list_rows(rows)}" if rows else images.array.path
    return Problem(check.severity, check.code, f"{subject}: {text}", rows, name, like)


def _list_rows(rows: Rows) -> str:
    """`image 3`, `images 3 and 5`, `images 3, 5, 6, 9, 12 and 40 more`."""
    *names, last = [str(row) for row in rows[:MAX_LISTED]]
    if len(rows) > MAX_LISTED:
        names, last = [*names, last], f"{len(rows) - MAX_LISTED} more"
    return f"images {', '.join(names)} and {last}" if names else f"image {last}"


def _over_one(images: Survey) -> bool:
    """Whether floats that should lie in [0, 1] typically exceed it."""
    return images.values.scale == "unit" and images.typical_maximum > 1


def _unused_range(images: Survey) -> bool:
    is_integer = images.values.scale in ("uint8", "uint16")
    return is_integer and 0 < images.maximum < images.values.white / 15


def _is_gray(images: Survey) -> bool:
    """Whether the sampled images have three equal channels."""
    array = images.array
    sample = (array.stored(int(row)) for row in sampled_rows(len(array)))
    return array.channels == 3 and all(
        np.array_equal(image, image[..., :1].repeat(3, axis=2), equal_nan=True) for image in sample
    )


def _is_bgr(images: Survey) -> bool:
    """Whether nearly all images have more blue than red; gray ones have as much."""
    is_blue = bool((images.stats.redness < 0).mean() > SWAPPED_SHARE)
    return images.array.channels == 3 and images.count >= FEW_IMAGES and is_blue


def _repeated(images: Survey) -> np.ndarray:
    mask = np.zeros(images.count, bool)
    mask[exact_repeats(images)[:, 0]] = True
    return mask


def _out_of_range(images: Survey) -> np.ndarray:
    """Float images outside the range of the others, unless the whole array has a problem."""
    stats, values = images.stats, images.values
    applies = values.scale in ("unit", "byte") and not _over_one(images)
    known = stats.maxima >= stats.minima
    return applies & known & ((stats.minima < 0) | (stats.maxima > values.white))


def _other_scale(images: Survey) -> np.ndarray:
    """Images in [0, 1] among others in [0, 255]."""
    highest = images.stats.maxima
    within = (highest > 0) & (highest <= 1) & ~_out_of_range(images)
    return within & (images.values.scale == "byte")


def _visible_faults(images: Survey) -> dict[str, np.ndarray]:
    """A mask for each fault; an image with several is listed for the first only."""
    stats = images.stats
    usable = stats.finite & ~stats.constant
    black, white = stats.brightness < BLACK_LEVEL, stats.brightness > WHITE_LEVEL
    exposed = usable & ~black & ~white
    barred = exposed & (stats.bars >= BARRED)
    median = np.median(stats.sharpness[exposed]) if exposed.any() else 0.0
    return {
        "nearly-black": usable & black,
        "nearly-white": usable & white,
        "letterboxed": barred,
        "clipped": exposed & ~barred & (stats.clipped > CLIPPED_SHARE),
        "blurred": exposed & (stats.sharpness < BLURRED * median),
    }


_ADD = "add photographs, or draw ears with `earteach prepare --synthetic 256`"
_LEAK = "validation would measure memory; remove {them} from one of the arrays"
_SAME = "make both arrays in one way"

CHECKS = (
    Check(
        "error", "too-few-images", lambda i, _: i.count < 2,
        f"holds {{i.count}} image: {_ADD}", ("train",),
    ),
    Check(
        "warning", "few-images", lambda i, _: 2 <= i.count < FEW_IMAGES,
        f"holds only {{i.count}} images: {_ADD}", ("train",),
    ),
    Check(
        "warning", "near-duplicates", lambda i, _: near_repeats(i),
        "nearly the same image earlier in the array ({rows[0]} is like {like[0]}); near copies weigh "
        "double in training; keep one of each", ("train",),
    ),
    Check(
        "error", "unreadable-scale", lambda i, _: i.values.scale is None,
        "values typically from {i.values.black:g} to {i.values.white:g}, neither in [0, 1] nor in "
        "[0, 255]: rescale them, for example (array - {i.values.black:g}) / {i.values.extent:g}",
    ),
    Check(
        "error", "unused-range", lambda i, _: _unused_range(i),
        "{i.values.scale} values only up to {i.maximum:g} of {i.values.white:g}, so all images are "
        "read as nearly black: multiply them, for example by {i.headroom:g}",
    ),
    Check(
        "error", "over-one", lambda i, _: _over_one(i),
        "values typically up to {i.typical_maximum:g}, a little over 1: clip them with "
        "array.clip(0, 1), or multiply them by 255",
    ),
    Check(
        "error", "non-finite", lambda i, _: ~i.stats.finite,
        "NaN or infinity; remove or repair {them}",
    ),
    Check("error", "constant", lambda i, _: i.stats.constant, "every pixel equal; remove {them}"),
    Check(
        "warning", "duplicates", lambda i, _: _repeated(i),
        "an exact repeat of an earlier image; remove {them}",
    ),
    Check(
        "error", "value-range", lambda i, _: _out_of_range(i),
        "values outside [0, {i.values.white:g}], the range of the others; rescale {them} like the "
        "others, or remove {them}",
    ),
    Check(
        "error", "mixed-scales", lambda i, _: _other_scale(i),
        "values only up to 1, where the others go up to 255; multiply {them} by 255",
    ),
    Check(
        "warning", "nearly-black", lambda i, _: _visible_faults(i)["nearly-black"],
        "almost only black; check the exposure, or remove {them}",
    ),
    Check(
        "warning", "nearly-white", lambda i, _: _visible_faults(i)["nearly-white"],
        "almost only white; check the exposure, or remove {them}",
    ),
    Check(
        "warning", "letterboxed", lambda i, _: _visible_faults(i)["letterboxed"],
        "bars of one colour on opposite edges; crop {them}, or remove {them}",
    ),
    Check(
        "warning", "clipped", lambda i, _: _visible_faults(i)["clipped"],
        f"over {CLIPPED_SHARE:.0%} of the pixels fully black or white; check exposure and background",
    ),
    Check(
        "warning", "blurred", lambda i, _: _visible_faults(i)["blurred"],
        "far less sharp than the others; look at {them}, and remove what shows no ridges",
    ),
    Check(
        "warning", "gray-as-rgb", lambda i, _: _is_gray(i),
        "gray images stored as three equal channels: train with --in-channels 1, or store one "
        "channel",
    ),
    Check(
        "warning", "channels-swapped", lambda i, _: _is_bgr(i),
        "more blue than red in nearly all images, as when OpenCV's BGR is stored for RGB: look at "
        "them, and swap with array[..., ::-1]",
    ),
    Check(
        "warning", "size-mismatch", lambda i, train: i.size != train.size,
        "images of {i.size}, where {train.array.path} has {train.size}: resizing makes one of "
        f"them softer; {_SAME}", ("val",),
    ),
    Check(
        "warning", "channels-mismatch", lambda i, train: i.array.channels != train.array.channels,
        "channels: {i.array.channels}, where {train.array.path} has {train.array.channels}: they are "
        f"converted as --in-channels asks; {_SAME}", ("val",),
    ),
    Check(
        "warning", "scale-mismatch", lambda i, train: i.stored_as != train.stored_as,
        "stored as {i.stored_as}, where {train.array.path} has {train.stored_as}: both are "
        f"read as 0 to 1; {_SAME}", ("val",),
    ),
    Check(
        "error", "leakage-exact", exact_matches,
        f"the same image in {{train.array.path}} ({{rows[0]}} is like {{like[0]}}); {_LEAK}", ("val",),
    ),
    Check(
        "warning", "leakage-near", near_matches,
        "nearly the same image (re-encoded, resized, mirrored) in {train.array.path} ({rows[0]} is like "
        f"{{like[0]}}); {_LEAK}", ("val",),
    ),
)  # fmt: skip
