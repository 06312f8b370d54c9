"""Arrays on disk: every layout and type gives the same ears; anything else is a clear error."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from earteach.data.arrays import EarArray, sampled_rows
from earteach.errors import EarTeachError
from earteach.synthetic.drawn_ear import draw_ear

SIZE = 32
LUMA = np.array([0.299, 0.587, 0.114])

# How uint8 ears are stored in each type, written as a user would write it.
STORED = {
    "uint8": lambda ears: ears,
    "uint16": lambda ears: ears.astype(np.uint16) * 257,
    "uint16 big-endian": lambda ears: (ears.astype(np.uint16) * 257).astype(">u2"),
    "float16 unit": lambda ears: (ears / 255).astype(np.float16),
    "float32 unit": lambda ears: (ears / 255).astype(np.float32),
    "float64 unit": lambda ears: ears / 255,
    "float32 unit big-endian": lambda ears: (ears / 255).astype(">f4"),
    "float16 byte": lambda ears: ears.astype(np.float16),
    "float32 byte": lambda ears: ears.astype(np.float32),
    "float64 byte": lambda ears: ears.astype(np.float64),
    "float64 byte big-endian": lambda ears: ears.astype(">f8"),
    "uint8 Fortran order": np.asfortranarray,
    "float32 Fortran order": lambda ears: np.asfortranarray(ears / 255, np.float32),
}
LAYOUTS = {
    "nhwc": lambda ears: ears,
    "nchw": lambda ears: ears.transpose(0, 3, 1, 2),
    "nhwc gray": lambda ears: ears[..., 1:2],
    "nchw gray": lambda ears: ears[..., 1:2].transpose(0, 3, 1, 2),
    "nhw": lambda ears: ears[..., 1],
}


@pytest.fixture(scope="module")
def ears() -> np.ndarray:
    """Five drawn ears, higher than wide, so that a swapped axis shows."""
    return np.stack([draw_ear(5, index, SIZE).image[:, 4:28] for index in range(5)])


def saved(folder: Path, array: np.ndarray) -> Path:
    path = folder / "ears.npy"
    np.save(path, array)
    return path


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_type_reads_the_same_ears(
    ears: np.ndarray, tmp_path: Path, layout: str, stored: str
) -> None:
    array = EarArray.open(saved(tmp_path, STORED[stored](LAYOUTS[layout](ears))))
    expected = ears[..., 1:2] if "gray" in layout or layout == "nhw" else ears
    assert len(array) == 5
    assert (array.height, array.width, array.channels) == expected.shape[1:]
    for index in (0, 4):
        image = array.image_uint8(index)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, expected[index])
    for channels in (1, 3):
        image = array.image(2, size=16, channels=channels)
        assert image.shape == (16, 16, channels)
        assert image.dtype == np.uint8


def overlaps(length: int, size: int) -> np.ndarray:
    """What share of output pixel i comes from input pixel j, when `length` become `size`."""
    edges = np.arange(size + 1) * length / size
    pixels = np.arange(length)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(shared, 0, None) * size / length


@pytest.mark.parametrize("shape", [(64, 64), (80, 60), (97, 33), (32, 200), (200, 32)])
def test_shrinking_is_by_area_whatever_the_proportions(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    ears = np.random.default_rng(0).integers(0, 256, (1, *shape, 3), np.uint8)
    image = EarArray.open(saved(tmp_path, ears)).image(0, size=32, channels=3)
    rows, columns = overlaps(shape[0], 32), overlaps(shape[1], 32)
    area = np.einsum("yh,xw,hwc->yxc", rows, columns, ears[0].astype(float))
    assert np.abs(image - area).max() <= 1


def test_a_side_that_shrinks_is_averaged_though_the_other_grows(tmp_path: Path) -> None:
    stripes = np.zeros((1, 320, 16, 3), np.uint8)
    stripes[:, ::2] = 200  # taking every tenth row of it, or nearly, would give 0 or 200
    image = EarArray.open(saved(tmp_path, stripes)).image(0, size=32, channels=3)
    assert np.abs(image.astype(int) - 100).max() <= 1


def test_colour_becomes_luma_and_gray_three_equal_channels(
    ears: np.ndarray, tmp_path: Path
) -> None:
    colour = EarArray.open(saved(tmp_path, ears)).image(1, size=SIZE, channels=1)
    stretched = cv2.resize(ears[1], (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    assert np.abs(colour[..., 0] - stretched @ LUMA).max() <= 1
    gray = EarArray.open(saved(tmp_path, ears[..., 1])).image(1, size=SIZE, channels=3)
    one = cv2.resize(ears[1, ..., 1], (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(gray, np.dstack([one, one, one]))


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((5, 3, 32, 3), "nhwc"),
        ((5, 3, 32, 3), "nchw"),
        ((5, 1, 32, 1), "nchw"),
        ((5, 1, 32, 3), "nhwc"),
        ((3, 32, 32), "nhw"),
        ((5, 32, 3), "nhw"),
    ],
)
def test_an_ambiguous_layout_is_an_error_until_it_is_named(
    tmp_path: Path, shape: tuple[int, ...], layout: str
) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    path = saved(tmp_path, values)
    with pytest.raises(EarTeachError, match="--layout"):
        EarArray.open(path)
    with pytest.raises(EarTeachError, match="is not n"):
        EarArray.open(path, "nhwc" if layout == "nhw" else "nhw")
    array = EarArray.open(path, layout)  # type: ignore[arg-type]
    expected = {"nhwc": values, "nhw": values[..., None]}.get(layout)
    expected = np.moveaxis(values, 1, -1) if expected is None else expected
    np.testing.assert_array_equal(array.image_uint8(2), expected[2])


@pytest.mark.parametrize(
    ("value", "words"),
    [(np.nan, "NaN or"), (-np.inf, "or infinity"), (-0.5, r"-0\.5"), (255.5, r"255\.5")],
)
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize(("usual", "sampled"), [(0.5, True), (200.0, True), (200.0, False)])
def test_floats_out_of_range_are_named_with_their_image(
    tmp_path: Path, value: float, words: str, dtype: type, usual: float, sampled: bool
) -> None:
    """Whether or not they are among the rows by which the scale is judged."""
    values = np.full((200, 16, 16), usual, dtype)
    row = next(index for index in range(1, 200) if (index in sampled_rows(200)) == sampled)
    values[row, 3, 3] = value
    array = EarArray.open(saved(tmp_path, values))
    with pytest.raises(EarTeachError, match=f"image {row} .*{words}"):
        array.image(row, size=16, channels=1)


@pytest.mark.parametrize("highest", [1.001, 1.5])
def test_floats_a_little_over_one_are_not_read_as_nearly_black(
    tmp_path: Path, highest: float
) -> None:
    """Interpolation overshoots: taken for [0, 255], such ears would be black."""
    values = np.linspace(0, highest, 2 * 32 * 32 * 3, dtype=np.float32).reshape(2, 32, 32, 3)
    with pytest.raises(EarTeachError, match=r"clip\(0, 1\)"):
        EarArray.open(saved(tmp_path, values)).image(0, size=32, channels=3)
    values = np.full((200, 16, 16), 0.5, np.float32)
    values[1] = 1.5
    array = EarArray.open(saved(tmp_path, values))
    assert 1 not in sampled_rows(200)
    assert array.image(0, size=16, channels=1)[0, 0, 0] == 128
    with pytest.raises(EarTeachError, match=r"image 1 .*1\.5"):
        array.image(1, size=16, channels=1)


def test_an_array_larger_than_memory_opens_and_reads_a_row(tmp_path: Path) -> None:
    rows, shape = 2**18, (256, 256, 3)
    path = tmp_path / "huge.npy"
    ear = draw_ear(0, 0, 256).image
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (rows, *shape)}
        )
        start = file.tell()
        file.seek(start + 200_000 * ear.nbytes)
        file.write(ear.tobytes())
        file.truncate(start + rows * ear.nbytes)  # 51 GB by its size, less than a megabyte on disk
    array = EarArray.open(path)
    np.testing.assert_array_equal(array.image(200_000, size=256, channels=3), ear)
    assert array.image(rows - 1, size=256, channels=3).max() == 0
    assert len(array.fingerprint()["sample_sha256"]) == 64


def test_a_pickled_array_carries_its_path_and_not_its_images(
    ears: np.ndarray, tmp_path: Path
) -> None:
    path = saved(tmp_path, np.repeat(ears, 200, axis=0))
    array = EarArray.open(path)
    array.image_uint8(0)
    pickled = pickle.dumps(array)
    assert len(pickled) < 2000 < path.stat().st_size
    copy = pickle.loads(pickled)
    np.testing.assert_array_equal(copy.image_uint8(999), ears[4])
    np.testing.assert_array_equal(array.image_uint8(999), ears[4])
    with pytest.raises(ValueError, match="read-only"):
        copy.raw[0][0] = 0


def test_the_fingerprint_is_that_of_64_evenly_spread_rows(tmp_path: Path) -> None:
    """Checkpoints hold it: another one would not know their arrays any more."""
    values = np.random.default_rng(0).integers(0, 256, (100, 8, 8), np.uint8)
    rows = [round(place * 99 / 63) for place in range(64)]
    assert EarArray.open(saved(tmp_path, values)).fingerprint() == {
        "shape": [100, 8, 8],
        "dtype": "|u1",
        "sample_sha256": hashlib.sha256(values[rows].tobytes()).hexdigest(),
    }


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "a.npz",
            npz(ears=np.zeros(2)),
            "is an .npz archive; convert it: numpy.save\\('.*a.npy', .*'ears'",
        ),
        ("a.h5", b"\x89HDF\r\n\x1a\n", r"is an HDF5 file; convert it: f = h5py.File\('.*a.h5'"),
        ("a.mat", b"MATLAB 5.0 MAT-file", "is a MATLAB file; convert it"),
        ("a.parquet", b"PAR1", "is a Parquet file; convert it"),
        ("a.npy", b"\x80\x04]\x94.", "is a pickle, which could run any code"),
        (
            "a.npy",
            b"\x89PNG\r\n\x1a\n",
            "is a photograph; make arrays of a folder of photographs with",
        ),
        ("a.zip", b"PK\x03\x04", "is an archive; unpack it"),
        (
            "a.npy",
            b"version https://git-lfs.github.com/spec/v1\n",
            "is a pointer of Git LFS; fetch",
        ),
    ],
)
def test_a_file_of_another_kind_is_called_by_its_name(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(EarTeachError, match=says):
        EarArray.open(path)


def test_the_line_that_converts_an_npz_works(tmp_path):
    images = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    np.savez(tmp_path / "a.npz", ears=images)
    with pytest.raises(EarTeachError) as refusal:
        EarArray.open(tmp_path / "a.npz")
    line = str(refusal.value).partition("convert it: ")[2]
    exec(line, {"numpy": np})
    np.testing.assert_array_equal(EarArray.open(tmp_path / "a.npy").stored(1), images[1])


def test_a_file_of_torch_is_called_so(tmp_path):
    torch.save(torch.zeros(2, 8, 8), tmp_path / "a.pt")
    with pytest.raises(
        EarTeachError, match=r"is a file of torch; convert it: .*a\.npy'.*of a dict of.*\['NAME'\]"
    ):
        EarArray.open(tmp_path / "a.pt")


def test_a_folder_is_to_be_prepared(tmp_path):
    with pytest.raises(EarTeachError, match=f"is a folder; .*: earteach prepare {tmp_path}"):
        EarArray.open(tmp_path)


@pytest.mark.parametrize(
    ("dtype", "brightest", "advice"),
    [
        (np.uint16, 200, r"200 of 65,535, .*array \* 257$"),  # 8 bits
        (np.uint16, 4095, r"4095 of 65,535, .*array \* 16$"),  # 12 bits
        (np.uint8, 1, r"1 of 255, .*array \* 255$"),
        (np.uint8, 16, r"16 of 255, .*array \* 8$"),
        (np.float32, 1 / 255, "0.00392157 of 1, .*rescale"),  # divided by 255 twice
        (np.float32, 8.0, "8 of 255, .*rescale"),
    ],
)
def test_arrays_that_would_be_nearly_black_are_refused(tmp_path, dtype, brightest, advice):
    values = np.zeros((4, 8, 8), dtype)
    values[1, 2, 3] = brightest
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(EarTeachError, match=advice):
        EarArray.open(tmp_path / "a.npy").image(0, size=8, channels=1)


@pytest.mark.parametrize(("dtype", "brightest"), [(np.uint8, 17), (np.uint16, 4369), (np.uint8, 0)])
def test_dark_arrays_are_read(tmp_path, dtype, brightest):
    np.save(tmp_path / "a.npy", np.full((4, 8, 8), brightest, dtype))
    image = EarArray.open(tmp_path / "a.npy").image(0, size=8, channels=1)
    assert image.max() == min(brightest, 17)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda content: content.replace(b"\n", b"\r\n"), "its line ends were converted, as Git"),
        (lambda content: content + b"\0", "holds 1 bytes after its array"),
        (lambda content: 2 * content, "holds 12,416 bytes after its array"),
    ],
)
def test_bytes_added_to_an_array_are_noticed(tmp_path, damage, says):
    path = saved(tmp_path, np.full((4, 32, 32, 3), 10, np.uint8))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(EarTeachError, match=says):
        EarArray.open(path)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            np.zeros((4, 8, 8), bool),
            r"bool values; .*; convert with `array.astype\('uint8'\) \* 255`",
        ),
        (
            np.zeros((4, 8, 8), "i8"),
            r"int64 values; .*astype\('uint8'\)` if the values lie in 0 to",
        ),
        (np.zeros((4, 8, 8), "c8"), "complex64 values; .*; save the images' pixels"),
        (np.array(["a"]), "str32 values; .*; save the images' pixels"),
        (
            np.zeros(4, [("ear", "u1", (8, 8)), ("id", "i4")]),
            r"one of the fields, as in array\['ear'\]",
        ),
    ],
)
def test_the_advice_for_other_types(tmp_path, values, says):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(EarTeachError, match=says):
        EarArray.open(tmp_path / "a.npy")


def test_arrays_named_by_a_pattern_are_one(tmp_path, ears):
    """Pieces of 2, 1 and 2 ears; the fingerprint of the whole is that of a single file."""
    for name, piece in zip("abc", np.split(ears, [2, 3]), strict=True):
        (tmp_path / name).mkdir()
        saved(tmp_path / name, piece)
    whole = EarArray.open(saved(tmp_path, ears))
    pieces = pickle.loads(pickle.dumps(EarArray.open(tmp_path / "*" / "ears.npy")))
    assert pieces.fingerprint() == whole.fingerprint()
    assert len(pieces) == 5
    for index in range(5):
        np.testing.assert_array_equal(pieces.stored(index), ears[index])
    assert pieces.cache("pca") == tmp_path / "a" / "ears-and-2-more.pca.npz"


def test_pieces_that_differ_are_refused(tmp_path, ears):
    np.save(tmp_path / "a.npy", ears)
    np.save(tmp_path / "b.npy", ears[:, 2:])
    with pytest.raises(EarTeachError, match=r"b\.npy: .*\(30, 24, 3\).*a\.npy.*\(32, 24, 3\)"):
        EarArray.open(tmp_path / "*.npy")
    with pytest.raises(EarTeachError, match="matches no file"):
        EarArray.open(tmp_path / "c*.npy")
