"""What is wrong: from measurements to problems, each with the next step.

Thresholds follow the extremes of 13,755 EarVN photographs: among them 3 are nearly black, 0 nearly
white, 11 blurred and 7 clipped, and each of these looks it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from earteach.data.arrays import sampled_rows
from earteach.inspection.inspection_report import Problem, Severity, Side
from earteach.inspection.near_duplicates import near_repeats, repeats
from earteach.inspection.survey import Facts, Survey

FEW_IMAGES = 32
BLACK_LEVEL, WHITE_LEVEL = 10, 245
CLIPPED_SHARE = 0.3
BLURRED = 0.08
"""Share of the array's median sharpness; a Gaussian blur of 3 pixels (at 64×64) leaves 0.02."""
BARRED = 0.03
"""Share of the side; none of 13,755 EarVN and 560 AMI photographs has such bars."""
SWAPPED_SHARE = 0.8
"""Share of images with more blue than red; measured: EarVN 0.03, AMI and drawn ears 0.00."""
NAMED = 5


def training_problems(images: Survey) -> list[Problem]:
    """What matters in the training array only: its size, and near copies inside it."""
    near = near_repeats(images)
    found = _size_problems(images)
    if len(near):
        step = "near copies weigh double in training; keep one of each"
        what = f"nearly the same image earlier in the array{_example(near)}"
        found.append(_problem(images, "train", "warning", "near-duplicates", what, near, step))
    return found


def _size_problems(images: Survey) -> list[Problem]:
    count, path = len(images.array), images.array.path
    step = "add photographs, or draw ears with `earteach prepare --synthetic 256`"
    if count < 2:
        return [Problem("error", "too-few-images", f"{path}: holds {count} image: {step}")]
    if count < FEW_IMAGES:
        return [Problem("warning", "few-images", f"{path}: holds only {count} images: {step}")]
    return []


class Flag(NamedTuple):
    """A finding about single images; `step` may say `{them}`."""

    severity: Severity
    code: str
    what: str
    mask: np.ndarray  # (N,) the images that it concerns
    step: str


def array_problems(images: Survey, side: Side) -> list[Problem]:
    """What is wrong with one array, by itself."""
    flags = [*_value_flags(images), *_range_flags(images), *_picture_flags(images.facts)]
    rowwise = []
    for severity, code, what, mask, step in flags:
        if mask.any():
            found = np.flatnonzero(mask)[:, None]
            rowwise.append(_problem(images, side, severity, code, what, found, step))
    return [*_scale_problems(images, side), *rowwise, *_colour_problems(images, side)]


def _value_flags(images: Survey) -> Iterator[Flag]:
    facts = images.facts
    yield Flag("error", "non-finite", "NaN or infinity", ~facts.finite, "remove or repair {them}")
    yield Flag("error", "constant", "every pixel equal", facts.constant, "remove {them}")
    repeated = np.zeros(len(facts.finite), bool)
    repeated[repeats(images)[:, 0]] = True
    what = "an exact repeat of an earlier image"
    yield Flag("warning", "duplicates", what, repeated, "remove {them}")


def _picture_flags(facts: Facts) -> Iterator[Flag]:
    """Exposure and sharpness; an image that is flagged for one is not blamed for the next."""
    usable = facts.finite & ~facts.constant
    black = usable & (facts.brightness < BLACK_LEVEL)
    white = usable & (facts.brightness > WHITE_LEVEL)
    seen = usable & ~black & ~white
    step = "check the exposure, or remove {them}"
    yield Flag("warning", "nearly-black", "almost only black", black, step)
    yield Flag("warning", "nearly-white", "almost only white", white, step)
    barred = seen & (facts.bars >= BARRED)
    what = "bars of one colour on opposite edges"
    yield Flag("warning", "letterboxed", what, barred, "crop {them}, or remove {them}")
    clipped = seen & ~barred & (facts.clipped > CLIPPED_SHARE)
    what = f"over {CLIPPED_SHARE:.0%} of the pixels fully black or white"
    yield Flag("warning", "clipped", what, clipped, "check exposure and background")
    step = "look at {them}, and remove what shows no ridges"
    yield Flag("warning", "blurred", "far less sharp than the others", _blurred(facts, seen), step)


def _blurred(facts: Facts, seen: np.ndarray) -> np.ndarray:
    if not seen.any():
        return seen
    return seen & (facts.sharpness < BLURRED * np.median(facts.sharpness[seen]))


def _range_flags(images: Survey) -> Iterator[Flag]:
    """Float images outside the range of most others; of the whole array, see `_scale_problems`."""
    scale, facts = images.reading.scale, images.facts
    if scale not in ("unit", "byte") or _over_one(images):
        return
    limit = images.reading.white
    known = facts.highs >= facts.lows
    outside = known & ((facts.lows < 0) | (facts.highs > limit))
    what = f"values outside [0, {limit:g}], the range of the others"
    step = "rescale {them} like the others, or remove {them}"
    yield Flag("error", "value-range", what, outside, step)
    small = known & ~outside & (facts.highs > 0) & (facts.highs <= 1)
    if scale == "byte":
        what = "values only up to 1, where the others go up to 255"
        yield Flag("error", "mixed-scales", what, small, "multiply {them} by 255")


def _scale_problems(images: Survey, side: Side) -> list[Problem]:
    """Where the array as a whole is in no range that can be read, or hardly uses its range."""
    path, reading, highest = images.array.path, images.reading, float(images.facts.highs.max())
    low, high = reading.black, reading.white
    if reading.scale is None:
        message = (
            f"{path}: values typically from {low:g} to {high:g}, neither in [0, 1] nor in "
            f"[0, 255]: rescale them, for example (array - {low:g}) / {high - low:g}"
        )
        return [Problem("error", "unreadable-scale", message, array=side)]
    if reading.scale in ("uint8", "uint16") and 0 < highest < high / 15:
        message = (
            f"{path}: {reading.scale} values only up to {highest:g} of {high:g}, so all images "
            f"are read as nearly black: multiply them, for example by {high // highest:g}"
        )
        return [Problem("error", "unused-range", message, array=side)]
    if _over_one(images):
        message = (
            f"{path}: values typically up to {np.median(images.facts.highs):g}, a little over 1: clip "
            "them with array.clip(0, 1), or multiply them by 255"
        )
        return [Problem("error", "over-one", message, array=side)]
    return []


def _over_one(images: Survey) -> bool:
    """Whether floats that are to lie in [0, 1] are over it as a rule."""
    return images.reading.scale == "unit" and float(np.median(images.facts.highs)) > 1


def _colour_problems(images: Survey, side: Side) -> list[Problem]:
    if images.array.channels != 3:
        return []
    path = images.array.path
    sample = (images.array.stored(int(row)) for row in sampled_rows(len(images.array)))
    if all(np.array_equal(row, row[..., :1].repeat(3, axis=2), equal_nan=True) for row in sample):
        message = (
            f"{path}: gray images stored as three equal channels: "
            "train with --in-channels 1, or store one channel"
        )
        return [Problem("warning", "gray-as-rgb", message, array=side)]
    if (images.facts.redness < 0).mean() <= SWAPPED_SHARE or len(images.array) < FEW_IMAGES:
        return []
    message = (
        f"{path}: more blue than red in nearly all images, as when OpenCV's BGR is "
        "stored for RGB: look at them, and swap with array[..., ::-1]"
    )
    return [Problem("warning", "channels-swapped", message, array=side)]


def mismatch_problems(train: Survey, val: Survey) -> list[Problem]:
    """Where the two arrays differ in a way that reading evens out, but hardly anyone intends."""
    return [
        Problem(
            "warning",
            code,
            f"{val.array.path}: {what} {theirs}, where {train.array.path} has {ours}: "
            f"{step}; make both arrays in one way",
            array="val",
        )
        for code, what, ours, theirs, step in _compared(train, val)
        if ours != theirs
    ]


def _compared(train: Survey, val: Survey) -> Iterator[tuple[str, str, str, str, str]]:
    """Code, property, its values in both arrays, and what reading them does."""
    sizes = [f"{side.array.width}×{side.array.height}" for side in (train, val)]
    yield "size-mismatch", "images of", sizes[0], sizes[1], "resizing makes one of them softer"
    channels = [str(side.array.channels) for side in (train, val)]
    step = "they are converted as --in-channels asks"
    yield "channels-mismatch", "channels:", channels[0], channels[1], step
    names = {"unit": "floats in [0, 1]", "byte": "floats in [0, 255]", None: "another range"}
    scales = [names.get(side.reading.scale, f"{side.array.dtype} values") for side in (train, val)]
    yield "scale-mismatch", "stored as", scales[0], scales[1], "both are read as 0 to 1"


def leakage_problems(
    train: Survey, val: Survey, exact: np.ndarray, near: np.ndarray
) -> list[Problem]:
    """Validation images that training has seen, by pairs of (validation row, training row)."""
    step = "validation would measure memory; remove {them} from one of the arrays"
    kinds: list[tuple[Severity, str, str, np.ndarray]] = [
        ("error", "leakage-exact", "the same image", exact),
        ("warning", "leakage-near", "nearly the same image (re-encoded, resized, mirrored)", near),
    ]
    return [
        _problem(
            val, "val", severity, code,
            f"{what} in {train.array.path}{_example(pairs)}", pairs, step,
        )
        for severity, code, what, pairs in kinds
        if len(pairs)
    ]  # fmt: skip


def _problem(
    images: Survey,
    side: Side,
    severity: Severity,
    code: str,
    what: str,
    found: np.ndarray,
    step: str,
) -> Problem:
    """`found` `(K, 1 or 2)` holds rows, and beside each the training row that it is like."""
    indices, *like = (tuple(column) for column in found.T.tolist())
    them = "it" if len(indices) == 1 else "them"
    message = f"{images.array.path}: {_listed(indices)}: {what}; {step.format(them=them)}"
    return Problem(severity, code, message, indices, side, *like)


def _listed(indices: tuple[int, ...]) -> str:
    """`image 3`, `images 3 and 5`, `images 3, 5, 6, 9, 12 and 40 more`."""
    names = [str(row) for row in indices[:NAMED]]
    more = len(indices) - len(names)
    if len(indices) == 1:
        return f"image {names[0]}"
    if more:
        return f"images {', '.join(names)} and {more} more"
    return f"images {', '.join(names[:-1])} and {names[-1]}"


def _example(pairs: np.ndarray) -> str:
    """` (12 is 7)`: the first pair, to look at."""
    return f" ({pairs[0, 0]} is like {pairs[0, 1]})"
