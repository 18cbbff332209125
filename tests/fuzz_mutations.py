"""Ways to break a file, for fuzzing."""

import re
import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np

_EXTREMES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)

# What containers, images and their parts begin with; near these are the lengths and sizes.
_MARKS = re.compile(
    rb"IHDR|IDAT|iCCP|zTXt|iTXt|eXIf|PLTE|tRNS|VP8[ XL]|ICCP|EXIF|XMP |RIFF|LIST|strf|strh|idx1|movi|avih|"
    rb"moov|trak|mdia|stbl|stts|stsz|stsc|stco|ctts|stsd|elst|mvhd|tkhd|mdhd|avcC|hvcC|av1C|esds|moof|traf|trun|tfhd|"
    rb"ispe|ipco|iloc|iinf|meta|mdat|FLV|MThd|OggS|DKIF|\x1a\x45\xdf\xa3|\x1f\x43\xb6\x75|\x16\x54\xae\x6b|\x00\x00\x01|"
    rb"\xff[\xc0-\xc9\xda\xdb\xdd\xe1\xe2]|II\x2a\x00|BM|GIF8",
    re.DOTALL,
)


def _bits(data: bytearray, generator: np.random.Generator, others: Sequence[bytes]) -> bytearray:
    """Flips single bits."""
    for place in generator.integers(0, len(data), generator.integers(1, 12)):
        data[place] ^= 1 << int(generator.integers(8))
    return data


def _run(data: bytearray, generator: np.random.Generator, others: Sequence[bytes]) -> bytearray:
    """Fills a stretch with one byte, or with noise."""
    start, count = int(generator.integers(len(data))), int(generator.integers(1, 64))
    filling = bytes([int(generator.choice([0, 0xFF, 0x41]))]) * count
    data[start : start + count] = filling if generator.integers(2) else generator.bytes(count)
    return data


def _cut(data: bytearray, generator: np.random.Generator, others: Sequence[bytes]) -> bytearray:
    """Cuts the end off."""
    return data[: int(generator.integers(len(data)))]


def _drop(data: bytearray, generator: np.random.Generator, others: Sequence[bytes]) -> bytearray:
    """Takes a stretch out: whole packets, boxes and chunks, or parts of them."""
    start, stop = _stretch(data, generator)
    return data[:start] + data[stop:]


def _double(data: bytearray, generator: np.random.Generator, others: Sequence[bytes]) -> bytearray:
    """Repeats a stretch."""
    start, stop = _stretch(data, generator)
    return data[:stop] + data[start:stop] * int(generator.integers(1, 5)) + data[stop:]


def _splice(data: bytearray, generator: np.random.Generator, others: Sequence[bytes]) -> bytearray:
    """Puts a stretch of another sample in."""
    other = bytearray(others[int(generator.integers(len(others)))])
    first, last = _stretch(other, generator)
    start, stop = _stretch(data, generator)
    return data[:start] + other[first:last] + data[stop if generator.integers(2) else start :]


def _glue(data: bytearray, generator: np.random.Generator, others: Sequence[bytes]) -> bytearray:
    """Puts another sample behind this one, or half of it."""
    other = others[int(generator.integers(len(others)))]
    return data + other[: len(other) // int(generator.integers(1, 3))]


def _number(data: bytearray, generator: np.random.Generator, others: Sequence[bytes]) -> bytearray:
    """Sets numbers to extremes, mostly near a mark: lengths, sizes, counts, offsets."""
    marks = [match.start() for match in _MARKS.finditer(bytes(data))] or [0]
    for _ in range(int(generator.integers(1, 4))):
        near = int(generator.choice(marks)) + int(generator.integers(-8, 40))
        place = near if generator.integers(3) else int(generator.integers(len(data)))
        size = int(generator.choice([1, 2, 4]))
        if 0 <= place <= len(data) - size:
            value = int(generator.choice(_EXTREMES)) & (256**size - 1)
            order = "<" if generator.integers(2) else ">"
            data[place : place + size] = struct.pack(order + {1: "B", 2: "H", 4: "I"}[size], value)
    return data


def _stretch(data: bytearray, generator: np.random.Generator) -> tuple[int, int]:
    """Where a stretch begins and ends: mostly from mark to mark."""
    marks = [0, *(match.start() for match in _MARKS.finditer(bytes(data))), len(data)]
    places = generator.choice(marks, 2) if generator.integers(3) else generator.integers(0, len(data) + 1, 2)
    start, stop = sorted(int(place) for place in places)
    return start, min(max(stop, start + 1), start + 20_000)


Mutation = Callable[[bytearray, np.random.Generator, Sequence[bytes]], bytearray]

MUTATIONS: dict[str, Mutation] = {
    "bits": _bits,
    "run": _run,
    "cut": _cut,
    "drop": _drop,
    "double": _double,
    "splice": _splice,
    "glue": _glue,
    "number": _number,
}


def mutated(data: bytes, generator: np.random.Generator, others: Sequence[bytes]) -> tuple[bytes, str]:
    """Changes a file once or several times.

    Args:
        data: the file, not empty.
        generator: what decides.
        others: files to take parts from.

    Returns:
        The changed file, and the names of the changes.
    """
    changed, names = bytearray(data), []
    for _ in range(int(generator.choice([1, 1, 1, 2, 3]))):
        name = str(generator.choice(list(MUTATIONS)))
        if changed:
            changed = MUTATIONS[name](changed, generator, others)
            names.append(name)
    if changed[:4] == b"\x89PNG" and generator.integers(2):
        # Or its checksums would end every case at the first chunk that is changed.
        changed = _summed(changed)
        names.append("summed")
    return bytes(changed), "+".join(names)


def _summed(data: bytearray) -> bytearray:
    """A PNG with the checksums that its chunks should have."""
    place = 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return data
