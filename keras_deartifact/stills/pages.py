"""A TIFF of several pages, each of which is a TIFF of one.

The files are written one behind another, and what says where something is in a file moves with it; Pillow does that for
the pixels, and not for EXIF.

Reference: "TIFF Revision 6.0", Adobe 1992.
"""

import struct
from collections.abc import Iterable
from typing import BinaryIO

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SHORT, _LONG = 3, 4

_STRIPS, _TILES = 273, 324
_DIRECTORIES = (0x8769, 0x8825, 0xA005)


def write_tiff(file: BinaryIO, pages: Iterable[bytes]) -> None:
    """Writes a TIFF.

    Args:
        file: to write to.
        pages: TIFFs of one page each, all in one order of bytes.

    Raises:
        ValueError: more bytes than a TIFF can hold.
    """
    link = 0
    for page in pages:
        start = file.tell()
        if start + len(page) >= 1 << 32:
            raise ValueError(f"expected at most 4 GiB for a TIFF. Received: {start + len(page)} bytes")
        order = "<" if page[:2] == b"II" else ">"
        moved = bytearray(page)
        (directory,) = struct.unpack_from(order + "I", page, 4)
        following = _move(moved, directory, start, order)
        # Whatever follows has to begin at an even place.
        file.write(moved + bytes(len(moved) % 2))
        if start:
            file.seek(link)
            file.write(struct.pack(order + "I", start + directory))
            file.seek(0, 2)
        link = start + following


def _move(data: bytearray, directory: int, distance: int, order: str) -> int:
    """Moves all that a directory says of places; returns where it says what directory follows."""
    count: int = struct.unpack_from(order + "H", data, directory)[0]
    end = directory + 2 + 12 * count
    for entry in range(directory + 2, end, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
        (value,) = struct.unpack_from(order + "I", data, entry + 8)
        if tag in (_STRIPS, _TILES):
            _move_places(data, entry, number, kind, distance, order)
        elif tag in _DIRECTORIES:
            _move(data, value, distance, order)
            struct.pack_into(order + "I", data, entry + 8, value + distance)
        elif _SIZES.get(kind, 1) * number > 4:
            struct.pack_into(order + "I", data, entry + 8, value + distance)
    return end


def _move_places(data: bytearray, entry: int, number: int, kind: int, distance: int, order: str) -> None:
    """Moves the places of strips or tiles, which need 32 bits then."""
    form = f"{order}{number}{'H' if kind == _SHORT else 'I'}"
    (start,) = (entry + 8,) if struct.calcsize(form) <= 4 else struct.unpack_from(order + "I", data, entry + 8)
    places = [place + distance for place in struct.unpack_from(form, data, start)]
    struct.pack_into(order + "H", data, entry + 2, _LONG)
    if number == 1:
        struct.pack_into(order + "I", data, entry + 8, places[0])
        return
    data += bytes(len(data) % 2)
    struct.pack_into(order + "I", data, entry + 8, len(data) + distance)
    data += struct.pack(f"{order}{number}I", *places)
