"""Photographs with a colour profile, with more than eight bits, and in formats of phones."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from earteach.data import photographs
from earteach.data.photographs import Unreadable, read, read_square

# Red, green and blue in XYZ under D50, and what the profiles say.
P3 = np.array([(0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)])
SRGB = np.array([(0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)])
GAMMA = 2.2


def profile(name: str = "Display P3", colours: np.ndarray = P3) -> bytes:
    """An ICC profile of version 2 (ICC.1:2001-04) with three primaries and a gamma."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(values: np.ndarray) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(fixed(float(value)) for value in values)

    text = name.encode() + b"\0"
    description = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    gamma = b"curv" + bytes(4) + struct.pack(">IH", 1, round(GAMMA * 256))
    tags = {
        b"desc": description, b"cprt": b"text" + bytes(4) + b"none\0",
        b"wtpt": xyz(np.array([0.9642, 1.0, 0.8249])),
        b"rXYZ": xyz(colours[0]), b"gXYZ": xyz(colours[1]), b"bXYZ": xyz(colours[2]),
        b"rTRC": gamma, b"gTRC": gamma, b"bTRC": gamma,
    }  # fmt: skip
    table, data, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += tag + struct.pack(">II", offset + len(data), len(content))
        data += padded
    size = 128 + len(table) + len(data)
    head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642) + fixed(1.0) + fixed(0.8249)
    return head + bytes(128 - len(head)) + table + data


def as_srgb(image: np.ndarray, colours: np.ndarray = P3) -> np.ndarray:
    """By the formulas: to XYZ by gamma and primaries, and from there to sRGB (IEC 61966-2-1)."""
    linear = (image / 255.0) ** GAMMA @ colours @ np.linalg.inv(SRGB)
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.fixture
def picture() -> np.ndarray:
    """Skin and other colours, inside both gamuts."""
    rows, columns = np.mgrid[0:1:40j, 0:1:30j]
    return np.rint(np.dstack([120 + 100 * rows, 90 + 60 * columns, 130 - 60 * rows])).astype(
        np.uint8
    )


def save(folder: Path, image: Image.Image, kind: str, **options: object) -> Path:
    path = folder / f"p.{kind.lower()}"
    image.save(path, kind, **options)
    return path


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {"quality": 98, "subsampling": 0}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_colours_of_another_profile_become_srgb(picture, tmp_path, kind, options):
    path = save(tmp_path, Image.fromarray(picture), kind, icc_profile=profile(), **options)
    expected = as_srgb(picture)
    assert np.abs(expected - picture).max() > 12
    assert np.abs(read(path) - expected).max() <= 4


def test_colours_are_converted_where_the_decoder_shrinks_and_under_transparency(picture, tmp_path):
    large = Image.fromarray(picture).resize((480, 640), Image.Resampling.NEAREST)
    path = save(tmp_path, large, "JPEG", icc_profile=profile(), quality=95, subsampling=0)
    mean = read_square(path, 16).image.mean(axis=(0, 1))
    np.testing.assert_allclose(mean, as_srgb(picture).mean(axis=(0, 1)), atol=1.5)
    clear = Image.fromarray(np.dstack([picture, np.full((40, 30), 255, np.uint8)]))
    path = save(tmp_path, clear, "PNG", icc_profile=profile())
    assert np.abs(read(path) - as_srgb(picture)).max() <= 4


@pytest.mark.parametrize("icc", [profile("sRGB IEC61966-2.1", SRGB), b"no profile", profile()[:90]])
def test_srgb_and_damaged_profiles_change_nothing(picture, tmp_path, icc):
    path = save(tmp_path, Image.fromarray(picture), "PNG", icc_profile=icc)
    np.testing.assert_array_equal(read(path), picture)


def test_a_profile_of_colours_in_a_gray_photograph_is_ignored(tmp_path):
    gray = np.tile(np.arange(0, 250, 10, dtype=np.uint8), (5, 1))
    path = save(tmp_path, Image.fromarray(gray), "PNG", icc_profile=profile())
    np.testing.assert_array_equal(read(path)[..., 0], gray)


@pytest.mark.parametrize("transparent", [None, 25_700])
def test_gray_of_sixteen_bits_may_have_a_transparent_value(tmp_path, transparent):
    levels = np.tile(np.array([0, 100, 200], np.uint16) * 257, (4, 1))
    options = {} if transparent is None else {"transparency": transparent}
    path = save(tmp_path, Image.fromarray(levels), "PNG", **options)
    assert read(path)[2, :, 1].tolist() == [0, 100 if transparent is None else 255, 200]


@pytest.mark.parametrize("largest", [1, 255, 65_535])
def test_floats_are_scaled_by_what_they_reach(tmp_path, largest):
    values = np.tile(np.array([0, 0.2, 0.6, 1], np.float32) * largest, (4, 1))
    path = save(tmp_path, Image.fromarray(values), "TIFF")
    assert read(path)[1, :, 0].tolist() == [0, 51, 153, 255]


@pytest.mark.parametrize("value", [-1.0, 1e6, float("nan"), float("inf")])
def test_floats_of_an_unknown_range_are_refused(tmp_path, value):
    values = np.full((4, 4), 0.5, np.float32)
    values[1, 1] = value
    with pytest.raises(Unreadable, match=r"holds (NaN|values outside 0 to 65,535); save it with 8"):
        read(save(tmp_path, Image.fromarray(values), "TIFF"))


@pytest.mark.skipif("avif" not in features.get_supported(), reason="this Pillow reads no AVIF")
def test_avif_is_read(picture, tmp_path):
    path = save(tmp_path, Image.fromarray(picture), "AVIF", quality=95)
    assert np.abs(read(path).astype(int) - picture).mean() < 4


# 30 × 40 pixels of smooth colours.
HEIC = base64.b85decode(
    "0000SW^{RQXk}?*00000ZE0pPXk}?*ZE0a<0004eZDn*}000000000XXk=`10000000000aA{+70000000000000"
    "0000000B57=IV*mgE07O6l0RRC200001pa1~?00000005o<001LtX>Mi!000000RR916=`l}WdZ;I000310BCk&F"
    "#rGn01j|zbZr0t000010002|X>f9I0002oX>en20001WXm(>m0RwOV0058x000009`FGC{rLC*01pFT0096PKmiN"
    "^|NjGU00093kN^M!000939=ZZRVE_RDDMA4O18@KU0|1Z!00RI30{|YNAb|yz>aLpR;31&EfB*mtfB*mk0EA)y0R"
    "RR>0l{;@i2wiq6Ju{|a&BX6cmM$a4FCp!0000KX>)L8000000000$0000$0000eV{Bn?0000U000010000e00001"
    "|NsBq00002|NsB!000020000GaA|mH000000|*ER0000OX>e^}0000000001009Mo0s{qv0001{ZDe6|0001*C;_"
    "ht$ZaFGJ@&bY#Xhk%rxU;x7BP0rR2!|XrmEEBSX>{rhN;ssyoIJ4A>~&pT_asnxwOBDnJ!;W!09i2-$Q`mS{0jAk"
    "ovp@yl<0v4)JJuedfuX<(?!MWq&|VK(ObuJ-ME>`Gp2~<Q_0robRi-H=y+V5@P@YPy-B92t@94(TYak*wZd^nl^y"
    "SR-^~$vl_9P58w"
)


def test_heic_is_read_with_its_package(tmp_path):
    pytest.importorskip("pi_heif")
    (tmp_path / "p.jpg").write_bytes(HEIC)  # as phones and converters call it
    image = read(tmp_path / "p.jpg")
    rows, columns = np.mgrid[0:1:40j, 0:1:30j]
    assert np.abs(image - (np.dstack([rows, columns, 1 - rows]) * 200 + 20)).mean() < 8


def test_without_its_package_heic_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(photographs, "_reads_heic", lambda: False)
    (tmp_path / "p.heic").write_bytes(HEIC)
    with pytest.raises(
        Unreadable, match=r"HEIC needs pip install 'earteach\[heic\]'; or convert it"
    ):
        read(tmp_path / "p.heic")


def test_a_picture_that_is_all_clear_shows_its_colours(picture, tmp_path):
    """Some programs leave the alpha of 32-bit bitmaps at zero."""
    clear = Image.fromarray(np.dstack([picture, np.zeros((40, 30), np.uint8)]))
    np.testing.assert_array_equal(read(save(tmp_path, clear, "PNG")), picture)


def test_integers_of_an_unknown_range_are_refused(tmp_path):
    values = np.full((4, 4), -5, np.int32)
    with pytest.raises(Unreadable, match="holds values outside 0 to 65,535"):
        read(save(tmp_path, Image.fromarray(values), "TIFF"))


def test_an_orientation_that_the_decoder_does_not_know_moves_no_box(tmp_path):
    """It stands in XMP alone: Pillow reads it, and OpenCV does not."""
    rows, columns = np.mgrid[0:400, 0:640]
    wide = np.dstack([columns // 3, rows // 2, columns // 4]).astype(np.uint8)
    xmp = (
        b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-"
        b"syntax-ns#'><rdf:Description xmlns:tiff='http://ns.adobe.com/tiff/1.0/' tiff:Orientation='6'/>"
        b"</rdf:RDF></x:xmpmeta>"
    )
    path = save(tmp_path, Image.fromarray(wide), "JPEG", xmp=xmp, quality=95)
    decoded = photographs.Photograph(path).decoded(400, 32)
    assert decoded.scale > 1
    assert decoded.size == (640, 400)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_fewer_bits_in_sixteen_are_refused(tmp_path, kind):
    """They would be nearly black."""
    values = np.tile(np.array([0, 2000, 4095], np.uint16), (4, 1))
    with pytest.raises(Unreadable, match="nearly black: it reaches 16 of 255 as 8 bits"):
        read(save(tmp_path, Image.fromarray(values), kind))
