"""The sides of an image as its file's header claims them, before anything is decoded.

A picture of a few kilobytes can claim sides that fill the memory when it is decoded.
"""

from __future__ import annotations

import struct

# Markers of JPEG that look like those of frames.
_NO_FRAMES = (0xC4, 0xC8, 0xCC)
# A camera writes dozens before the frame, of 64 kB each; padding counts as one for each byte.
_MOST_SEGMENTS = 2**12
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_TIFF_NUMBERS = {3: "H", 4: "I", 16: "Q"}


def claimed_sides(data: memoryview) -> tuple[int, int] | None:
    """Height and width of a JPEG, PNG, BMP, TIFF, WebP or GIF as it is stored; None for all else."""
    start = bytes(data[:16])
    try:
        if start.startswith(b"\xff\xd8\xff"):
            sides = jpeg_sides(data)
        elif start.startswith(b"\x89PNG\r\n\x1a\n"):
            sides = struct.unpack_from(">II", data, 16)[::-1]
        elif start.startswith(b"BM"):
            sides = _bmp(data)
        elif start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            sides = _tiff(data)
        elif start.startswith(b"RIFF") and start[8:15] == b"WEBPVP8":
            sides = _webp(data)
        elif start.startswith((b"GIF87a", b"GIF89a")):
            sides = struct.unpack_from("<HH", data, 6)[::-1]
        else:
            return None
    except (struct.error, KeyError, OverflowError):  # cut short, or without a side
        return None
    return sides if sides and all(sides) else None


def jpeg_sides(data: memoryview) -> tuple[int, int] | None:
    """Height and width as a JPEG's frame header has them, after however much a camera put before it."""
    place = 2
    for _ in range(_MOST_SEGMENTS):
        if place + 9 > len(data) or data[place] != 0xFF:
            break
        marker = data[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return height, width
        place += 2 + int(struct.unpack_from(">H", data, place + 2)[0])
    return None


def _bmp(data: memoryview) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # OS/2's
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return abs(height), abs(width)


def _tiff(data: memoryview) -> tuple[int, int]:
    """From the first directory, of a TIFF or a BigTIFF."""
    order = "<" if bytes(data[:1]) == b"I" else ">"
    big = 43 in bytes(data[2:4])
    place = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    count = struct.unpack_from(order + ("Q" if big else "H"), data, place)[0]
    first, step, value = (8, 20, 12) if big else (2, 12, 8)
    sides = {}
    for number in range(min(count, 2**16)):
        entry = place + first + step * number
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT):
            sides[tag] = int(
                struct.unpack_from(order + _TIFF_NUMBERS[kind], data, entry + value)[0]
            )
    return sides[_TIFF_HEIGHT], sides[_TIFF_WIDTH]


def _webp(data: memoryview) -> tuple[int, int] | None:
    kind = bytes(data[12:16])
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return height, width
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return height & 0x3FFF, width & 0x3FFF
