"""What reading and writing share: opening a file, finding its pictures, and what a stream says of itself.

PyAV 18 gives fractions for rates and time bases, 19 its own `AVRational`: they become `Fraction` here.
"""

# PyAV's Packet is generic in its stubs alone, so annotations must not be evaluated.
from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO, cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import AttachmentStream, DataStream, Disposition, Stream
from av.video.stream import VideoStream

from keras_deartifact import bounds
from keras_deartifact.video import interlacing

_DECODES_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}

# What lists other files or addresses, which opening it would open: a pipe among them would never answer.
_LISTS = frozenset("concat concatf dash hls image2 imf rtp rtsp sap sdp webm_dash_manifest".split())

# Packets are as large as the file but for headers, of which some containers leave a part out.
_TIMES_THE_FILE = 4
_BYTES_AT_LEAST = 1 << 22

Source = str | os.PathLike[str] | BinaryIO


class TooLargeError(ValueError):
    """A video's frames are larger than `bounds` allows."""


def open_input(source: Source) -> InputContainer:
    """Opens a file to read, from its beginning.

    Raises:
        ValueError: it is empty, of no kind that ffmpeg knows, or cut off before its index.
        OSError: the file system does not give it.
    """
    if isinstance(source, str | os.PathLike):
        # A whole path, or a name such as `http:a.mp4` would be taken for an address.
        file: str | BinaryIO = os.path.abspath(source)
    else:
        file = source
        file.seek(0)
    try:
        # Tags that are not UTF-8 must not stop the work; `text` reads them.
        with bounds.decoding():
            return av.open(
                file,
                "r",
                container_options={"format_whitelist": _formats(), "protocol_whitelist": "file"},
                metadata_errors="surrogateescape",
                timeout=bounds.READ_SECONDS,
            )
    except MemoryError as error:
        raise ValueError(
            f"source must state sizes that a machine has the memory for; it is broken. Received: {label(source)}"
        ) from error
    except (
        av.error.InvalidDataError,
        av.error.EOFError,
        av.error.ArgumentError,
        av.error.DemuxerNotFoundError,
    ) as error:
        raise ValueError(
            f"source must be a complete video file; it is empty, of another kind, or cut off before its index "
            f"({error.strerror}). Received: {label(source)}"
        ) from error


@functools.cache
def _formats() -> str:
    """Ffmpeg's names of the formats that are read, separated by commas."""
    return ",".join(sorted(av.formats_available - _LISTS))


def main_video(container: InputContainer, source: Source) -> VideoStream:
    """The stream that the file is about: marked as the default one, else the largest picture, else the first.

    Cover pictures are none, nor is what cannot be decoded here.

    Raises:
        ValueError: there is none, or none that can be decoded.
        TooLargeError: its frames are larger than `bounds` allows.
    """
    videos = [video for video in container.streams.video if not is_picture(video)]
    if not videos:
        kinds = sorted({str(other.type) for other in container.streams}) or ["no"]
        raise ValueError(
            f"source must hold a video stream; it holds {', '.join(kinds)} streams. Received: {label(source)}"
        )
    bound = bounds.frame_pixels()
    for video in videos:
        if video.codec_context is not None:
            video.codec_context.options = {"max_pixels": str(bound)}
    decodable_here = [video for video in videos if video.codec_context is not None]
    if not decodable_here:
        raise ValueError(f"source must hold video that can be decoded here. Received: {label(source)}")
    main = max(decodable_here, key=_prominence)
    if main.codec_context.width * main.codec_context.height > bound:
        raise TooLargeError(
            f"source must be a video of at most {bound} pixels a frame (--max-pixels allows more). "
            f"Received: {label(source)}, {main.codec_context.width}x{main.codec_context.height}"
        )
    return main


def _prominence(stream: VideoStream) -> tuple[bool, int]:
    context = stream.codec_context
    return bool(stream.disposition & Disposition.default), context.width * context.height


def is_picture(stream: VideoStream) -> bool:
    """Whether a video stream is a cover picture."""
    return bool(stream.disposition & Disposition.attached_pic)


def decoder(stream: VideoStream) -> av.VideoCodecContext:
    """What decodes all of a stream: its own decoder, but for VP8 and VP9 with alpha, which only libvpx knows."""
    name = _DECODES_ALPHA.get(stream.codec_context.codec.canonical_name)
    # A header's element becomes this tag in small letters, a tag of the muxer's keeps its capitals.
    alpha = {tag.lower(): value for tag, value in stream.metadata.items()}.get("alpha_mode")
    if name is None or alpha != "1":
        return stream.codec_context
    context = cast(av.VideoCodecContext, av.CodecContext.create(name, "r"))
    context.options = stream.codec_context.options
    return context


def first_frame(container: InputContainer, stream: VideoStream) -> av.VideoFrame | None:
    """The first frame that decodes, or None."""
    return next(decodable(container, stream), None)


def decodable(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """The frames that decode, up to where the file cannot be read."""
    reading = packets(container, stream)
    context = decoder(stream)
    flagger = interlacing.Flagger.of_decoded(stream)
    ended = False
    while not ended:
        try:
            packet = next(reading)
        except (StopIteration, av.FFmpegError):
            packet, ended = None, True
        # PyAV ends each stream with an empty packet, and AVI has them for dropped frames.
        if packet is not None and not packet.size:
            continue
        with contextlib.suppress(av.FFmpegError):
            with bounds.decoding():
                frames = context.decode(packet)
            yield from map(flagger.flagged, frames)


def packets(container: InputContainer, *streams: Stream) -> Iterator[Packet[Any]]:
    """The packets of some streams, by default of all, and PyAV's empty ones at the end.

    Raises:
        av.FFmpegError: the file cannot be read any further; or what was read is many times the file, whose index names
            the same bytes again and again, which could go on for years.
    """
    left = _BYTES_AT_LEAST + _TIMES_THE_FILE * container.size
    reading = container.demux(*streams)
    while True:
        try:
            with bounds.decoding():
                packet = next(reading)
        except StopIteration:
            return
        except IndexError:
            # At the end, of PyAV, where streams began after it had looked for them.
            return
        left -= max(packet.size, 1)
        if left < 0:
            raise av.error.InvalidDataError(errno.EINVAL, "the index names the same bytes again and again")
        yield packet


def colour_codes(stream: VideoStream, first: av.VideoFrame | None) -> dict[str, int]:
    """Matrix, range, primaries and transfer as H.273 codes: the stream's, or its first frame's where unspecified."""
    unspecified = {"colorspace": 2, "color_range": 0, "color_primaries": 2, "color_trc": 2}
    colour = {name: int(getattr(stream.codec_context, name)) for name in unspecified}
    if first is not None:
        for name, unknown in unspecified.items():
            if colour[name] == unknown:
                colour[name] = int(getattr(first, name))
    return colour


def time_base(stream: Stream) -> Fraction:
    """Seconds a tick of a stream's timestamps."""
    return Fraction(stream.time_base or Fraction(1, 90000))


def frame_rate(stream: VideoStream) -> Fraction | None:
    """Frames a second: the average that the file states, or what ffmpeg guesses."""
    rate, guessed = stream.average_rate, stream.guessed_rate
    # ffmpeg takes the ticks of raw DV for frames.
    if rate and guessed and Fraction(rate) == 1 / time_base(stream) and rate > 10 * guessed:
        rate = guessed
    rate = rate or guessed
    return Fraction(rate) if rate else None


def codec_name(stream: Stream) -> str | None:
    """The name that ffmpeg has for a stream's codec; of an attachment, its file name."""
    if stream.codec_context is not None:
        return stream.codec_context.codec.canonical_name
    return stream.name if isinstance(stream, AttachmentStream | DataStream) else None


def first_time(container: InputContainer) -> Fraction:
    """The time in seconds at which the first stream of sound or pictures begins; 0 where none says."""
    streams = [*container.streams.video, *container.streams.audio]
    return min(
        (each.start_time * time_base(each) for each in streams if each.start_time is not None), default=Fraction(0)
    )


def text(value: str) -> str:
    """What a tag says: UTF-8, or Windows-1252 where old programs wrote that."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode(errors="surrogateescape").decode("cp1252", errors="replace")
    return value


def label(source: Source) -> str:
    """How an error names a source."""
    return repr(os.fspath(source)) if isinstance(source, str | os.PathLike) else repr(source)


def tagged_duration(stream: Stream) -> Fraction | None:
    """A Matroska stream's own end, from the `DURATION` tag `HH:MM:SS.nnnnnnnnn` that its muxers write."""
    tag = stream.metadata.get("DURATION")
    if tag is None:
        return None
    try:
        hours, minutes, seconds = tag.strip("\0 ").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except ValueError:
        return None
