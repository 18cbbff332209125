"""What reading and writing share: opening a file, finding its pictures, and what a stream says of itself.

PyAV 18 gives fractions for rates and time bases, 19 its own `AVRational`: they become `Fraction` here.
"""

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO, cast

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from keras_deartifact.video import interlacing

_DECODES_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}

Source = str | os.PathLike[str] | BinaryIO


def open_input(source: Source) -> InputContainer:
    """Opens a file to read.

    Raises:
        ValueError: it is empty, of no kind that ffmpeg knows, or cut off before its index.
        OSError: the file system does not give it.
    """
    file = os.fspath(source) if isinstance(source, str | os.PathLike) else source
    try:
        # Tags that are not UTF-8 must not stop the work; `text` reads them.
        return av.open(file, "r", metadata_errors="surrogateescape")
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


def main_video(container: InputContainer, source: Source) -> VideoStream:
    """The stream that the file is about: marked as the default one, else the largest picture, else the first.

    Cover pictures are none, nor is what cannot be decoded here.

    Raises:
        ValueError: there is none, or none that can be decoded.
    """
    videos = [video for video in container.streams.video if not is_picture(video)]
    if not videos:
        kinds = sorted({str(other.type) for other in container.streams}) or ["no"]
        raise ValueError(
            f"source must hold a video stream; it holds {', '.join(kinds)} streams. Received: {label(source)}"
        )
    decodable_here = [video for video in videos if video.codec_context is not None]
    if not decodable_here:
        raise ValueError(f"source must hold video that can be decoded here. Received: {label(source)}")
    return max(decodable_here, key=_prominence)


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
    return cast(av.VideoCodecContext, av.CodecContext.create(name, "r"))


def first_frame(container: InputContainer, stream: VideoStream) -> av.VideoFrame | None:
    """The first frame that decodes, or None."""
    return next(decodable(container, stream), None)


def decodable(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """The frames that decode, up to where the file cannot be read."""
    packets = container.demux(stream)
    context = decoder(stream)
    flagger = interlacing.Flagger.of_decoded(stream)
    ended = False
    while not ended:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            packet, ended = None, True
        # PyAV ends each stream with an empty packet, and AVI has them for dropped frames.
        if packet is not None and not packet.size:
            continue
        with contextlib.suppress(av.FFmpegError):
            yield from map(flagger.flagged, context.decode(packet))


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
    return stream.name


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
