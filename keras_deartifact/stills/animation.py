"""Animated PNG and WebP of frames that are encoded one by one.

Pillow's own writers keep all frames in memory and make one of equal frames that follow each other. Here each stays a
frame, and of what is the same as in the frame before nothing is written.

References: "Portable Network Graphics (PNG) Specification (Third Edition)", W3C; "WebP Container Specification",
Google.
"""

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import BinaryIO, NamedTuple

from keras_deartifact.stills import png_chunks, webp_chunks
from keras_deartifact.stills.several import Series

_MOST_SHORT = (1 << 16) - 1
_MOST_MILLISECONDS = (1 << 24) - 1

_NOT_BLENDED = 0b10
_ICC, _ALPHA, _EXIF, _XMP, _ANIMATION = 0x20, 0x10, 0x08, 0x04, 0x02


class Part(NamedTuple):
    """What changes from one frame to the next: where it is, in pixels, and a file of it."""

    left: int
    top: int
    width: int
    height: int
    encoded: bytes


def write_png(file: BinaryIO, parts: Iterable[Part], found: Series) -> None:
    """Writes an animated PNG.

    Args:
        file: to write to.
        parts: PNGs; the first is a whole frame, with all metadata.
        found: how many there are, how long each is shown, and how often all.

    Raises:
        ValueError: frames of different kinds of pixels.
    """
    number = 0
    layout, last = b"", []
    for index, part in enumerate(parts):
        found_chunks = list(png_chunks.chunks(part.encoded))
        control: list[bytes] = []
        if index or not found.stands_apart:
            control = [_frame_control(number, part, found.durations[index])]
            number += 1
        data = b"".join(content for kind, content in found_chunks if kind == b"IDAT")
        if index == 0:
            layout = found_chunks[0][1][8:]
            names = [kind for kind, _ in found_chunks]
            start = names.index(b"IDAT")
            head = [png_chunks.chunk(*each) for each in found_chunks[:start]]
            last = [each for each in found_chunks[start:] if each[0] != b"IDAT"]
            count = found.count - found.stands_apart
            play = png_chunks.chunk(b"acTL", struct.pack(">II", count, found.plays))
            written = [png_chunks.SIGNATURE, head[0], play, *head[1:], *control, png_chunks.chunk(b"IDAT", data)]
        else:
            if found_chunks[0][1][8:] != layout:
                raise ValueError("expected frames of one kind of pixels, which PNG needs. Received: another one")
            written = [*control, png_chunks.chunk(b"fdAT", struct.pack(">I", number) + data)]
            number += 1
        file.write(b"".join(written))
    file.write(b"".join(png_chunks.chunk(*each) for each in last))


def _frame_control(number: int, part: Part, duration: Fraction) -> bytes:
    place = part.width, part.height, part.left, part.top
    return png_chunks.chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, *place, *delay(duration), 0, 0))


def delay(duration: Fraction) -> tuple[int, int]:
    """A time in milliseconds as PNG has it: seconds as a fraction of two numbers of 16 bits, the nearest where need be.

    Args:
        duration: in milliseconds, at least 0.
    """
    seconds = duration / 1000
    if seconds.numerator <= _MOST_SHORT and seconds.denominator <= _MOST_SHORT:
        return seconds.numerator, seconds.denominator
    finest = max(1, min(_MOST_SHORT, int(_MOST_SHORT / seconds)))
    near = seconds.limit_denominator(finest)
    return min(near.numerator, _MOST_SHORT), near.denominator


def write_webp(file: BinaryIO, parts: Iterable[Part], found: Series) -> None:
    """Writes an animated WebP.

    Args:
        file: to write to.
        parts: WebPs, of which the first is a whole frame with all metadata; `left` and `top` are even.
        found: how many there are, how long each is shown, and how often all.

    Raises:
        ValueError: more bytes than a WebP can hold.
    """
    times = milliseconds(found.durations)
    last = b""
    for index, part in enumerate(parts):
        found_chunks = list(webp_chunks.chunks(part.encoded))
        if index == 0:
            named = dict(found_chunks)
            flags = _ANIMATION | (_ALPHA if found.has_alpha else 0)
            for kind, flag in ((b"ICCP", _ICC), (b"EXIF", _EXIF), (b"XMP ", _XMP)):
                flags |= flag if kind in named else 0
            size = _three_bytes(part.width - 1, part.height - 1)
            head = [webp_chunks.chunk(b"VP8X", bytes((flags, 0, 0, 0)) + size)]
            head += [webp_chunks.chunk(b"ICCP", named[b"ICCP"])] if b"ICCP" in named else []
            head.append(webp_chunks.chunk(b"ANIM", struct.pack("<IH", 0, min(found.plays, _MOST_SHORT))))
            last = b"".join(webp_chunks.chunk(kind, named[kind]) for kind in (b"EXIF", b"XMP ") if kind in named)
            file.write(b"RIFF\0\0\0\0WEBP" + b"".join(head))
        place = _three_bytes(part.left // 2, part.top // 2, part.width - 1, part.height - 1, times[index])
        data = [webp_chunks.chunk(*each) for each in found_chunks if each[0] in (b"ALPH", b"VP8 ", b"VP8L")]
        file.write(webp_chunks.chunk(b"ANMF", place + bytes((_NOT_BLENDED,)) + b"".join(data)))
    file.write(last)
    length = file.tell() - 8
    if length >= 1 << 32:
        raise ValueError(f"expected at most 4 GiB for a WebP; write a .png. Received: {length} bytes")
    file.seek(4)
    file.write(struct.pack("<I", length))


def milliseconds(durations: Sequence[Fraction]) -> list[int]:
    """Durations in whole milliseconds; what is rounded off one is added to the next, so that none drifts."""
    ends, time = [0], Fraction(0)
    for duration in durations:
        time += duration
        ends.append(round(time))
    return [min(end - start, _MOST_MILLISECONDS) for start, end in zip(ends, ends[1:], strict=False)]


def _three_bytes(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(3, "little") for number in numbers)
