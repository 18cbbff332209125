"""Video files in and out: what a file holds, its frames in order, and a new file with everything but the pictures kept.

`probe` describes a file. `read_frames` streams decoded frames with the quantiser the encoder chose for every
macroblock, which the bitstream holds and PyAV exports. `VideoWriter` encodes frames at the source's exact presentation
times, with its colour description, pixel shape, rotation, chapters and metadata, and copies the packets of all other
streams unchanged.

Time is integer ticks of a `Fraction` time base, never a float. Nothing holds more than a few frames or packets.
"""

# PyAV's Packet is generic in its stubs alone, so annotations must not be evaluated.
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.codec.codec import Codec
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.sidedata.encparams import VideoEncParams, VideoEncParamsType
from av.stream import AttachmentStream, Discard, Disposition, Stream
from av.video.format import VideoFormat
from av.video.frame import PictureType
from av.video.stream import VideoStream

Source = str | os.PathLike[str] | BinaryIO

# H.273 code points and ffmpeg's names for them.
_MATRICES = {0: "gbr", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "ycgco", 9: "bt2020nc"}
_MATRICES |= {10: "bt2020c", 14: "ictcp"}
_RANGES = {1: "limited", 2: "full"}
_PRIMARIES = {1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020"}
_PRIMARIES |= {10: "smpte428", 11: "smpte431", 12: "smpte432", 22: "ebu3213"}
_TRANSFERS = {1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear", 11: "xvycc"}
_TRANSFERS |= {13: "srgb", 14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084", 17: "smpte428", 18: "arib-std-b67"}

# Decoders that export quantisers; frame threads corrupt some of their maps, so these are limited to slice threads.
_EXPORTS_QUANTISERS = frozenset(
    "h264 mpeg1video mpeg2video mpeg4 h263 flv1 msmpeg4v1 msmpeg4v2 msmpeg4v3 wmv1 wmv2 rv10 rv20".split()
)

# Formats whose header states a duration that was not merely estimated from what is left of the file.
_STATES_STREAM_DURATION = "mov"
_STATES_DURATION = {"matroska,webm", "flv", "asf"}

_FORMAT_NAMES = {"mkv": "matroska", "mka": "matroska", "ts": "mpegts", "m2ts": "mpegts", "m4v": "mp4"}
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


class BrokenVideoError(ValueError):
    """A video ends early or holds data that does not decode; raised after every frame that does was delivered."""


@dataclass(frozen=True)
class StreamInfo:
    """A stream beside the main video: its index in the file, kind, codec and language (None where unknown)."""

    index: int
    kind: str
    codec: str | None
    language: str | None


@dataclass(frozen=True)
class VideoInfo:
    """What `probe` finds; None wherever the file does not say.

    Attributes:
        container: ffmpeg's name of the format, for example `"mov,mp4,m4a,3gp,3g2,mj2"`.
        codec: decoder of the main video stream, for example `"h264"`.
        profile: codec profile, for example `"High"`.
        width: pixels, before rotation and pixel aspect.
        height: lines.
        pix_fmt: ffmpeg's pixel format, for example `"yuv420p"`.
        bit_depth: bits a sample.
        frame_rate: average frames a second.
        time_base: seconds a tick of the stream's timestamps.
        start: presentation time of the first frame, seconds.
        duration: seconds.
        frame_count: as stated by the container, not counted.
        bit_rate_bps: video bits a second, of the whole file where the container has no number for the stream.
        matrix: YCbCr matrix, for example `"bt709"`.
        color_range: `"limited"` or `"full"`.
        primaries: for example `"bt709"`.
        transfer: for example `"bt709"`.
        sample_aspect_ratio: pixel width / height.
        rotation_degrees: counterclockwise turn for display, in `[-180, 180]`.
        interlaced: whether the first frame is flagged interlaced.
        video_streams: number of video streams, cover pictures not counted.
        others: every other stream.
        metadata: the container's tags.
    """

    container: str
    codec: str
    profile: str | None
    width: int
    height: int
    pix_fmt: str | None
    bit_depth: int | None
    frame_rate: Fraction | None
    time_base: Fraction
    start: Fraction | None
    duration: Fraction | None
    frame_count: int | None
    bit_rate_bps: int | None
    matrix: str | None
    color_range: str | None
    primaries: str | None
    transfer: str | None
    sample_aspect_ratio: Fraction | None
    rotation_degrees: int
    interlaced: bool
    video_streams: int
    others: tuple[StreamInfo, ...]
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Frame:
    """A decoded frame and the quantisers it was coded with.

    Attributes:
        image: decoded planes, with `pts` and `time_base` always set.
        qp: float32 `(ceil(height / 16), ceil(width / 16))` as `macroblock_qp` gives it, or None.
    """

    image: av.VideoFrame
    qp: npt.NDArray[np.float32] | None


def probe(source: Source) -> VideoInfo:
    """Describes a video file from its headers and its first frame.

    Args:
        source: a path, or a seekable binary file object.

    Returns:
        A `VideoInfo`.

    Raises:
        ValueError: the file is empty, not a video, or holds no video stream.
        FileNotFoundError: there is no such file.
    """
    with _open(source) as container:
        stream = _main_video(container, source)
        context = stream.codec_context
        first = _first_frame(container, stream)
        colour = _colour(stream, first)
        count = sum(1 for video in container.streams.video if not _is_picture(video))
        others = tuple(
            StreamInfo(other.index, other.type, _codec_name(other), other.language)
            for other in container.streams
            if other.index != stream.index
        )
        depth = VideoFormat(context.pix_fmt).components[0].bits if context.pix_fmt else None
        time_base = _time_base(stream)
        return VideoInfo(
            container=container.format.name,
            codec=context.codec.canonical_name,
            profile=context.profile,
            width=context.width,
            height=context.height,
            pix_fmt=context.pix_fmt,
            bit_depth=depth,
            frame_rate=stream.average_rate or stream.guessed_rate,
            time_base=time_base,
            start=None if stream.start_time is None else stream.start_time * time_base,
            duration=_duration(container, stream),
            frame_count=stream.frames or None,
            bit_rate_bps=stream.bit_rate or container.bit_rate or None,
            matrix=_MATRICES.get(colour["colorspace"]),
            color_range=_RANGES.get(colour["color_range"]),
            primaries=_PRIMARIES.get(colour["color_primaries"]),
            transfer=_TRANSFERS.get(colour["color_trc"]),
            sample_aspect_ratio=stream.sample_aspect_ratio or None,
            rotation_degrees=first.rotation if first else 0,
            interlaced=bool(first and first.interlaced_frame),
            video_streams=count,
            others=others,
            metadata=dict(container.metadata),
        )


def macroblock_qp(frame: av.VideoFrame) -> npt.NDArray[np.float32] | None:
    """The quantiser of every 16x16 macroblock, as the bitstream has it.

    The decoder exports it when its options hold `export_side_data=venc_params`, as `read_frames` sets; frame threads
    corrupt some maps, so decode with slice threads or none.

    Args:
        frame: a decoded frame.

    Returns:
        Float32 `(ceil(height / 16), ceil(width / 16))`, or None where there is no map (other codecs, and the last frame
        of MPEG-1 and MPEG-2). The unit is the codec's own:

        - H.264: QP in `[0, 51]`, the luma step is `2^((QP - 4) / 6)` of an 8-bit level; the offset of 6 for every bit
          above 8 that ffmpeg adds at higher depths is taken off, so that a step means the same share of full scale;
        - MPEG-1, MPEG-2, MPEG-4 and H.263 relatives: twice ffmpeg's `qscale`, in `[2, 62]`
          (up to 112 with MPEG-2's non-linear scale). For a weight of 16 this is an AC coefficient's step itself.
    """
    side_data = cast("Mapping[str, Any]", frame.side_data).get("VIDEO_ENC_PARAMS")
    if side_data is None:
        return None
    parameters = cast(VideoEncParams, side_data)
    kind = parameters.codec_type
    if kind not in (VideoEncParamsType.H264, VideoEncParamsType.MPEG2) or parameters.nb_blocks == 0:
        return None
    # Each block is five int32: x, y, width, height, quantiser minus the frame's. PyAV's own qp_map loops over objects.
    words = np.frombuffer(memoryview(side_data), np.int32, offset=parameters.blocks_offset)
    blocks = words.reshape(parameters.nb_blocks, parameters.block_size // 4)
    quantiser = np.full((-(-frame.height // 16), -(-frame.width // 16)), np.nan, np.float32)
    rows, columns = blocks[:, 1] // 16, blocks[:, 0] // 16
    inside = (rows >= 0) & (rows < quantiser.shape[0]) & (columns >= 0) & (columns < quantiser.shape[1])
    quantiser[rows[inside], columns[inside]] = blocks[inside, 4] + parameters.qp
    if np.isnan(quantiser).any():
        return None
    if kind == VideoEncParamsType.H264:
        quantiser -= 6 * (frame.format.components[0].bits - 8)
    return quantiser


def read_frames(source: Source, quantisers: bool = True) -> Iterator[Frame]:
    """Decodes the main video stream, one frame at a time, in presentation order.

    The main stream is ffmpeg's best one that is not a cover picture. A frame without pts, or with one that is not after
    its predecessor's, gets its predecessor's plus one frame at the stream's rate (summed exactly, rounded to the time
    base); a first one gets the stream's start.

    What counts as broken: a packet the demuxer marks corrupt, one that does not decode after the first frame did (a
    recording may start between key frames), a frame the decoder marks corrupt after the first clean one, a read error,
    or an end more than about two frames before the duration in the header (half a second in AVI, one second where only
    the whole file's duration is stated). Decoding goes on past damage. Transport and program streams state no duration,
    so a cut there shows only if it falls inside a packet, and not always then.

    Args:
        source: a path, or a seekable binary file object.
        quantisers: also export `Frame.qp`; costs frame-parallel decoding for the codecs that have it.

    Yields:
        A `Frame`.

    Raises:
        ValueError: the file is empty, not a video, or holds no video stream; raised by the call itself.
        FileNotFoundError: there is no such file.
        BrokenVideoError: raised after the last frame that decodes.
    """
    container = _open(source)
    try:
        stream = _main_video(container, source)
    except ValueError:
        container.close()
        raise
    return _decode(container, stream, quantisers, _label(source))


def _decode(container: InputContainer, stream: VideoStream, quantisers: bool, label: str) -> Iterator[Frame]:
    context = stream.codec_context
    maps = quantisers and context.codec.canonical_name in _EXPORTS_QUANTISERS
    if maps:
        context.options = {"export_side_data": "venc_params"}
    stream.thread_type = av.codec.context.ThreadType.SLICE if maps else av.codec.context.ThreadType.AUTO
    time_base = _time_base(stream)
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    step = 1 / (rate * time_base)
    expected = Fraction(stream.start_time or 0)
    last: int | None = None
    damage: list[str] = []
    ends = _Ends(stream.index)
    clean = False
    with container:
        for images, fault in _decoded(container, stream, ends):
            if fault and (clean or fault != _UNDECODABLE):
                damage.append(fault)
            for image in images:
                if image.is_corrupt and clean:
                    damage.append("a frame decodes with errors")
                clean = clean or not image.is_corrupt
                pts = image.pts
                if pts is None or (last is not None and pts <= last):
                    floor = 0 if last is None else last + 1
                    image.pts = pts = max(round(expected), floor) if last is not None else round(expected)
                    expected += step
                else:
                    expected = pts + step
                image.time_base = time_base
                last = pts
                yield Frame(image, macroblock_qp(image) if maps else None)
        if last is None:
            raise BrokenVideoError(f"No frame of the video decodes; check that the file is complete. Received: {label}")
        missing = _missing_seconds(container, stream, ends, rate)
        end = float(ends.video)
    if missing is not None:
        raise BrokenVideoError(
            f"The video breaks off after {end:.2f} s, {missing:.2f} s before the end that its header states; "
            f"frames up to there were read. Received: {label}"
        )
    if damage:
        raise BrokenVideoError(
            f"The video is damaged in {len(damage)} places (first: {damage[0]}); what decodes was read. "
            f"Received: {label}"
        )


_UNDECODABLE = "a packet does not decode"


@dataclass
class _Ends:
    """The latest end of any packet seen, in seconds: of the main video and of all streams."""

    index: int
    video: Fraction = Fraction(0)
    any: Fraction = Fraction(0)

    def see(self, packet: Packet[Any]) -> None:
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None:
            return
        end = (stamp + (packet.duration or 0)) * packet.time_base
        self.any = max(self.any, end)
        if packet.stream_index == self.index:
            self.video = max(self.video, end)


def _decoded(
    container: InputContainer, stream: VideoStream, ends: _Ends
) -> Iterator[tuple[list[av.VideoFrame], str | None]]:
    """Yields what every video packet decodes to, and what is wrong with it."""
    # All streams, for the latest end; the packets of the others are read from the file in any case.
    packets = container.demux()
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except av.FFmpegError as error:
            yield [], f"read error: {error.strerror}"
            break
        # An empty packet marks a dropped frame (AVI) or, from PyAV, the end; decoding one would end the stream.
        if packet.size == 0:
            continue
        ends.see(packet)
        if packet.stream_index != stream.index:
            continue
        fault = "a packet is corrupt" if packet.is_corrupt else None
        try:
            yield stream.decode(cast("Packet[VideoStream]", packet)), fault
        except av.FFmpegError:
            yield [], fault or _UNDECODABLE
    try:
        yield stream.decode(None), None
    except av.FFmpegError:
        yield [], _UNDECODABLE


def _missing_seconds(container: InputContainer, stream: VideoStream, ends: _Ends, rate: Fraction) -> float | None:
    """Seconds between the last packet and the end that the header states, where they are too many to be rounding."""
    name = container.format.name
    tolerance = Fraction(5, 2) / rate
    start = (stream.start_time or 0) * _time_base(stream)
    stated: Fraction | None = None
    reached = ends.video
    if name.startswith(_STATES_STREAM_DURATION) and stream.duration:
        stated = start + stream.duration * _time_base(stream)
    elif name == "avi" and stream.frames:
        # Dropped frames at the very end have no packets.
        stated, tolerance = start + stream.frames / rate, max(tolerance, Fraction(1, 2))
    elif "matroska" in name and _tagged_duration(stream):
        stated = _tagged_duration(stream)
    elif name in _STATES_DURATION and container.duration:
        stated = Fraction(container.duration + (container.start_time or 0), av.time_base)
        reached, tolerance = ends.any, max(tolerance, Fraction(1))
    if stated is None or stated - reached <= tolerance:
        return None
    return float(stated - reached)


def _tagged_duration(stream: Stream) -> Fraction | None:
    """A Matroska stream's own end, from the `DURATION` tag `HH:MM:SS.nnnnnnnnn` that its muxers write."""
    tag = stream.metadata.get("DURATION")
    if tag is None:
        return None
    try:
        hours, minutes, seconds = tag.strip("\0 ").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except ValueError:
        return None


def _duration(container: InputContainer, stream: VideoStream) -> Fraction | None:
    if stream.duration:
        return stream.duration * _time_base(stream)
    tagged = _tagged_duration(stream)
    if tagged:
        return tagged
    return Fraction(container.duration, av.time_base) if container.duration else None


class VideoWriter:
    """Writes restored frames into a copy of the source file.

    Use as a context manager; `write` every frame, then leave the block. Leaving it with an exception only closes the
    files, so write to a temporary name and rename it afterwards.

        with VideoWriter("new.mkv", "old.mp4") as writer:
            for frame in read_frames("old.mp4"):
                writer.write(frame.image)

    Kept from the source: presentation times, colour description, pixel shape, rotation, chapters, the tags of the file
    and of every stream, and the packets of all other streams, bit for bit, interleaved by time. The pixel format is the
    source's if the encoder has it, else the nearest that loses no depth and no chroma. MP4 and MOV hold any time base
    exactly; Matroska rounds to its milliseconds and MPEG-TS to 1/90000 s. Neither holds times below zero, such as the
    start of AAC in MP4: all streams then move later together, and stay in step. AAC changes its packet headers between
    MPEG-TS and the others, as the formats demand.

    Attributes:
        skipped: descriptions of data streams and attachments that the target cannot hold.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        source: str | os.PathLike[str],
        *,
        codec: str = "libx264",
        crf: float = 16,
        preset: str = "medium",
        options: Mapping[str, str] | None = None,
        threads: int | None = None,
        container_format: str | None = None,
    ) -> None:
        """Opens both files and checks that the target can hold every stream, before anything is written.

        Args:
            path: the file to write; replaced if it exists.
            source: the file the frames come from.
            codec: an ffmpeg encoder.
            crf: constant rate factor, down is better; only for encoders that have one.
            preset: speed against size; only for encoders that have one.
            options: further encoder options.
            threads: encoder threads; the encoder decides if None.
            container_format: ffmpeg's name or the extension of the format, where `path` has no telling extension.

        Raises:
            ValueError: an unknown format or encoder; an audio or subtitle stream or a pixel format that the target
                cannot hold; `path` is `source`.
            FileNotFoundError: there is no such source, or no such folder.
        """
        self.skipped: list[str] = []
        if Path(path).exists() and Path(path).samefile(source):
            raise ValueError(f"path must not be the source itself. Received: path={os.fspath(path)!r}")
        self._container_format = _FORMAT_NAMES.get(container_format or "", container_format)
        self._stack = contextlib.ExitStack()
        with self._stack:
            self._input = self._stack.enter_context(_open(source))
            self._main = _main_video(self._input, source)
            with _open(source) as look:
                stream = _main_video(look, source)
                first = _first_frame(look, stream)
                if first is None:
                    raise ValueError(f"source must hold a frame that decodes. Received: source={_label(source)}")
                self._output = self._open_output(path)
                self._video = self._add_video(stream, first, codec, threads)
            supported = {option.name for option in self._video.codec_context.supported_options.private}
            knobs = {"crf": str(crf), "preset": preset}
            if codec == "libx265":
                knobs["x265-params"] = "log-level=error"
            chosen = {name: value for name, value in knobs.items() if name in supported}
            self._video.codec_context.options = chosen | dict(options or {})
            self._copies = self._add_copies(source)
            self._copy_tags()
            self._packets = self._other_packets()
            self._pending: Packet[Stream] | None = None
            self._last: int | None = None
            self._size = (first.width, first.height)
            self._formats = {first.format.name, self._video.codec_context.pix_fmt}
            try:
                self._output.start_encoding()
            except av.FFmpegError as error:
                raise ValueError(
                    f"{codec} in {self._output.format.name} must be able to hold this video; write .mkv instead, or "
                    f"choose other options. Received: {_label(source)}, {error}"
                ) from error
            self._stack = self._stack.pop_all()

    def __enter__(self) -> Self:
        """Returns the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Finishes the file, or only closes it if the block failed."""
        with self._stack:
            if kind is None:
                if self._last is None:
                    raise ValueError("At least one frame must be written. Received: none")
                self._mux(self._video.encode(None))
                self._copy_until(None)
                self._output.close()

    def write(self, frame: av.VideoFrame) -> None:
        """Encodes one frame, at its own presentation time.

        Args:
            frame: of the source's size and pixel format, with `pts` after the last one's, in the source's time base or
                one that converts to it exactly.

        Raises:
            ValueError: the size, the format or the time differ from that.
        """
        if (frame.width, frame.height) != self._size or frame.format.name not in self._formats:
            raise ValueError(
                f"frame must be {self._size[0]}x{self._size[1]} in {sorted(map(str, self._formats))}. "
                f"Received: {frame.width}x{frame.height} in {frame.format.name}"
            )
        if frame.pts is None:
            raise ValueError("frame must have a pts. Received: pts=None")
        ticks = frame.pts * (frame.time_base or self._time_base) / self._time_base
        if ticks.denominator != 1 or (self._last is not None and ticks <= self._last):
            raise ValueError(
                f"pts must be whole ticks of {self._time_base} s after the last frame's {self._last}. "
                f"Received: pts={frame.pts}, time_base={frame.time_base}"
            )
        self._last = int(ticks)
        # A decoded frame remembers its picture type, and encoders take it as an order.
        kind, frame.pict_type = frame.pict_type, PictureType.NONE
        try:
            packets = self._video.encode(frame)
        finally:
            frame.pict_type = kind
        self._mux(packets)

    def _open_output(self, path: str | os.PathLike[str]) -> OutputContainer:
        name = os.fspath(path)
        try:
            output = av.open(name, "w", format=self._container_format)
        except ValueError as error:
            raise ValueError(
                f"path must end in a video extension such as .mkv or .mp4, or container_format must name one. "
                f"Received: path={name!r}, container_format={self._container_format!r}"
            ) from error
        self._stack.callback(_close_quietly, output)
        if output.format.name == "avi":
            raise ValueError(f"AVI holds no presentation times; write .mkv or .mp4 instead. Received: path={name!r}")
        if output.format.name == "mpegts":
            # Else the muxer moves all times.
            output.container_options["mpegts_copyts"] = "1"
        return output

    def _add_video(self, stream: VideoStream, first: av.VideoFrame, codec: str, threads: int | None) -> VideoStream:
        try:
            encoder = Codec(codec, "w")
            video = self._output.add_stream(codec, rate=stream.average_rate or stream.guessed_rate or Fraction(25))
        except ValueError as error:
            raise ValueError(f"codec must be a video encoder that fits the container. Received: {error}") from error
        if not isinstance(video, VideoStream):
            raise ValueError(f"codec must be a video encoder. Received: codec={codec!r}")
        context = video.codec_context
        context.width, context.height = first.width, first.height
        context.pix_fmt = _encodable(first.format.name, encoder)
        self._time_base = _time_base(stream)
        if self._output.format.name in ("mp4", "mov"):
            # The edit list, which holds the start, counts in these units; the muxer's own are milliseconds.
            scale = self._time_base.denominator
            self._output.container_options["movie_timescale"] = str(scale * -(-1000 // scale))
        context.time_base = video.time_base = self._time_base
        if stream.sample_aspect_ratio:
            context.sample_aspect_ratio = stream.sample_aspect_ratio
        for name, value in _colour(stream, first).items():
            setattr(context, name, value)
        if threads is not None:
            context.thread_count = threads
        turn = cast("Mapping[str, Any]", first.side_data).get("DISPLAYMATRIX")
        if turn is not None:
            video.set_display_matrix(np.frombuffer(memoryview(turn), np.int32).tolist())
        return video

    def _add_copies(self, source: Source) -> dict[int, Stream]:
        """Adds a stream for every other one of the source; returns them by source index."""
        copies: dict[int, Stream] = {}
        for stream in self._input.streams:
            if stream.index == self._main.index:
                continue
            if isinstance(stream, VideoStream) and _is_picture(stream) and self._output.format.name == "matroska":
                # Matroska keeps cover pictures as attachments, and shows them by these names.
                kind, extension = {"png": ("image/png", "png")}.get(stream.codec_context.name, ("image/jpeg", "jpg"))
                data = _picture(source, stream.index)
                if data:
                    self._output.add_attachment(f"cover.{extension}", kind, data)
                continue
            if not _can_hold(self._output, stream):
                if stream.type in ("audio", "subtitle", "video"):
                    self._refuse(stream)
                self.skipped.append(f"{stream.type} stream {stream.index} ({_codec_name(stream)})")
                continue
            if isinstance(stream, AttachmentStream):
                name, kind = stream.name or "attachment", stream.mimetype or "application/octet-stream"
                self._output.add_attachment(name, kind, stream.data).metadata.update(_tags(stream))
                continue
            copy = self._output.add_stream_from_template(stream, opaque=True)
            copy.disposition = stream.disposition
            layout = _UNNAMED_LAYOUTS.get(stream.layout.name) if isinstance(stream, AudioStream) else None
            if isinstance(copy, AudioStream) and layout is not None:
                copy.codec_context.layout = layout
            copies[stream.index] = copy
        return copies

    def _refuse(self, stream: Stream) -> None:
        fits = [
            name for name in ("matroska", "mp4", "mov", "mpegts") if _can_hold(av.open(os.devnull, "w", name), stream)
        ]
        extensions = {"matroska": ".mkv", "mp4": ".mp4", "mov": ".mov", "mpegts": ".ts"}
        advice = f"write {extensions[fits[0]]} instead" if fits else "no container here can"
        raise ValueError(
            f"{self._output.format.name} cannot hold {stream.type} stream {stream.index} ({_codec_name(stream)}); "
            f"{advice}. Received: path={self._output.name!r}"
        )

    def _copy_tags(self) -> None:
        self._output.metadata.update(_tags(self._input))
        self._video.metadata.update(_tags(self._main))
        self._video.disposition = self._main.disposition
        for index, copy in self._copies.items():
            copy.metadata.update(_tags(self._input.streams[index]))
        chapters = self._input.chapters()
        if chapters:
            self._output.set_chapters(chapters)

    def _other_packets(self) -> Iterator[Packet[Stream]]:
        wanted = [self._input.streams[index] for index in self._copies]
        if not wanted:
            return
        for stream in self._input.streams:
            if stream.index not in self._copies:
                stream.discard = Discard.all
        packets = self._input.demux(wanted)
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

    def _copy_until(self, time: Fraction | None) -> None:
        """Muxes the other streams' packets up to a decoding time in seconds, or all that are left."""
        while True:
            if self._pending is None:
                self._pending = next(self._packets, None)
            packet = self._pending
            if packet is None or packet.dts is None or (time is not None and packet.dts * packet.time_base > time):
                return
            packet.stream = self._copies[packet.stream_index]
            self._output.mux_one(packet)
            self._pending = None

    def _mux(self, packets: list[Packet[Any]]) -> None:
        for packet in packets:
            if packet.dts is not None:
                self._copy_until(packet.dts * packet.time_base)
            self._output.mux_one(packet)


def _close_quietly(container: OutputContainer) -> None:
    # After a failure the trailer may not be writable; the error that led here is the one to report.
    with contextlib.suppress(av.FFmpegError):
        container.close()


def _open(source: Source) -> InputContainer:
    file = os.fspath(source) if isinstance(source, str | os.PathLike) else source
    try:
        return av.open(file, "r")
    except (
        av.error.InvalidDataError,
        av.error.EOFError,
        av.error.ArgumentError,
        av.error.DemuxerNotFoundError,
    ) as error:
        raise ValueError(
            f"source must be a complete video file; it is empty, of another kind, or cut off before its index "
            f"({error.strerror}). Received: {_label(source)}"
        ) from error


def _main_video(container: InputContainer, source: Source) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or _is_picture(stream):
        videos = [video for video in container.streams.video if not _is_picture(video)]
        if not videos:
            kinds = sorted({str(other.type) for other in container.streams}) or ["no"]
            raise ValueError(
                f"source must hold a video stream; it holds {', '.join(kinds)} streams. Received: {_label(source)}"
            )
        stream = videos[0]
    if stream.codec_context is None:
        raise ValueError(f"source must hold video that can be decoded here. Received: {_label(source)}")
    return stream


def _is_picture(stream: VideoStream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _picture(source: Source, index: int) -> bytes:
    """A cover picture's file, from the packet that holds it."""
    with _open(source) as container:
        for packet in container.demux(container.streams[index]):
            if packet.size:
                return bytes(packet)
    return b""


def _first_frame(container: InputContainer, stream: VideoStream) -> av.VideoFrame | None:
    for packet in container.demux(stream):
        try:
            for frame in packet.decode():
                return frame
        except av.FFmpegError:
            continue
    return None


def _colour(stream: VideoStream, first: av.VideoFrame | None) -> dict[str, int]:
    """Matrix, range, primaries and transfer as H.273 codes: the stream's, or its first frame's where unspecified."""
    unspecified = {"colorspace": 2, "color_range": 0, "color_primaries": 2, "color_trc": 2}
    colour = {name: int(getattr(stream.codec_context, name)) for name in unspecified}
    if first is not None:
        for name, unknown in unspecified.items():
            if colour[name] == unknown:
                colour[name] = int(getattr(first, name))
    return colour


def _time_base(stream: Stream) -> Fraction:
    return stream.time_base or Fraction(1, 90000)


def _codec_name(stream: Stream) -> str | None:
    if stream.codec_context is not None:
        return stream.codec_context.codec.canonical_name
    return stream.name


def _label(source: Source) -> str:
    return repr(os.fspath(source)) if isinstance(source, str | os.PathLike) else repr(source)


def _tags(holder: InputContainer | Stream) -> dict[str, str]:
    return {
        name: value
        for name, value in holder.metadata.items()
        if name.lower().split("-")[0] not in _STALE_TAGS and not name.startswith("_STATISTICS")
    }


def _can_hold(output: OutputContainer, stream: Stream) -> bool:
    name = output.format.name
    if stream.codec_context is None:
        # Fonts and the like; data tracks (timecode, chapters, telemetry) belong to the format that wrote them.
        return isinstance(stream, AttachmentStream) and name == "matroska"
    codec = stream.codec_context.codec
    if name == "mpegts":
        # This muxer takes any codec, and files what it does not know as private data that no player finds.
        return stream.type == "video" or bool({codec.name, codec.canonical_name} & _MPEGTS_CODECS)
    supported = output.supported_codecs
    return codec.name in supported or codec.canonical_name in supported


def _encodable(pix_fmt: str, encoder: Codec) -> str:
    """The encoder's nearest pixel format that loses neither depth nor chroma samples nor range."""
    offered = [offer.name for offer in encoder.video_formats or []]
    if pix_fmt in offered or not offered:
        return pix_fmt
    wanted = VideoFormat(pix_fmt, 16, 16)
    depth = wanted.components[0].bits
    grey, alpha = len(wanted.components) == 1, any(component.is_alpha for component in wanted.components)
    fits = []
    for name in offered:
        offer = VideoFormat(name, 16, 16)
        kept = (
            offer.is_rgb == wanted.is_rgb
            and offer.components[0].bits >= depth
            and name.startswith("yuvj") == pix_fmt.startswith("yuvj")
            and (not alpha or any(component.is_alpha for component in offer.components))
            and not offer.is_big_endian
            and not offer.has_palette
        )
        if kept and not wanted.is_rgb and not grey:
            kept = (
                len(offer.components) >= 3
                and offer.chroma_width() >= wanted.chroma_width()
                and offer.chroma_height() >= wanted.chroma_height()
            )
        if kept:
            fits.append((offer.bits_per_pixel, name))
    if not fits:
        raise ValueError(
            f"{encoder.name} must take {pix_fmt} or a finer pixel format; it has {', '.join(offered)}. Choose another "
            f"codec, such as libx265 for 12 bits or ffv1 for RGB. Received: pix_fmt={pix_fmt!r}, codec={encoder.name!r}"
        )
    return min(fits)[1]
