"""A PNG's chunks around its picture: texts, and statements on colour that Pillow does not write."""

import struct
import zlib
from collections.abc import Iterator

from keras_deartifact import bounds

SIGNATURE = b"\x89PNG\r\n\x1a\n"

RAW_PROFILE = "Raw profile type iptc"
"""Keyword under which ImageMagick and exiftool keep Photoshop's resources, in hexadecimal."""

_XMP = b"XML:com.adobe.xmp\0"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# All of these may stand before the palette. What depends on the layout of the pixels (sBIT, bKGD, hIST) is not carried,
# nor is tIME, the time of the last change.
_KEPT = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", *_TEXTS)


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields `(kind, content)` of a PNG."""
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, data[position + 8 : position + 8 + length]
        position += 12 + length


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk, with its length before and its checksum behind it."""
    return struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", zlib.crc32(kind + content))


def kept(data: bytes) -> tuple[bytes | None, list[tuple[bytes, bytes]]]:
    """Returns Photoshop's resources of a PNG, or None, and its other chunks as `Still.chunks` has them."""
    resources = None
    others = []
    for kind, content in chunks(data):
        if kind not in _KEPT or (kind == b"iTXt" and content.startswith(_XMP)):
            continue
        found = _resources(kind, content)
        if found is None:
            others.append((kind, content))
        else:
            resources = found
    return resources, others


def raw_profile(block: bytes) -> str:
    """The text that stands for a block: its name, its length, and hexadecimal in lines of 72."""
    text = block.hex()
    lines = "\n".join(text[start : start + 72] for start in range(0, len(text), 72))
    return f"\niptc\n{len(block):8d}\n{lines}\n"


def _resources(kind: bytes, content: bytes) -> bytes | None:
    """Photoshop's resources in a text, None where it is something else or broken."""
    keyword, _, rest = content.partition(b"\0")
    if kind != b"zTXt" or keyword != RAW_PROFILE.encode():
        return None
    try:
        # A block of more than the bound is left as the text that it is.
        text = zlib.decompressobj().decompress(rest[1:], bounds.TEXT_BYTES)
        block = bytes.fromhex("".join(text.decode("latin-1").split()[2:]))
    except (ValueError, zlib.error):
        return None
    return block if block.startswith(b"8BIM") else None
