"""A JPEG's segments around its picture: comments, IPTC, extended XMP, and what cameras write."""

import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

PHOTOSHOP_HEADER = b"Photoshop 3.0\0"
EXTENDED_XMP_HEADER = b"http://ns.adobe.com/xmp/extension/\0"

_COMMENT = 0xFE
_APP13 = 0xED
_LARGEST = 65533
_ARITHMETIC = (0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)

# Pillow writes these anew. An index of further pictures (MPF) would point to what a copy does not have.
_ELSEWHERE = {
    0xE0: (b"JFIF\0", b"JFXX\0"),
    0xE1: (b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0"),
    0xE2: (b"ICC_PROFILE\0", b"MPF\0"),
    _APP13: (PHOTOSHOP_HEADER,),
    0xEE: (b"Adobe",),
}


def segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields `(marker, content)` of a JPEG up to its first scan; of a broken header what comes before the break."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker in (0xDA, 0xD9):
            return
        (length,) = struct.unpack_from(">H", data, position + 2)
        yield marker, data[position + 4 : position + 2 + length]
        position += 2 + max(length, 2)


def is_arithmetic(stream: BinaryIO) -> bool:
    """Whether a stream is a JPEG with arithmetic code."""
    stream.seek(0)
    data = stream.read()
    return data[:2] == b"\xff\xd8" and any(marker in _ARITHMETIC for marker, _ in segments(data))


def has_more_pictures(data: bytes) -> bool:
    """Whether a JPEG has an index of further pictures behind it: previews, a second view, a map of brightness."""
    return any(marker == 0xE2 and content.startswith(b"MPF\0") for marker, content in segments(data))


def kept(data: bytes) -> tuple[bytes | None, list[tuple[int, bytes]]]:
    """Returns Photoshop's resources of a JPEG, or None, and its other segments as `Still.segments` has them."""
    resources = b""
    others = []
    for marker, content in segments(data):
        if marker == _APP13 and content.startswith(PHOTOSHOP_HEADER):
            resources += content[len(PHOTOSHOP_HEADER) :]
        elif (0xE0 <= marker <= 0xEF or marker == _COMMENT) and not content.startswith(_ELSEWHERE.get(marker, ())):
            others.append((marker, content))
    return resources or None, others


def insert(data: bytes, photoshop: bytes | None, others: Iterable[tuple[int, bytes]]) -> bytes:
    """Returns a JPEG with Photoshop's resources and other segments behind those that it has."""
    position = 2
    while 0xE0 <= data[position + 1] <= 0xEF:
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    room = _LARGEST - len(PHOTOSHOP_HEADER)
    resources = photoshop or b""
    added = [
        (_APP13, PHOTOSHOP_HEADER + resources[start : start + room]) for start in range(0, len(resources), room)
    ] + list(others)
    inserted = b"".join(struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content for marker, content in added)
    return data[:position] + inserted + data[position:]
