"""Which frames of several videos are shown at the same time.

Containers round times to their own ticks (Matroska to a millisecond), so that partners may lie apart by the sum of the
two coarsest ticks. Ticks longer than a quarter of a frame do not count: AVI counts frames, and its times are exact.

Videos that start at different times (a transport stream at 1.4 s) are compared from their first frames on if that makes
more frames partners than their times as they are.
"""

import contextlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import av

from keras_deartifact import video
from keras_deartifact.video import containers

Item = TypeVar("Item")


@dataclass(frozen=True)
class Timeline:
    """What a video's packets tell before it is decoded.

    Attributes:
        times: at which its frames are shown, seconds, in order.
        tick: what times are rounded to, seconds.
        frame_rate: frames a second on average; 25 where the file does not say.
        size_bytes: of the video's packets.
    """

    times: list[Fraction]
    tick: Fraction
    frame_rate: Fraction
    size_bytes: int


def read_timeline(path: Path) -> Timeline:
    """Reads a video's packets, and decodes its first frame.

    Raises:
        ValueError: it is no video, or none of its frames decodes.
        OSError: the file system does not give it.
    """
    with contextlib.closing(_times(path)) as decoded:
        start = next(decoded)
    stamps = []
    size_bytes = 0
    with containers.open_input(path) as container:
        stream = containers.main_video(container, path)
        tick = containers.time_base(stream)
        packets = containers.packets(container, stream)
        # A damaged file is told of by the one who decodes it.
        with contextlib.suppress(av.FFmpegError):
            for packet in packets:
                size_bytes += packet.size
                stamp = packet.dts if packet.pts is None or container.format.name == "avi" else packet.pts
                if packet.size and stamp is not None:
                    stamps.append(stamp)
        rate = containers.frame_rate(stream) or Fraction(25)
    stamps.sort()
    # Decoding may take other times than the packets state (`read_frames`), but at the same distances.
    times = [start + (stamp - stamps[0]) * tick for stamp in stamps]
    return Timeline(times or [start], tick, rate, size_bytes)


def _times(path: Path) -> Generator[Fraction, None, None]:
    for frame in video.read_frames(path, quantisers=False):
        yield time_of(frame.image)


def time_of(frame: av.VideoFrame) -> Fraction:
    """The time at which a frame of `read_frames` is shown, in seconds."""
    return Fraction(frame.pts or 0) * Fraction(frame.time_base or 0)


def tolerance(timelines: Sequence[Timeline]) -> Fraction:
    """How far apart the times of partners may lie, seconds; at most half a frame."""
    frame = min(1 / timeline.frame_rate for timeline in timelines)
    ticks = sorted(timeline.tick for timeline in timelines if timeline.tick <= frame / 4)
    return sum(ticks[-2:], Fraction(0))


def offsets(timelines: Sequence[Timeline]) -> list[Fraction]:
    """What to subtract from the times of each video: nothing, or the start of each."""
    none = [Fraction(0)] * len(timelines)
    starts = [timeline.times[0] for timeline in timelines]
    apart = tolerance(timelines)
    if max(starts) - min(starts) <= apart:
        return none
    counts = []
    for shifts in (none, starts):
        streams = [
            iter([(time - shift, None) for time in timeline.times])
            for timeline, shift in zip(timelines, shifts, strict=True)
        ]
        counts.append(sum(1 for _ in align(streams, apart, [0] * len(streams))))
    return starts if counts[1] > counts[0] else none


def align(
    streams: Sequence[Iterator[tuple[Fraction, Item]]], apart: Fraction, alone: list[int]
) -> Iterator[tuple[Fraction, list[Item]]]:
    """Yields the items that are partners.

    Args:
        streams: times, in order, with items; each is read to its end, one at a time.
        apart: how far the times of partners may lie apart.
        alone: an element a stream; what has no partner in every other stream is added here.

    Yields:
        The first stream's time, and an item of each stream.
    """
    heads = [next(stream, None) for stream in streams]
    while True:
        known = [head for head in heads if head is not None]
        if len(known) < len(heads):
            break
        last = max(time for time, _ in known)
        late = [index for index, (time, _) in enumerate(known) if time < last - apart]
        if not late:
            yield known[0][0], [item for _, item in known]
        for index in late or range(len(heads)):
            alone[index] += 1 if late else 0
            heads[index] = next(streams[index], None)
    for index, stream in enumerate(streams):
        if heads[index] is not None:
            alone[index] += 1 + sum(1 for _ in stream)
