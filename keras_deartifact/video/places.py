"""Where in a file a decoder can begin, as its packets tell, and how one gets there.

A frame shows at the time of the packet that it was coded in. So where every packet has a time of its own, the packets
tell which frames there are, without decoding. A decoder that begins at a key frame gives all frames from its time on
as one that began at the file's start would. (Not those of before it that were coded after it, which an open group of
pictures has.) What only decoding tells, such as a stream whose key frames are none, has to be checked then.

Where a file's presentation times are none (`reader.shows_at_dts`), a frame shows at the decoding time of the packet
that made the decoder give it, some packets after its own.
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

# So many packets lie between a frame's place in the order of coding and its place in that of showing, at most. Decoders
# hold back fewer.
_MOST_MOVED = 32

# So much earlier a seek is tried, where one to a place itself led behind it.
_EARLIER_SECONDS = 2


class LostError(ValueError):
    """A decoder cannot go on from a place as one that came there from the start of the file."""


@dataclass(frozen=True)
class Place:
    """A key frame at which a decoder begins.

    Attributes:
        number: of packets of the video before it.
        time: of the packet, as the video's frames show by it, in ticks.
        dts: its decoding time, in ticks.
        by_dts: whether `time` is that, or the presentation time.
        crc: of the packet.
        packets: how many from it on are needed.
        crc_of_all: of all these.
    """

    number: int
    time: int
    dts: int
    by_dts: bool
    crc: int
    packets: int
    crc_of_all: int


class Packets:
    """The packets of a video whose frames they tell.

    Attributes:
        times: at which they show, in order, in ticks.
        time_base: seconds a tick.
    """

    def __init__(self, by_dts: bool, time_base: Fraction) -> None:
        """Begins without a packet.

        Args:
            by_dts: whether frames show at decoding times.
            time_base: seconds a tick.
        """
        self.times = array("q")
        self.time_base = time_base
        self._by_dts = by_dts
        # In the order of coding.
        self._shown, self._decoded, self._crcs, self._keys = array("q"), array("q"), array("I"), array("q")

    def add(self, packet: Packet[Any]) -> bool:
        """Takes the next packet; returns whether it has a time."""
        time = _time(packet, self._by_dts)
        if time is None:
            return False
        if packet.is_keyframe:
            self._keys.append(len(self._shown))
        self._shown.append(time)
        self._decoded.append(time if packet.dts is None else packet.dts)
        self._crcs.append(_crc(packet, time))
        return True

    def sort(self) -> bool:
        """Puts the times in order when all packets are there; returns whether those of a whole video can be so."""
        shown = np.frombuffer(self._shown, np.int64)
        order = np.argsort(shown, kind="stable")
        self.times = array("q", shown[order].tobytes())
        moved = np.abs(order - np.arange(len(order))).max(initial=0)
        return len(order) > 0 and bool(moved < _MOST_MOVED) and bool((np.diff(shown[order]) > 0).all())

    def place(self, since: int, until: int | None) -> Place | None:
        """Where a decoder has to begin to give all frames of a time.

        Args:
            since: time of the first one.
            until: time behind the last one; None for all to the end.

        Returns:
            None for the start of the file.
        """
        first = next(index for index in self._around(since) if self._shown[index] >= since)
        if self._by_dts:
            first -= _MOST_MOVED
        key = bisect_right(self._keys, first) - 1
        while key >= 0 and self._shown[self._keys[key]] > since:
            key -= 1
        number = self._keys[key] if key >= 0 else 0
        if number == 0:
            return None
        end = len(self._shown)
        if until is not None:
            end = 1 + next(index for index in reversed(self._around(until)) if self._shown[index] < until)
        needed = self._crcs[number:end]
        times = self._shown[number], self._decoded[number], self._by_dts
        return Place(number, *times, needed[0], len(needed), zlib.crc32(needed.tobytes()))

    def _around(self, time: int) -> range:
        """The packets among which are those of about a time."""
        rank = bisect_left(self.times, time)
        return range(max(0, rank - _MOST_MOVED), min(len(self._shown), rank + _MOST_MOVED))


def read_packets(source: Source, by_dts: bool) -> Packets | None:
    """Reads the packets of a file's main video.

    Args:
        source: the file.
        by_dts: see `reader.shows_at_dts`.

    Returns:
        None where they do not tell of its frames: one has no time or that of another, or they are in no order.
    """
    with containers.open_input(source) as container:
        stream = containers.main_video(container, source)
        packets = Packets(by_dts, containers.time_base(stream))
        # Where a file cannot be read any further, a decoder is not given more.
        with suppress(av.FFmpegError):
            for packet in containers.packets(container):
                if packet.stream_index == stream.index and packet.size and not packets.add(packet):
                    return None
    return packets if packets.sort() else None


def reach(source: Source, place: Place) -> tuple[InputContainer, VideoStream, Iterator[Packet[Any]]]:
    """Opens a file at a place.

    Returns:
        The container, its main video, and the packets of all streams from the place on.

    Raises:
        ValueError: the file is not the one whose packets were read.
        LostError: raised while packets are read: after a jump, they are not what they were in a row.
    """
    # Formats seek by either time, some of them roughly or not at all.
    for time, earlier_seconds in ((place.time, 0), (place.dts, 0), (place.dts, _EARLIER_SECONDS), (None, 0)):
        container = containers.open_input(source)
        stream = containers.main_video(container, source)
        reading = containers.packets(container)
        try:
            if time is not None:
                with bounds.decoding():
                    container.seek(time - round(earlier_seconds / containers.time_base(stream)), stream=stream)
            packet = _find(reading, stream, place, time is None)
        except av.FFmpegError:
            if time is None:
                raise
            packet = None
        if packet is not None:
            return container, stream, _checked(packet, reading, stream, place)
        container.close()
    raise ValueError(f"source must be as it was when it was planned. Received: {containers.label(source)}")


def _find(
    reading: Iterator[Packet[Any]], stream: VideoStream, place: Place, from_start: bool
) -> Packet[VideoStream] | None:
    """Reads up to the packet of a place; None where it does not come."""
    number = 0
    for packet in reading:
        if packet.stream_index != stream.index or not packet.size:
            continue
        time = _time(packet, place.by_dts)
        if time == place.time and _crc(packet, time) == place.crc:
            return packet
        number += 1
        is_behind = packet.is_keyframe and time is not None and time > place.time
        if number > place.number or (is_behind and not from_start):
            return None
    return None


def _checked(
    first: Packet[Any], reading: Iterator[Packet[Any]], stream: VideoStream, place: Place
) -> Iterator[Packet[Any]]:
    """The packets from a place on."""
    yield first
    crcs = array("I", [place.crc])
    for packet in reading:
        if packet.stream_index == stream.index and packet.size and len(crcs) < place.packets:
            crcs.append(_crc(packet, _time(packet, place.by_dts)))
            if len(crcs) == place.packets and zlib.crc32(crcs.tobytes()) != place.crc_of_all:
                raise LostError(f"the packets after a place must be those that were read before. Received: {place}")
        yield packet


def _time(packet: Packet[Any], by_dts: bool) -> int | None:
    """The time by which a packet's frame shows."""
    return packet.dts if by_dts else packet.pts


def _crc(packet: Packet[Any], time: int | None) -> int:
    return zlib.crc32(memoryview(packet), zlib.crc32(b"%d" % (time or 0)))
