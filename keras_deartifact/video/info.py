"""What a video file holds, from its headers and its first frame."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.format import VideoFormat
from av.video.stream import VideoStream

from keras_deartifact.video import containers
from keras_deartifact.video.containers import Source

# H.273 code points and ffmpeg's names for them.
_MATRICES = {0: "gbr", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "ycgco", 9: "bt2020nc"}
_MATRICES |= {10: "bt2020c", 14: "ictcp"}
_RANGES = {1: "limited", 2: "full"}
_PRIMARIES = {1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020"}
_PRIMARIES |= {10: "smpte428", 11: "smpte431", 12: "smpte432", 22: "ebu3213"}
_TRANSFERS = {1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear", 11: "xvycc"}
_TRANSFERS |= {13: "srgb", 14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084", 17: "smpte428", 18: "arib-std-b67"}


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
    with containers.open_input(source) as container:
        stream = containers.main_video(container, source)
        context = stream.codec_context
        first = containers.first_frame(container, stream)
        colour = containers.colour_codes(stream, first)
        count = sum(1 for video in container.streams.video if not containers.is_picture(video))
        others = tuple(
            StreamInfo(other.index, other.type, containers.codec_name(other), other.language)
            for other in container.streams
            if other.index != stream.index
        )
        pix_fmt = first.format.name if first else context.pix_fmt
        depth = VideoFormat(pix_fmt).components[0].bits if pix_fmt else None
        time_base = containers.time_base(stream)
        return VideoInfo(
            container=container.format.name,
            codec=context.codec.canonical_name,
            profile=context.profile,
            width=context.width,
            height=context.height,
            pix_fmt=pix_fmt,
            bit_depth=depth,
            frame_rate=containers.frame_rate(stream),
            time_base=time_base,
            start=None if stream.start_time is None else stream.start_time * time_base,
            duration=_duration(container, stream),
            frame_count=stream.frames or None,
            bit_rate_bps=stream.bit_rate or container.bit_rate or None,
            matrix=_MATRICES.get(colour["colorspace"]),
            color_range=_RANGES.get(colour["color_range"]),
            primaries=_PRIMARIES.get(colour["color_primaries"]),
            transfer=_TRANSFERS.get(colour["color_trc"]),
            sample_aspect_ratio=Fraction(stream.sample_aspect_ratio) if stream.sample_aspect_ratio else None,
            rotation_degrees=first.rotation if first else 0,
            interlaced=bool(first and first.interlaced_frame),
            video_streams=count,
            others=others,
            metadata={name: containers.text(value) for name, value in container.metadata.items()},
        )


def _duration(container: InputContainer, stream: VideoStream) -> Fraction | None:
    if stream.duration:
        return stream.duration * containers.time_base(stream)
    tagged = containers.tagged_duration(stream)
    if tagged:
        return tagged
    return Fraction(container.duration, av.time_base) if container.duration else None
