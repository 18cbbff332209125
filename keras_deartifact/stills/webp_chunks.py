"""A WebP's chunks."""

import struct
from collections.abc import Iterator


def chunks(data: bytes, position: int = 12) -> Iterator[tuple[bytes, bytes]]:
    """Yields `(kind, content)` of a WebP, or of what a chunk of one holds from a position on."""
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        yield kind, data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk; a byte fills up what is odd."""
    return struct.pack("<4sI", kind, len(content)) + content + bytes(len(content) % 2)
