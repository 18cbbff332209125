"""Where in a file a decoder can begin, as its packets tell, and how one gets there.

A frame shows at the time of the packet that it was coded in. So where every packet has a time of its own, the packets
tell which frames there are, without decoding. A decoder that begins at a key frame gives all frames from its time on
as one that began at the file's start would. (Not those of before it that were coded after it, which an open group of
pictures has.) What only decoding tells, such as a stream whose key frames are none, has to be checked then.
"""

# PyAV's Packet is generic in its stubs alone, so annotations must not be evaluated.
from __future__ import annotations

import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from keras_deartifact import bounds
from keras_deartifact.video import containers
from keras_deartifact.video.containers import Source

# So many packets lie between a frame's place in the order of coding and its place in that of showing, at most.
_MOST_MOVED = 32


class LostError(ValueError):
    """A file does not have at a place what its packets told."""


@dataclass(frozen=True)
class Place:
    """A key frame at which a decoder begins.

    Attributes:
        number: of packets of the video before it.
        pts: its presentation time, in ticks.
        dts: its decoding time, in ticks.
        crc: of its packet.
        packets: how many packets from it on are needed.
        crc_of_all: of all these.
    """

    number: int
    pts: int
    dts: int
    crc: int
    packets: int
    crc_of_all: int


class Packets:
    """The packets of a video whose frames they tell.

    Attributes:
        times: presentation times in ticks, in order.
        time_base: seconds a tick.
    """

    def __init__(
        self, time_base: Fraction, pts: array[int], dts: array[int], crcs: array[int], keys: list[int]
    ) -> None:
        """Sorts them.

        Args:
            time_base: seconds a tick.
            pts: presentation times in the order of coding, in ticks.
            dts: decoding times likewise.
            crcs: of each packet with its time.
            keys: which are key frames.
        """
        self.times: list[int] = np.sort(np.frombuffer(pts, np.int64)).tolist()
        self.time_base = time_base
        self._pts, self._dts, self._crcs, self._keys = pts, dts, crcs, keys

    def place(self, since: int, until: int | None) -> Place | None:
        """Where a decoder has to begin to give all frames of a time.

        Args:
            since: time of the first one.
            until: time behind the last one; None for all to the end.

        Returns:
            None for the start of the file.
        """
        first = next(index for index in self._around(since) if self._pts[index] >= since)
        key = bisect_right(self._keys, first) - 1
        while key >= 0 and self._pts[self._keys[key]] > since:
            key -= 1
        number = self._keys[key] if key >= 0 else 0
        if number == 0:
            return None
        end = len(self._pts)
        if until is not None:
            end = 1 + next(index for index in reversed(self._around(until)) if self._pts[index] < until)
        needed = self._crcs[number:end]
        return Place(number, self._pts[number], self._dts[number], needed[0], len(needed), zlib.crc32(needed.tobytes()))

    def _around(self, time: int) -> range:
        """The packets among which are those of about a time."""
        rank = bisect_left(self.times, time)
        return range(max(0, rank - _MOST_MOVED), min(len(self._pts), rank + _MOST_MOVED))


def read_packets(source: Source) -> Packets | None:
    """Reads the packets of a file's main video.

    Returns:
        None where they do not tell of its frames: one has no time or that of another, or their order is none.
    """
    pts, dts, crcs, keys = array("q"), array("q"), array("I"), list[int]()
    with containers.open_input(source) as container:
        stream = containers.main_video(container, source)
        time_base = containers.time_base(stream)
        reading = containers.packets(container)
        # Where a file cannot be read any further, a decoder is not given more.
        with suppress(av.FFmpegError):
            for packet in reading:
                if packet.stream_index != stream.index or not packet.size:
                    continue
                if packet.pts is None:
                    return None
                if packet.is_keyframe:
                    keys.append(len(pts))
                pts.append(packet.pts)
                dts.append(packet.pts if packet.dts is None else packet.dts)
                crcs.append(_crc(packet))
    order = np.argsort(np.frombuffer(pts, np.int64), kind="stable")
    moved = np.abs(order - np.arange(len(order)))
    if not len(order) or moved.max() >= _MOST_MOVED or len(set(pts)) < len(pts):
        return None
    return Packets(time_base, pts, dts, crcs, keys)


def reach(source: Source, place: Place) -> tuple[InputContainer, VideoStream, Iterator[Packet[Any]]]:
    """Opens a file at a place.

    Returns:
        The container, its main video, and the packets of all streams from the place on.

    Raises:
        LostError: the file is not what it was; or it turns out to be so, while the packets are read.
    """
    # Formats seek by either time, some of them roughly or not at all.
    for time in (place.pts, place.dts, None):
        container = containers.open_input(source)
        stream = containers.main_video(container, source)
        reading = containers.packets(container)
        try:
            if time is not None:
                with bounds.decoding():
                    container.seek(time, stream=stream)
            packet = _find(reading, stream, place, time is None)
        except av.FFmpegError:
            packet = None
        if packet is not None:
            return container, stream, _checked(packet, reading, stream, place)
        container.close()
    raise LostError(f"source must be as it was when its packets were read. Received: {containers.label(source)}")


def _find(
    reading: Iterator[Packet[Any]], stream: VideoStream, place: Place, from_start: bool
) -> Packet[VideoStream] | None:
    """Reads up to the packet of a place; None where it does not come."""
    number = 0
    for packet in reading:
        if packet.stream_index != stream.index or not packet.size:
            continue
        if packet.pts == place.pts and _crc(packet) == place.crc:
            return packet
        number += 1
        is_behind = packet.is_keyframe and packet.pts is not None and packet.pts > place.pts
        if number > place.number or (is_behind and not from_start):
            return None
    return None


def _checked(
    first: Packet[Any], reading: Iterator[Packet[Any]], stream: VideoStream, place: Place
) -> Iterator[Packet[Any]]:
    """The packets from a place on."""
    yield first
    crcs = array("I", [_crc(first)])
    for packet in reading:
        if packet.stream_index == stream.index and packet.size and len(crcs) < place.packets:
            crcs.append(_crc(packet))
            if len(crcs) == place.packets and zlib.crc32(crcs.tobytes()) != place.crc_of_all:
                raise LostError(f"the packets after a place must be those that were read before. Received: {place}")
        yield packet


def _crc(packet: Packet[Any]) -> int:
    return zlib.crc32(memoryview(packet), zlib.crc32(b"%d" % (packet.pts or 0)))
