"""Runs of encoded frames in files of their own, and how they become one stream.

Each segment is made by a fresh encoder: it begins with a key frame, and its packets are a function of its frames alone.
So it does not matter which of them one run made and which another. A file of a segment is a sequence of

    pts, duration, flags (1: key frame), size, size of more    little-endian, 64 + 64 + 8 + 32 + 32 bits
    the packet, and what Matroska holds beside it, such as VP9's alpha

A segment knows nothing of the frames before it, so the encoders' own decoding times do not join where the frame rate
varies. They are made anew for the whole stream, by the rule that x264 and x265 have: with all presentation times
sorted, the decoding time of packet `k` is the presentation time number `k - delay`; the first `delay` of them lie
before the first presentation time, as far apart as there.
"""

# PyAV's Packet is generic in its stubs alone, so annotations must not be evaluated.
from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, get_args

from av.packet import Packet, PacketSideData, PktSideDataT

_MORE: Literal["matroska_block_additional"] = "matroska_block_additional"

_HEADER = struct.Struct("<qqBII")


class _Entry(NamedTuple):
    pts: int
    duration: int
    is_keyframe: bool
    size: int
    more: int


def append(file: IO[bytes], packets: Iterable[Packet[Any]]) -> None:
    """Writes packets of an encoder to the end of a segment's file."""
    for packet in packets:
        more = bytes(packet.get_sidedata(_MORE)) if packet.has_sidedata(_MORE) else b""
        header = packet.pts or 0, packet.duration or 0, packet.is_keyframe, packet.size, len(more)
        file.write(_HEADER.pack(*header))
        file.write(bytes(packet))
        file.write(more)


def decoding_times(pts: Sequence[int]) -> list[int]:
    """The decoding times of a stream's packets; see the module.

    Args:
        pts: presentation times in decoding order, all different.
    """
    ordered = sorted(pts)
    rank = {time: index for index, time in enumerate(ordered)}
    delay = max((index - rank[time] for index, time in enumerate(pts)), default=0)
    early = [time - (ordered[delay] - ordered[0]) for time in ordered[:delay]]
    return early + ordered[: len(ordered) - delay]


def read(paths: Sequence[Path]) -> Iterator[Packet[Any]]:
    """Reads the packets of a whole stream, with decoding times.

    Args:
        paths: the segments' files, in order.

    Yields:
        Packets without a time base.
    """
    dts = iter(decoding_times([entry.pts for path in paths for entry, _ in _entries(path, skip=True)]))
    for path in paths:
        for entry, data in _entries(path):
            packet: Packet[Any] = Packet(data[: entry.size])
            if entry.more:
                packet.set_sidedata(_side_data(data[entry.size :]))
            packet.pts, packet.dts, packet.duration = entry.pts, next(dts), entry.duration
            packet.is_keyframe = entry.is_keyframe
            yield packet


def _entries(path: Path, skip: bool = False) -> Iterator[tuple[_Entry, bytes]]:
    """The packets of a file; with `skip` without what is in them."""
    with path.open("rb") as file:
        while header := file.read(_HEADER.size):
            pts, duration, flags, size, more = _HEADER.unpack(header)
            entry = _Entry(pts, duration, bool(flags), size, more)
            if skip:
                file.seek(size + more, os.SEEK_CUR)
            yield entry, b"" if skip else file.read(size + more)


def _side_data(data: bytes) -> PacketSideData:
    # PyAV numbers the kinds by their place in this list.
    made: Any = PacketSideData
    side_data: PacketSideData = made(get_args(PktSideDataT).index(_MORE), len(data))
    side_data.update(data)
    return side_data
