"""Copies of the streams beside the main video: which the new file can hold, and their packets, unchanged."""

# PyAV's Packet is generic in its stubs alone, so annotations must not be evaluated.
from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream, Discard, Disposition, Stream
from av.video.stream import VideoStream

from keras_deartifact.video import containers, holding
from keras_deartifact.video.clock import Clock
from keras_deartifact.video.containers import Source

# PCM in Matroska knows its channel count alone, with which MP4 is not content.
_UNNAMED_LAYOUTS = {"1 channels": "mono", "2 channels": "stereo"}
# Written by the muxer itself, or true of the old file alone.
_STALE_TAGS = frozenset(
    "encoder duration major_brand minor_version compatible_brands vendor_id bps"
    " number_of_frames number_of_bytes".split()
)


class StreamCopies:
    """All streams of a file but the main video, on their way into another file.

    Attributes:
        skipped: descriptions of the streams that are left out, with the containers that could hold them.
    """

    def __init__(
        self,
        source: Source,
        opened: InputContainer,
        main: VideoStream,
        target: OutputContainer,
        drop: bool = False,
        earlier: Fraction = Fraction(0),
    ) -> None:
        """Adds the streams with their tags to the target, which must hold the video already.

        Timecode and chapter tracks of QuickTime files are no streams here: the muxer writes them from the tag
        `timecode` and from the chapters.

        Args:
            source: what `opened` was opened from.
            opened: the container to read the packets from, from its beginning.
            main: its stream that is not copied.
            target: the container to write.
            drop: leave out what the target cannot hold. Data streams that no container here can hold are left out in
                any case.
            earlier: seconds by which all packets move to the front.

        Raises:
            ValueError: the target cannot hold a stream, and `drop` is False.
        """
        self._opened = opened
        self._target = target
        self._earlier = earlier
        self._copies: dict[int, Stream] = {}
        self._damaged: Counter[str] = Counter()
        self._clocks: dict[int, Clock] = {}
        chapters = bool(opened.chapters())
        others = [
            stream
            for stream in opened.streams
            if stream.index != main.index
            and not holding.is_timecode(stream)
            and not holding.is_chapter_track(stream, chapters)
        ]
        unheld = [stream for stream in others if not holding.can_hold(target.format.name, stream)]
        lost = [stream for stream in unheld if stream.type != "data" or holding.holders([stream])]
        if lost and not drop:
            raise ValueError(self._refusal(lost, others))
        self.skipped = [_left_out(stream) for stream in unheld]
        for stream in others:
            if stream not in unheld:
                self._add(stream, source)
        self._packets = self._read()
        self._pending: Packet[Stream] | None = None

    def mux_until(self, seconds: Fraction | None) -> None:
        """Writes the packets up to a decoding time, or all that are left."""
        while True:
            if self._pending is None:
                self._pending = next(self._packets, None)
            packet = self._pending
            if packet is None or packet.dts is None:
                return
            if seconds is not None and packet.dts * Fraction(packet.time_base) > seconds:
                return
            index = packet.stream_index
            copy = self._copies[index]
            self._clocks[index].set(packet, Fraction(copy.time_base or packet.time_base))
            packet.stream = copy
            try:
                self._target.mux_one(packet)
            except av.error.InvalidDataError:
                # Between MPEG-TS and the others headers change, which a damaged packet may lack.
                self._damaged[holding.describe(self._opened.streams[index])] += 1
            self._pending = None

    @property
    def damaged(self) -> str | None:
        """What could not be copied so far, because it is damaged; None for nothing."""
        counts = [f"{count} of {name}" for name, count in self._damaged.items()]
        return f"damaged packets were left out: {', '.join(counts)}" if counts else None

    def _add(self, stream: Stream, source: Source) -> None:
        if isinstance(stream, VideoStream) and containers.is_picture(stream) and self._target.format.name == "matroska":
            # Matroska keeps cover pictures as attachments, and shows them by these names.
            kind, extension = {"png": ("image/png", "png")}.get(stream.codec_context.name, ("image/jpeg", "jpg"))
            name = stream.metadata.get("filename") or f"cover.{extension}"
            data = _picture(source, stream.index)
            if data:
                self._target.add_attachment(name, stream.metadata.get("mimetype") or kind, data)
        elif isinstance(stream, AttachmentStream):
            name, kind = stream.name or "attachment", stream.mimetype or "application/octet-stream"
            self._target.add_attachment(name, kind, stream.data).metadata.update(tags(stream))
        else:
            copy = self._target.add_stream_from_template(stream, opaque=True)
            copy.disposition = stream.disposition
            copy.metadata.update(tags(stream))
            if "language" in copy.metadata:
                copy.metadata["language"] = holding.language(self._target.format.name, copy.metadata["language"])
            layout = _UNNAMED_LAYOUTS.get(stream.layout.name) if isinstance(stream, AudioStream) else None
            if isinstance(copy, AudioStream) and layout is not None:
                copy.codec_context.layout = layout
            self._copies[stream.index] = copy
            self._clocks[stream.index] = Clock(stream)

    def _refusal(self, lost: list[Stream], others: list[Stream]) -> str:
        fits = holding.holders(others)
        if fits:
            advice = f"write {fits[0]} instead"
        elif any(not holding.holders([stream]) for stream in lost):
            name = shlex.quote(self._opened.name)
            advice = f"convert it first, for example with 'ffmpeg -i {name} -map 0 -c copy -c:a flac converted.mkv'"
        else:
            advice = "no container here holds all that the file has"
        return (
            f"{self._target.format.name} cannot hold {', '.join(map(holding.describe, lost))}; {advice}, or leave out "
            f"what it cannot hold with drop=True (--drop). Received: path={self._target.name!r}"
        )

    def _read(self) -> Iterator[Packet[Stream]]:
        wanted = [self._opened.streams[index] for index in self._copies]
        if not wanted:
            return
        for stream in self._opened.streams:
            if stream.index not in self._copies:
                stream.discard = Discard.all
        packets = containers.packets(self._opened, *wanted)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.FFmpegError):
                return
            # PyAV ends each stream with an empty packet.
            if not packet.size:
                continue
            if packet.stream.disposition & Disposition.attached_pic:
                # Cover pictures come without times.
                packet.pts = packet.dts = 0
            self._clocks[packet.stream_index].complete(packet)
            ticks = round(self._earlier / Fraction(packet.time_base))
            if ticks and packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
            yield packet


def tags(holder: InputContainer | Stream) -> dict[str, str]:
    """The tags of a file or a stream that are true of a copy too."""
    return {
        name: containers.text(value)
        for name, value in holder.metadata.items()
        if name.lower().split("-")[0] not in _STALE_TAGS and not name.startswith("_STATISTICS")
    }


def _picture(source: Source, index: int) -> bytes:
    """A cover picture's file, from the packet that holds it."""
    with containers.open_input(source) as opened:
        for packet in containers.packets(opened, opened.streams[index]):
            if packet.size:
                return bytes(packet)
    return b""


def _left_out(stream: Stream) -> str:
    fits = holding.holders([stream])
    return f"{holding.describe(stream)}, which {' or '.join(fits) if fits else 'no container here'} can hold"
