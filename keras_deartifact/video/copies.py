"""Copies of the streams beside the main video: which the new file can hold, and their packets, unchanged."""

# PyAV's Packet is generic in its stubs alone, so annotations must not be evaluated.
from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from fractions import Fraction

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream, Discard, Disposition, Stream
from av.video.stream import VideoStream

from keras_deartifact.video import containers
from keras_deartifact.video.containers import Source

_MPEGTS_CODECS = frozenset(
    "mp1 mp2 mp3 aac aac_latm ac3 eac3 dts opus truehd s302m dvb_subtitle dvb_teletext hdmv_pgs_subtitle".split()
)
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
        skipped: descriptions of data streams and attachments that the target cannot hold.
    """

    def __init__(self, source: Source, opened: InputContainer, main: VideoStream, target: OutputContainer) -> None:
        """Adds the streams with their tags to the target, which must hold the video already.

        Args:
            source: what `opened` was opened from.
            opened: the container to read the packets from, from its beginning.
            main: its stream that is not copied.
            target: the container to write.

        Raises:
            ValueError: the target cannot hold an audio, subtitle or further video stream.
        """
        self.skipped: list[str] = []
        self._opened = opened
        self._target = target
        self._copies: dict[int, Stream] = {}
        for stream in opened.streams:
            if stream.index != main.index:
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
            packet.stream = self._copies[packet.stream_index]
            self._target.mux_one(packet)
            self._pending = None

    def _add(self, stream: Stream, source: Source) -> None:
        if isinstance(stream, VideoStream) and containers.is_picture(stream) and self._target.format.name == "matroska":
            # Matroska keeps cover pictures as attachments, and shows them by these names.
            kind, extension = {"png": ("image/png", "png")}.get(stream.codec_context.name, ("image/jpeg", "jpg"))
            data = _picture(source, stream.index)
            if data:
                self._target.add_attachment(f"cover.{extension}", kind, data)
        elif not _can_hold(self._target, stream):
            if stream.type in ("audio", "subtitle", "video"):
                self._refuse(stream)
            self.skipped.append(f"{stream.type} stream {stream.index} ({containers.codec_name(stream)})")
        elif isinstance(stream, AttachmentStream):
            name, kind = stream.name or "attachment", stream.mimetype or "application/octet-stream"
            self._target.add_attachment(name, kind, stream.data).metadata.update(tags(stream))
        else:
            copy = self._target.add_stream_from_template(stream, opaque=True)
            copy.disposition = stream.disposition
            copy.metadata.update(tags(stream))
            layout = _UNNAMED_LAYOUTS.get(stream.layout.name) if isinstance(stream, AudioStream) else None
            if isinstance(copy, AudioStream) and layout is not None:
                copy.codec_context.layout = layout
            self._copies[stream.index] = copy

    def _refuse(self, stream: Stream) -> None:
        extensions = {"matroska": ".mkv", "mp4": ".mp4", "mov": ".mov", "mpegts": ".ts"}
        fits = [name for name in extensions if _can_hold(av.open(os.devnull, "w", name), stream)]
        convert = f"'ffmpeg -i {shlex.quote(self._opened.name)} -map 0 -c copy -c:a flac converted.mkv'"
        advice = f"write {extensions[fits[0]]} instead" if fits else f"convert it first, for example with {convert}"
        raise ValueError(
            f"{self._target.format.name} cannot hold {stream.type} stream {stream.index} "
            f"({containers.codec_name(stream)}); {advice}. Received: path={self._target.name!r}"
        )

    def _read(self) -> Iterator[Packet[Stream]]:
        wanted = [self._opened.streams[index] for index in self._copies]
        if not wanted:
            return
        for stream in self._opened.streams:
            if stream.index not in self._copies:
                stream.discard = Discard.all
        packets = self._opened.demux(wanted)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.FFmpegError):
                return
            if packet.size and packet.stream.disposition & Disposition.attached_pic:
                # Cover pictures come without times.
                packet.pts = packet.dts = 0
            # PyAV ends each stream with an empty packet; muxers want a decoding time.
            if packet.dts is not None and packet.size:
                yield packet


def tags(holder: InputContainer | Stream) -> dict[str, str]:
    """The tags of a file or a stream that are true of a copy too."""
    return {
        name: value
        for name, value in holder.metadata.items()
        if name.lower().split("-")[0] not in _STALE_TAGS and not name.startswith("_STATISTICS")
    }


def _picture(source: Source, index: int) -> bytes:
    """A cover picture's file, from the packet that holds it."""
    with containers.open_input(source) as opened:
        for packet in opened.demux(opened.streams[index]):
            if packet.size:
                return bytes(packet)
    return b""


def _can_hold(target: OutputContainer, stream: Stream) -> bool:
    name = target.format.name
    if stream.codec_context is None:
        # Fonts and the like; data tracks (timecode, chapters, telemetry) belong to the format that wrote them.
        return isinstance(stream, AttachmentStream) and name == "matroska"
    codec = stream.codec_context.codec
    if name == "mpegts":
        # This muxer takes any codec, and files what it does not know as private data that no player finds.
        return stream.type == "video" or bool({codec.name, codec.canonical_name} & _MPEGTS_CODECS)
    supported = target.supported_codecs
    return codec.name in supported or codec.canonical_name in supported
