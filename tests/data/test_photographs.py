"""Photographs are found in order, read upright and made square; others are refused by name."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from earteach.config import Fit
from earteach.data.photographs import Decoded, Unreadable, find, read, read_square, square


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """40 × 30 pixels, smooth, with another colour in each corner."""
    rows, columns = np.mgrid[0:1:40j, 0:1:30j]
    return np.rint(np.dstack([rows, columns, 1 - rows]) * 200 + 20).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# What each EXIF orientation does to the stored picture to bring it upright.
UPRIGHT = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_photograph_is_turned_as_its_exif_says(
    picture: np.ndarray, tmp_path: Path, kind: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    quality = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"quality": 95}}.get(kind, {})
    path = written(tmp_path, "p", encoded(Image.fromarray(picture), kind, exif=exif, **quality))
    expected = UPRIGHT[orientation](picture)
    image = read(path)
    assert image.shape == expected.shape
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - expected).max() <= 8


def _with_alpha(picture: np.ndarray, alpha: int) -> Image.Image:
    return Image.fromarray(np.dstack([picture, np.full(picture.shape[:2], alpha, np.uint8)]))


def _animated(picture: np.ndarray, kind: str, **options: object) -> bytes:
    """The picture, and after it its negative."""
    then = [Image.fromarray(255 - picture)]
    return encoded(Image.fromarray(picture), kind, save_all=True, append_images=then, **options)


def _crowded(content: bytes) -> bytes:
    """With megabytes of other segments before the frame, as phones write depth maps."""
    segment = b"\xff\xe1" + struct.pack(">H", 65_002) + bytes(65_000)
    return content[:2] + 50 * segment + content[2:]


def _sixteen_bits(picture: np.ndarray, suffix: str) -> bytes:
    """Values of which the lower eight bits are other than the upper ones."""
    values = picture[..., ::-1].astype(np.uint16) * 256 + 77
    return bytes(cv2.imencode(suffix, values)[1])


FORMS: dict[str, Callable[[np.ndarray], bytes]] = {
    "rgb.png": lambda p: encoded(Image.fromarray(p), "PNG"),
    "rgb.bmp": lambda p: encoded(Image.fromarray(p), "BMP"),
    "rgb.tif": lambda p: encoded(Image.fromarray(p), "TIFF"),
    "lzw.tif": lambda p: encoded(Image.fromarray(p), "TIFF", compression="tiff_lzw"),
    "progressive.jpg": lambda p: encoded(
        Image.fromarray(p), "JPEG", quality=97, subsampling=0, progressive=True
    ),
    "crowded.jpg": lambda p: _crowded(
        encoded(Image.fromarray(p), "JPEG", quality=97, subsampling=0)
    ),
    "cmyk.jpg": lambda p: encoded(Image.fromarray(p).convert("CMYK"), "JPEG", quality=97),
    "opaque.png": lambda p: encoded(_with_alpha(p, 255), "PNG"),
    "animated.webp": lambda p: _animated(p, "WEBP", lossless=True),
    "pages.tif": lambda p: _animated(p, "TIFF"),
    "sixteen bits.png": lambda p: _sixteen_bits(p, ".png"),
    "wrong suffix.jpg": lambda p: encoded(Image.fromarray(p), "PNG"),
    "with space and ünïcode 耳.png": lambda p: encoded(Image.fromarray(p), "PNG"),
}
GRAY_FORMS: dict[str, Callable[[np.ndarray], bytes]] = {
    "gray.png": lambda g: encoded(Image.fromarray(g), "PNG"),
    "palette.png": lambda g: encoded(Image.fromarray(g).convert("P"), "PNG"),
    "gray.jpg": lambda g: encoded(Image.fromarray(g), "JPEG", quality=97),
    "animated.gif": lambda g: _animated(g, "GIF"),
    "gray alpha.png": lambda g: encoded(Image.fromarray(g).convert("LA"), "PNG"),
    "gray sixteen bits.png": lambda g: encoded(Image.fromarray(g.astype(np.uint16) * 257), "PNG"),
}


@pytest.mark.parametrize("name", [*FORMS, *GRAY_FORMS])
def test_every_form_of_a_photograph_becomes_the_same_rgb(
    picture: np.ndarray, tmp_path: Path, name: str
) -> None:
    if name in GRAY_FORMS:
        gray = np.ascontiguousarray(picture[..., 0])
        content, expected = GRAY_FORMS[name](gray), np.repeat(gray[..., None], 3, axis=2)
    else:
        content, expected = FORMS[name](picture), picture
    image = read(written(tmp_path, name, content))
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).max() <= 4


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})]
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_transparent_parts_lie_over_white(
    picture: np.ndarray, tmp_path: Path, kind: str, options: dict[str, object], orientation: int
) -> None:
    alpha = np.linspace(0, 255, picture[..., 0].size).reshape(picture.shape[:2]).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.dstack([picture, alpha]))
    read_again = read(written(tmp_path, "p", encoded(image, kind, exif=exif, **options)))
    share = alpha[..., None] / 255
    expected = UPRIGHT[orientation](picture * share + 255 * (1 - share))
    assert np.abs(read_again - expected).max() <= 1


def test_a_transparent_colour_of_a_palette_or_of_gray_lies_over_white(tmp_path: Path) -> None:
    levels = np.repeat(np.array([[0, 100, 200]], np.uint8), 4, axis=0)
    palette = Image.fromarray(levels).convert("P")
    gray = Image.fromarray(levels)
    for image, kind in ((palette, "GIF"), (palette, "PNG"), (gray, "PNG")):
        clear = {"transparency": palette.getpixel((1, 0)) if image is palette else 100}
        seen = read(written(tmp_path, "p", encoded(image, kind, **clear)))
        assert seen[2, :, 1].tolist() == [0, 255, 200]


def test_a_format_that_is_not_read_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, "ear.JXL", b"x")
    assert find(tmp_path).files == [path]
    with pytest.raises(Unreadable, match=r"\.JXL is not supported; convert it to JPEG"):
        read(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 0.95])
def test_a_file_cut_short_is_no_photograph(
    tmp_path: Path, kind: str, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 60, (200, 150, 3), np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    path = written(tmp_path, "cut", content[: int(len(content) * share)])
    for size in (200, 32):  # the JPEG decoder shrinks for the smaller one
        with pytest.raises(Unreadable):
            read_square(path, size)
    # OpenCV's log would run through the progress bar. (A line that libpng writes cannot be helped.)
    err = capfd.readouterr().err
    assert "WARN" not in err
    assert "ERROR" not in err


def _tiff(values: np.ndarray, photometric: int = 1, sample_format: int = 1) -> bytes:
    """A gray TIFF with these tags."""
    height, width = values.shape
    tags = {256: width, 257: height, 258: 8 * values.itemsize, 259: 1, 262: photometric, 273: 8,
            277: 1, 278: height, 279: values.nbytes, 339: sample_format}  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + values.nbytes) + values.tobytes() + directory


def _cv2(suffix: str, values: np.ndarray) -> bytes:
    return bytes(cv2.imencode(suffix, values)[1])


RAMP = np.linspace(0, 1, 64).reshape(8, 8)
COLOURS = np.dstack([RAMP, RAMP, RAMP])
OPAQUE = np.dstack([COLOURS * 4095, np.full((8, 8), 65_535)]).astype(np.uint16)
REFUSED: dict[str, tuple[bytes, str]] = {
    "12 bits.png": (_cv2(".png", (RAMP * 4095).astype(np.uint16)), "reaches 16 of 255"),
    "12 bits in colour.png": (_cv2(".png", (COLOURS * 4095).astype(np.uint16)), "nearly black"),
    "12 bits in colour.tif": (_cv2(".tif", (COLOURS * 4095).astype(np.uint16)), "nearly black"),
    "12 bits with alpha.png": (_cv2(".png", OPAQUE), "nearly black"),
    "0 and 1.png": (_cv2(".png", RAMP.round().astype(np.uint8)), "reaches 1 of 255"),
    "over one.tif": (_tiff((RAMP * 1.4).astype("f4"), sample_format=3), "nearly black"),
    "NaN.tif": (_tiff((RAMP * np.nan).astype("f4"), sample_format=3), "holds NaN; save it with 8"),
    "negative.tif": (_tiff((-RAMP).astype("f4"), sample_format=3), "outside 0 to 65,535"),
    "wide.tif": (_tiff((RAMP * (2**32 - 1)).astype("u4")), "outside 0 to 65,535"),
    "float colour.tif": (_cv2(".tif", COLOURS.astype(np.float32)), "a kind that is not read; save"),
    "float64.tif": (_tiff(RAMP, sample_format=3), "a kind that is not read; save"),
    "white is 0.tif": (_tiff((RAMP * 65_535).astype("u2"), photometric=0), "MinIsWhite"),
    "signed 8.tif": (_tiff((RAMP * 127).astype("i1"), sample_format=2), "signed integers"),
    "signed 16.tif": (_tiff((RAMP * 32_767).astype("i2"), sample_format=2), "signed integers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_pixels_of_an_unclear_range_are_refused(tmp_path: Path, name: str) -> None:
    content, says = REFUSED[name]
    with pytest.raises(Unreadable, match=says):
        read(written(tmp_path, name, content))


@pytest.mark.parametrize(
    "content",
    [
        _tiff((RAMP * 65_535).astype("u2")),
        _tiff((255 - RAMP * 255).astype("u1"), photometric=0),
        _tiff((RAMP * 255).astype("i4"), sample_format=2),
        _tiff(RAMP.astype("f4"), sample_format=3),
    ],
)
def test_other_ranges_of_a_tiff_are_read(tmp_path: Path, content: bytes) -> None:
    image = read(written(tmp_path, "p.tif", content))
    assert np.abs(image - COLOURS * 255).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "BMP"])
def test_converted_line_ends_are_noticed(tmp_path: Path, kind: str) -> None:
    """The decoders read what is left, as noise."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    content = encoded(Image.fromarray(noise), kind).replace(b"\n", b"\r\n")
    with pytest.raises(Unreadable, match="its line ends were converted"):
        read(written(tmp_path, "p", content))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_a_damaged_file_is_read_or_refused(picture: np.ndarray, tmp_path: Path, kind: str) -> None:
    chance = random.Random(0)
    content = encoded(Image.fromarray(picture), kind)
    for _ in range(150):
        damaged = bytearray(content[: chance.randrange(len(content)) + 1])
        damaged[chance.randrange(min(len(damaged), 100))] ^= chance.randrange(256)
        with suppress(Unreadable):
            assert read_square(written(tmp_path, "p", bytes(damaged)), 16).image.shape[0] == 16


def test_raw_files_beside_their_photographs_are_passed_over(tmp_path: Path) -> None:
    for name in ("1.CR2", "1.jpg", "2.dng", "a/1.CR2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find(tmp_path)
    assert found.files == [tmp_path / name for name in ("1.jpg", "2.dng", "a/1.CR2")]
    ((path, why),) = found.left_out
    assert (path, why.split(";")[0]) == (tmp_path / "1.CR2", ".CR2 is not supported")


def test_photographs_are_found_below_and_in_order(tmp_path: Path) -> None:
    names = ["a.jpg", "b/a.PNG", "b/c/d.JPeG", "b.webp", "c.tiff", "ö 耳.bmp", "z.tif", "z/a.gif"]
    others = [".hidden.jpg", ".folder/a.jpg", "b/.thumbs/a.png", "notes.txt", "a.jpg.txt", "jpg"]
    source = tmp_path / ".cache"  # below a hidden folder, but not hidden itself
    for name in (*names, *others):
        written(source, name, b"x")
    (source / "folder.jpg").mkdir()
    assert [path.relative_to(source).as_posix() for path in find(source).files] == sorted(
        names, key=lambda name: Path(name).parts
    )


@pytest.mark.parametrize(
    ("fit", "shape", "padding", "box"),
    [
        ("stretch", (64, 32), ((0, 0), (0, 0)), (0, 0, 32, 64)),
        ("reflect", (64, 32), ((0, 0), (16, 16)), (-16, 0, 64, 64)),
        ("reflect", (32, 64), ((16, 16), (0, 0)), (0, -16, 64, 64)),
        ("reflect", (64, 10), ((0, 0), (27, 27)), (-27, 0, 64, 64)),
    ],
)
def test_a_square_is_the_whole_photograph_stretched_or_with_reflected_edges(
    fit: Fit,
    shape: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    box: tuple[int, int, int, int],
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    squared = square(image, 16, fit=fit)
    assert squared.box == box
    padded = np.pad(image, (*padding, (0, 0)), mode="symmetric")
    assert np.abs(squared.image - by_area(padded, 16)).max() <= 0.51


@pytest.mark.parametrize("shape", [(32, 64), (64, 32), (32, 32)])
@pytest.mark.parametrize(
    "place", [(3, 20), (3, -5), (-5, 3), (20, 3), (55, 3), (3, 55), (16, 16), (0, 0)]
)
def test_a_box_over_an_edge_sees_it_mirrored(
    shape: tuple[int, int], place: tuple[int, int]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    left, top = place
    seen = Decoded(image, (shape[1], shape[0])).crop((left, top, 16, 16), 16)
    padded = np.pad(image, ((64, 64), (64, 64), (0, 0)), mode="symmetric")
    wanted = padded[64 + top : 80 + top, 64 + left : 80 + left, ::-1]
    np.testing.assert_array_equal(seen.image, wanted)
    assert seen.box == (left, top, 16, 16)


def detailed(height: int, width: int) -> np.ndarray:
    """Shapes and texture of every size, as a photograph has them."""
    rng = np.random.default_rng(0)
    image = np.zeros((height, width, 3), np.float32)
    for cell in (4, 16, 64, 256):
        channels = 1 if cell < 64 else 3  # a JPEG keeps colours at half the size
        coarse = rng.normal(0, 5 * cell**0.4, (height // cell + 2, width // cell + 2, channels))
        image += np.atleast_3d(cv2.resize(coarse.astype(np.float32), (width, height)))
    return np.clip(image + 120, 0, 255).astype(np.uint8)


def decibels(image: np.ndarray, wanted: np.ndarray) -> float:
    error = np.square(image.astype(float) - wanted).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def by_area(image: np.ndarray, size: int) -> np.ndarray:
    """Each pixel the mean over its part of the image, in float64."""
    weights = []
    for side in image.shape[:2]:
        edges = np.linspace(0, side, size + 1)
        covered = np.clip(np.minimum(edges[1:, None], np.arange(1, side + 1))
                          - np.maximum(edges[:-1, None], np.arange(side)), 0, None)  # fmt: skip
        weights.append(covered / covered.sum(axis=1, keepdims=True))
    return np.einsum("ya,xb,abc->yxc", *weights, image.astype(float), optimize=True)


@pytest.mark.parametrize("shape", [(180, 130), (127, 70), (150, 66), (400, 300), (513, 260)])
def test_shrinking_takes_means_over_areas(shape: tuple[int, int]) -> None:
    image = detailed(*shape)
    assert decibels(square(image, 64).image, by_area(image, 64)) > 50


@pytest.mark.parametrize("size", [250, 100, 60])
@pytest.mark.parametrize("orientation", [1, 6, 8])
@pytest.mark.parametrize("fit", ["stretch", "reflect"])
def test_a_large_jpeg_is_read_smaller_and_looks_the_same(
    tmp_path: Path, size: int, orientation: int, fit: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(detailed(701, 603)), "JPEG", quality=92, exif=exif)
    path = written(tmp_path, "ear.jpg", content)
    whole = square(read(path), size, 3, fit)  # type: ignore[arg-type]
    seen = read_square(path, size, 3, fit)  # type: ignore[arg-type]
    assert seen.box == whole.box
    assert seen.image.shape == (size, size, 3)
    # Sides that 4 does not divide, or that are extended, move by a fraction of a pixel.
    assert decibels(seen.image, whole.image) > 37


@pytest.mark.parametrize(("width", "height"), [(999, 1000), (1000, 999), (1998, 2000)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_that_is_nearly_square_keeps_its_sides(
    tmp_path: Path, width: int, height: int, orientation: int
) -> None:
    """Divided by two or four both sides are the same."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.new("RGB", (width, height)), "JPEG", exif=exif)
    cut = read_square(written(tmp_path, "p.jpg", content), 64)
    upright = (width, height) if orientation == 1 else (height, width)
    assert cut.box == (0, 0, *upright)
