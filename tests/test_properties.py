"""Properties of any array, option and schedule, tested with Hypothesis."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from earteach.config import TrainConfig
from earteach.data.arrays import EarArray
from earteach.errors import EarTeachError

# The same examples each time, and no file of them: a test fails for a change of the code alone.
BOUNDED = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def attempted(call: Callable[[], Any]) -> tuple[Any, str]:
    """The call's result, or the message of its `EarTeachError`; other exceptions fail the test."""
    try:
        return call(), ""
    except EarTeachError as error:
        return None, str(error)


DTYPES = st.one_of(
    hnp.unsigned_integer_dtypes(endianness="?", sizes=(8, 16)),
    hnp.floating_dtypes(endianness="?"),
    hnp.scalar_dtypes(),
    hnp.byte_string_dtypes(max_len=3),
    hnp.array_dtypes(max_size=2),
)
SIDES = st.integers(1, 6)
CHANNELS = st.sampled_from([1, 3, 3, 4])
SHAPES = st.one_of(
    st.tuples(SIDES, SIDES, SIDES, CHANNELS),
    st.tuples(SIDES, CHANNELS, SIDES, SIDES),
    st.tuples(SIDES, SIDES, SIDES),
    hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
)
LEVELS = {"unit": (0, 1), "byte": (0, 255), "wide": (-2, 300)}


@st.composite
def saved_arrays(draw: st.DrawFn) -> np.ndarray:
    """Of any type and shape; floats mostly in the ranges that images have."""
    dtype, shape = draw(DTYPES), draw(SHAPES)
    elements = None
    if dtype.kind == "f" and draw(st.integers(0, 3)):
        low, high = draw(st.sampled_from(list(LEVELS.values())))
        elements = {"min_value": low, "max_value": high}
    array = draw(hnp.arrays(dtype, shape, elements=elements))
    return np.asfortranarray(array) if draw(st.booleans()) else array


def layout_by_hand(shape: tuple[int, ...]) -> str | None:
    """The one order of the axes that is possible, as the guide says it."""
    if 0 in shape:
        return None
    if len(shape) == 3:
        return None if shape[2] in (1, 3) or shape[0] == 3 else "nhw"
    if len(shape) != 4:
        return None
    last, second = shape[3] in (1, 3), shape[1] in (1, 3)
    return {(True, False): "nhwc", (False, True): "nchw"}.get((last, second))


def brightness_by_hand(values: np.ndarray) -> np.ndarray | None:
    """Values in [0, 255] before rounding, or None for what is no image."""
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        white = 256**values.dtype.itemsize - 1
        return None if 0 < values.max() < white / 15 else values * (255 / white)
    if values.dtype.kind != "f":
        return None
    exact = values.astype(np.longdouble)
    if not (np.isfinite(exact).all() and (exact >= 0).all() and (exact <= 255).all()):
        return None
    white = 1 if exact.max() <= 1 else 255
    return None if 0 < float(exact.max()) < white / 15 else exact * (255 / white)


def read_whole(path: Path) -> tuple[EarArray, np.ndarray]:
    array = EarArray.open(path)
    return array, np.stack([array.image_uint8(row) for row in range(len(array))])


@BOUNDED
@given(saved_arrays())
def test_an_array_that_numpy_saves_opens_rightly_or_is_refused_in_words(array: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ears.npy"
        with warnings.catch_warnings():  # numpy tells of names that are not Latin
            warnings.simplefilter("ignore", UserWarning)
            np.save(path, array, allow_pickle=True)
        loaded = np.load(path, allow_pickle=True)
        layout = layout_by_hand(loaded.shape)
        wanted = brightness_by_hand(loaded) if layout else None
        opened, refusal = attempted(lambda: read_whole(path))
        assert (wanted is None) == (opened is None), (
            refusal or f"{array.dtype} {array.shape} opened"
        )
        if opened is None or wanted is None:
            assert str(path) in refusal
            assert "\n" not in refusal
            return
        opened, images = opened
        assert opened.layout == layout
        assert images.dtype == np.uint8
        by_hand = {"nhwc": wanted, "nhw": wanted[..., None]}.get(layout)
        by_hand = np.moveaxis(wanted, 1, -1) if by_hand is None else by_hand
        assert images.shape == by_hand.shape
        assert np.abs(images - by_hand).max() <= 0.5001
        assert opened.image(0, size=16, channels=3).shape == (16, 16, 3)


OPTIONS = {option.name: option for _, option, _ in TrainConfig().options()}
VALUES = st.one_of(
    st.integers(), st.integers(0, 64), st.floats(), st.booleans(), st.none(), st.text(),
    st.sampled_from(["clean", "cosine", "32", "cyclic", "cpu"]), st.lists(st.integers()),
)  # fmt: skip


@BOUNDED
@given(st.sampled_from(sorted(OPTIONS)), VALUES)
def test_an_option_keeps_its_bounds_or_is_refused_by_its_name(name: str, value: Any) -> None:
    option = OPTIONS[name]
    config, refusal = attempted(lambda: TrainConfig().with_options({name: value}))
    if refusal:
        assert refusal.startswith(option.flag)
        return
    kept = next(kept for _, option, kept in config.options() if option.name == name)
    assert TrainConfig.from_dict(config.to_dict()) == config
    if isinstance(kept, int | float):
        assert not isinstance(value, bool) or isinstance(kept, bool)
        assert math.isfinite(kept)
        assert kept == value
        limits = option
        assert limits.at_least is None or kept >= limits.at_least
        assert limits.above is None or kept > limits.above
        assert kept <= (limits.at_most or 2**31)
