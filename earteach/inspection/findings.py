"""What is wrong with the arrays: a new check is an entry in one of the lists below.

Thresholds follow the extremes of 13,755 EarVN photographs: of these 3 are nearly black, 0 nearly
white, 11 blurred and 7 clipped, and all of them look it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from earteach.data.arrays import is_dark, sampled_rows
from earteach.inspection import near_duplicates
from earteach.inspection.inspection_report import ArrayName, Problem, Severity
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

# Severity, code, what failed, and the message. What failed is the whole array (bool), images (a mask,
# bool (N,)), or copies (pairs (K, 2) of their rows and of the training images that they resemble).
# In the message, {them} stands for the images and {pair} for the first pair.
Finding = tuple[Severity, str, bool | np.ndarray, str]


def find_problems(surveys: Mapping[ArrayName, Survey]) -> list[Problem]:
    """The problems of the training array, then those of the validation array."""
    train, val = surveys["train"], surveys.get("val")
    problems = [_problem("train", train, each) for each in _training_faults(train) + _faults(train)]
    if val is not None:
        problems += [_problem("val", val, each) for each in _faults(val) + _differences(val, train)]
    return [problem for problem in problems if problem is not None]


def _problem(name: ArrayName, images: Survey, finding: Finding) -> Problem | None:
    """None if nothing failed."""
    severity, code, failed, message = finding
    subject = str(images.array.path)
    if isinstance(failed, bool):
        return Problem(severity, code, f"{subject}: {message}", array=name) if failed else None
    is_pairs = failed.ndim == 2
    rows, like = failed.T.tolist() if is_pairs else (np.flatnonzero(failed).tolist(), [])
    if not rows:
        return None
    message = message.replace("{them}", "it" if len(rows) == 1 else "them")
    if is_pairs:
        message = message.replace("{pair}", f"{rows[0]} is like {like[0]}")
    text = f"{subject}: {_list_rows(rows)}: {message}"
    return Problem(severity, code, text, tuple(rows), name, tuple(like))


def _list_rows(rows: list[int]) -> str:
    """`image 3`, `images 3 and 5`, `images 3, 5, 6, 9, 12 and 40 more`."""
    *names, last = [str(row) for row in rows[:MAX_LISTED]]
    if len(rows) > MAX_LISTED:
        names, last = [*names, last], f"{len(rows) - MAX_LISTED} more"
    return f"images {', '.join(names)} and {last}" if names else f"image {last}"


def _training_faults(train: Survey) -> list[Finding]:
    add = "add photographs, or draw ears with `earteach prepare --synthetic 256`"
    return [
        ("error", "too-few-images", train.count < 2, f"holds {train.count} image: {add}"),
        ("warning", "few-images", 2 <= train.count < FEW_IMAGES,
         f"holds only {train.count} images: {add}"),
        ("warning", "near-duplicates", near_duplicates.near_repeats(train),
         "nearly the same as an earlier image ({pair}); near copies count double in training; "
         "keep one of each"),
    ]  # fmt: skip


def _faults(images: Survey) -> list[Finding]:
    return [*_scale_faults(images), *_value_faults(images), *_visible_faults(images),
            *_channel_faults(images)]  # fmt: skip


def _scale_faults(images: Survey) -> list[Finding]:
    values, maximum = images.values, float(images.stats.maxima.max())
    dark = values.scale is not None and is_dark(maximum, values.white)
    return [
        ("error", "unreadable-scale", values.scale is None,
         f"values typically from {values.black:g} to {values.white:g}, neither in [0, 1] nor in "
         f"[0, 255]: rescale them, for example (array - {values.black:g}) / {values.extent:g}"),
        ("error", "unused-range", dark,
         f"{images.array.dtype} values only up to {maximum:g} of {values.white:g}, so all images are "
         "read as nearly black: multiply them, for example by "
         f"{values.white // max(maximum, 1e-9):g}"),
        ("error", "over-one", _over_one(images),
         f"values typically up to {np.median(images.stats.maxima):g}, a little over 1: clip them with "
         "array.clip(0, 1), or multiply them by 255"),
    ]  # fmt: skip


def _over_one(images: Survey) -> bool:
    """Whether floats that should lie in [0, 1] typically exceed it."""
    return images.values.scale == "unit" and bool(np.median(images.stats.maxima) > 1)


def _value_faults(images: Survey) -> list[Finding]:
    stats, values = images.stats, images.values
    repeats = np.isin(np.arange(images.count), near_duplicates.exact_repeats(images)[:, 0])
    # Images outside the range of the others, unless the whole array has a problem.
    has_range = values.scale in ("unit", "byte") and not _over_one(images)
    outside = (stats.minima < 0) | (stats.maxima > values.white)
    outside &= has_range & (stats.maxima >= stats.minima)
    in_unit = (stats.maxima > 0) & (stats.maxima <= 1) & ~outside & (values.scale == "byte")
    return [
        ("error", "non-finite", ~stats.finite, "NaN or infinity; remove or repair {them}"),
        ("error", "constant", stats.constant, "every pixel equal; remove {them}"),
        ("warning", "duplicates", repeats, "an exact repeat of an earlier image; remove {them}"),
        ("error", "value-range", outside,
         f"values outside [0, {values.white:g}], the range of the others; rescale {{them}} like the "
         "others, or remove {them}"),
        ("error", "mixed-scales", in_unit,
         "values only up to 1, where the others go up to 255; multiply {them} by 255"),
    ]  # fmt: skip


def _visible_faults(images: Survey) -> list[Finding]:
    """An image with several of these is listed for the first only, blurred ones aside."""
    stats = images.stats
    usable = stats.finite & ~stats.constant
    black, white = stats.brightness < BLACK_LEVEL, stats.brightness > WHITE_LEVEL
    exposed = usable & ~black & ~white
    barred = exposed & (stats.bars >= BARRED)
    clipped = exposed & ~barred & (stats.clipped > CLIPPED_SHARE)
    median = np.median(stats.sharpness[exposed]) if exposed.any() else 0.0
    return [
        ("warning", "nearly-black", usable & black,
         "almost only black; check the exposure, or remove {them}"),
        ("warning", "nearly-white", usable & white,
         "almost only white; check the exposure, or remove {them}"),
        ("warning", "letterboxed", barred,
         "bars of one colour on opposite edges; crop {them}, or remove {them}"),
        ("warning", "clipped", clipped,
         f"over {CLIPPED_SHARE:.0%} of the pixels fully black or white; check exposure and background"),
        ("warning", "blurred", exposed & (stats.sharpness < BLURRED * median),
         "far less sharp than the others; look at {them}, and remove what shows no ridges"),
    ]  # fmt: skip


def _channel_faults(images: Survey) -> list[Finding]:
    array, is_colour = images.array, images.array.channels == 3
    sample = (array.stored(int(row)) for row in sampled_rows(len(array)))
    is_gray = is_colour and all(
        np.array_equal(image, image[..., :1].repeat(3, axis=2), equal_nan=True) for image in sample
    )
    is_blue = bool((images.stats.redness < 0).mean() > SWAPPED_SHARE)
    return [
        ("warning", "gray-as-rgb", is_gray,
         "gray images stored as three equal channels: train with --in-channels 1, or store one "
         "channel"),
        ("warning", "channels-swapped", is_colour and images.count >= FEW_IMAGES and is_blue,
         "more blue than red in nearly all images, as if OpenCV's BGR were stored as RGB: look at "
         "them, and swap with array[..., ::-1]"),
    ]  # fmt: skip


def _differences(val: Survey, train: Survey) -> list[Finding]:
    """How validation differs from training, and where it does not."""
    ours, other, path = val.array, train.array, train.array.path
    sizes = [f"{array.width}×{array.height}" for array in (ours, other)]
    types = [_stored_as(val), _stored_as(train)]
    same = "make both arrays the same way"
    leak = "({pair}); validation would reward memorization; remove {them} from one of the arrays"
    return [
        ("warning", "size-mismatch", sizes[0] != sizes[1],
         f"images are {sizes[0]}, but in {path} {sizes[1]}: resizing blurs one of them; "
         f"{same}"),
        ("warning", "channels-mismatch", ours.channels != other.channels,
         f"channels: {ours.channels}, but {path} has {other.channels}: they are converted to match "
         f"--in-channels; {same}"),
        ("warning", "scale-mismatch", types[0] != types[1],
         f"stored as {types[0]}, but {path} as {types[1]}: both are read as 0 to 1; {same}"),
        ("error", "leakage-exact", near_duplicates.exact_matches(val, train),
         f"the same image in {path} {leak}"),
        ("warning", "leakage-near", near_duplicates.near_matches(val, train),
         f"nearly the same image (re-encoded, resized, mirrored) in {path} {leak}"),
    ]  # fmt: skip


def _stored_as(images: Survey) -> str:
    names = {"unit": "floats in [0, 1]", "byte": "floats in [0, 255]", None: "another range"}
    return names.get(images.values.scale, f"{images.array.dtype} values")
