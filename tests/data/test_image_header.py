"""Sides as a file's header claims them, beside what Pillow reads."""

from __future__ import annotations

import io
import random
import struct

import pytest
from PIL import Image

from earteach.data.image_header import claimed_sides

KINDS = [
    ("PNG", {}), ("GIF", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("BMP", {}), ("TIFF", {}),
    ("TIFF", {"big_tiff": True}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {}),
    ("WEBP", {"lossless": True}), ("WEBP", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
]  # fmt: skip


def stored(kind: str, mode: str, size: tuple[int, int], **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_sides_are_those_that_pillow_reads(kind: str, options: dict[str, object]) -> None:
    for mode in ("RGB", "L"):
        for size in ((1, 1), (20, 18), (301, 77), (1000, 3)):
            content = stored(kind, mode, size, **options)
            with Image.open(io.BytesIO(content)) as image:
                width, height = image.size
            assert claimed_sides(memoryview(content)) == (height, width)


def test_a_jpegs_frame_is_found_after_megabytes_of_other_segments() -> None:
    """As phones write them, with depth maps and thumbnails in front."""
    content = stored("JPEG", "RGB", (20, 18))
    segment = b"\xff\xe1" + struct.pack(">H", 65_002) + bytes(65_000)
    crowded = content[:2] + 50 * segment + content[2:]
    with Image.open(io.BytesIO(crowded)) as image:
        assert image.size == (20, 18)
    assert claimed_sides(memoryview(crowded)) == (18, 20)


def test_padding_without_end_is_given_up() -> None:
    assert claimed_sides(memoryview(b"\xff\xd8" + b"\xff" * 10**6)) is None


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_a_damaged_header_claims_sides_or_none(kind: str, options: dict[str, object]) -> None:
    chance = random.Random(0)
    content = stored(kind, "RGB", (20, 18), **options)
    for _ in range(300):
        damaged = bytearray(content[: chance.randrange(len(content)) + 1])
        damaged[chance.randrange(len(damaged))] ^= chance.randrange(256)
        sides = claimed_sides(memoryview(bytes(damaged)))
        assert sides is None or min(sides) > 0


def test_a_tiff_of_the_other_byte_order() -> None:
    entries = struct.pack(">HHIHHHHIHH", 256, 3, 1, 70, 0, 257, 3, 1, 50, 0)
    tiff = b"MM" + struct.pack(">HIH", 42, 8, 2) + entries
    assert claimed_sides(memoryview(tiff)) == (50, 70)


@pytest.mark.parametrize(("width", "height"), [(7, 5), (40_000, 3), (3, 40_000)])
@pytest.mark.parametrize("kind", ["OS/2", "from the top"])
def test_bitmaps_as_few_write_them(kind: str, width: int, height: int) -> None:
    if kind == "OS/2":
        about = struct.pack("<IHHHH", 12, width, height, 1, 24)
    else:
        about = struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 24, 0, 0, 0, 0, 0, 0)
    start = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 14 + len(about))
    content = start + about + bytes((3 * width + 3) // 4 * 4 * height)
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (width, height)
    assert claimed_sides(memoryview(content)) == (height, width)


def test_a_jpegs_thumbnail_is_not_taken_for_it() -> None:
    thumbnail = stored("JPEG", "L", (8, 8))
    whole = stored("JPEG", "L", (90, 40))
    application = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    content = whole[:2] + application + b"\xff" + whole[2:]  # and a byte of padding
    assert claimed_sides(memoryview(content)) == (40, 90)


@pytest.mark.parametrize("content", [b"", b"P6 9 9 255\n", b"GIF88a\x05\x00\x05\x00", bytes(99)])
def test_of_another_format_nothing_is_claimed(content: bytes) -> None:
    assert claimed_sides(memoryview(content)) is None
