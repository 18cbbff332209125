"""The shape of pixels in Matroska's header, which PyAV cannot set: it is written into the finished file, in place.

ffmpeg's muxer leaves a Void element in some tracks, and writes their length and numbers in more bytes than they need.
The two numbers of the displayed size take that place, the track ends where it ended, and nothing behind it moves.
Elements are numbered in RFC 9559.
"""

import io
import os
import zlib
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO, NamedTuple, cast

import av
from av.container import Flags

NAMES = frozenset(("matroska", "webm"))
"""ffmpeg's names of the formats."""

_SEGMENT, _TRACKS, _TRACK, _VIDEO, _CLUSTER = 0x18538067, 0x1654AE6B, 0xAE, 0xE0, 0x1F43B675
_VOID, _CHECKSUM, _UID, _DURATION = 0xEC, 0xBF, 0x73C5, 0x23E383
_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT = 0x54B0, 0x54BA, 0x54B2
_MOST = 0xFFFF


class _Element(NamedTuple):
    """Where an element begins, where its contents begin, and where it ends."""

    number: int
    start: int
    contents: int
    end: int


def state_pixel_shape(file: BinaryIO, shape: Fraction, size: tuple[int, int]) -> bool:
    """Makes a file say what shape the pixels of its first track have.

    Args:
        file: of Matroska or WebM, complete, open for reading and writing.
        shape: width of a pixel over its height.
        size: width and height in pixels.

    Returns:
        Whether there was room.
    """
    tracks = next((each for each in _children(file, _segment(file)) if each.number == _TRACKS), None)
    if tracks is None:
        return False
    track = next((each for each in _children(file, tracks) if each.number == _TRACK), None)
    parts = list(_children(file, track)) if track else []
    video = next((each for each in parts if each.number == _VIDEO), None)
    if track is None or video is None:
        return False
    told = (_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT)
    kept = b"".join(_bytes(file, each) for each in _children(file, video) if each.number not in told)
    width, height = _displayed(shape, size)
    stated = _written(_VIDEO, kept + _written(_DISPLAY_WIDTH, width) + _written(_DISPLAY_HEIGHT, height))
    contents = b"".join(stated if each is video else _short(file, each) for each in parts if each.number != _VOID)
    whole = _filled(contents, track.end - track.start)
    if whole is None:
        return False
    file.seek(track.start)
    file.write(whole)
    first = next(_children(file, tracks))
    if first.number == _CHECKSUM:
        file.seek(first.end)
        checksum = zlib.crc32(file.read(tracks.end - first.end))
        file.seek(first.contents)
        file.write(checksum.to_bytes(4, "little"))
    return True


def has_room(container: str, codec: str) -> bool:
    """Whether the muxer here leaves what `state_pixel_shape` needs.

    Args:
        container: `"matroska"` or `"webm"`.
        codec: an encoder.
    """
    written = io.BytesIO()
    with av.open(written, "w", container) as output:
        output.flags |= cast(int, Flags.bitexact.value)
        stream = output.add_mux_stream(codec, rate=25, width=720, height=480)
        stream.time_base = Fraction(1, 1000)
        output.start_encoding()
    return state_pixel_shape(written, Fraction(10, 11), (720, 480))


def _short(file: BinaryIO, element: _Element) -> bytes:
    """An element of a track, its number in as few bytes as it needs if it is one of those that may be long."""
    if element.number not in (_UID, _DURATION):
        return _bytes(file, element)
    file.seek(element.contents)
    return _written(element.number, file.read(element.end - element.contents).lstrip(b"\0"))


def _filled(contents: bytes, length: int) -> bytes | None:
    """A track of exactly so many bytes, filled up by a Void element and by the way in which its length is written."""
    for size_bytes in range(8, 0, -1):
        rest = length - 1 - size_bytes - len(contents)
        if rest == 0 or rest >= 2:
            void = _void(rest) if rest else b""
            if len(contents) + len(void) < (1 << 7 * size_bytes) - 1:
                return bytes([_TRACK]) + _size(len(contents) + len(void), size_bytes) + contents + void
    return None


def _void(length: int) -> bytes:
    size_bytes = 1 if length < 100 else 8
    return bytes([_VOID]) + _size(length - 1 - size_bytes, size_bytes) + bytes(length - 1 - size_bytes)


def _size(value: int, size_bytes: int) -> bytes:
    return ((1 << 7 * size_bytes) | value).to_bytes(size_bytes, "big")


def _displayed(shape: Fraction, size: tuple[int, int]) -> tuple[bytes, bytes]:
    """The displayed width and height: of exactly that ratio, and about as high as the picture."""
    ratio = (shape * size[0] / size[1]).limit_denominator(_MOST)
    if ratio.numerator > _MOST:
        ratio = 1 / (1 / ratio).limit_denominator(_MOST)
    times = max(1, min(-(-size[1] // ratio.denominator), _MOST // max(ratio.as_integer_ratio())))
    return (ratio.numerator * times).to_bytes(2, "big"), (ratio.denominator * times).to_bytes(2, "big")


def _segment(file: BinaryIO) -> _Element:
    file.seek(0, os.SEEK_END)
    whole = _Element(0, 0, 0, file.tell())
    return next(each for each in _children(file, whole) if each.number == _SEGMENT)


def _children(file: BinaryIO, parent: _Element) -> Iterator[_Element]:
    """The elements in one, up to the first cluster."""
    start = parent.contents
    while start < parent.end:
        number, contents = _number(file, start, keep=True)
        size, contents = _number(file, contents)
        element = _Element(number, start, contents, min(contents + size, parent.end))
        yield element
        if number == _CLUSTER:
            return
        start = element.end


def _number(file: BinaryIO, start: int, keep: bool = False) -> tuple[int, int]:
    """A number of variable length, its leading bits kept or not, and where it ends."""
    file.seek(start)
    first = file.read(1)[0]
    length = 9 - first.bit_length()
    value = int.from_bytes(bytes([first]) + file.read(length - 1), "big")
    return (value if keep else value & ((1 << 7 * length) - 1)), start + length


def _bytes(file: BinaryIO, element: _Element) -> bytes:
    file.seek(element.start)
    return file.read(element.end - element.start)


def _written(number: int, contents: bytes) -> bytes:
    """An element with the shortest size that there is."""
    length = 1
    while len(contents) >= (1 << 7 * length) - 1:
        length += 1
    return number.to_bytes(-(-number.bit_length() // 8), "big") + _size(len(contents), length) + contents
