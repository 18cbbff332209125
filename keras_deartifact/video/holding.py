"""What a container can hold: asked of ffmpeg's muxers themselves, by writing a header with the one stream in it."""

import contextlib
import os

import av
from av.stream import AttachmentStream, Stream
from av.video.stream import VideoStream

from keras_deartifact.video import containers

EXTENSIONS = {"matroska": ".mkv", "mp4": ".mp4", "mov": ".mov", "mpegts": ".ts"}
"""The containers that a refused stream is tried in, and their file extensions."""

_MPEGTS_CODECS = frozenset(
    "mp1 mp2 mp3 aac aac_latm ac3 eac3 dts opus truehd s302m dvb_subtitle dvb_teletext hdmv_pgs_subtitle klv".split()
)
# What each muxer writes of a file's tags as players look for them. The others need its more general way.
_MP4_TAGS = frozenset(
    "title artist album_artist composer album date comment genre copyright grouping lyrics description synopsis show"
    " episode_id network keywords season_number episode_sort media_type hd_video gapless_playback compilation track"
    " disc creation_time location timecode".split()
)
_MOV_TAGS = frozenset(
    "title artist album date comment genre copyright make model creation_time location timecode".split()
)
# QuickTime numbers languages. ffmpeg's table has most by ISO 639-2's bibliographic codes, some by the other ones.
_QUICKTIME_LANGUAGES = dict(
    pair.split(":")
    for pair in "sqi:alb hye:arm eus:baq mya:bur zho:chi nld:dut kat:geo deu:ger ell:gre isl:ice mkd:mac msa:may"
    " fas:per bod:tib cym:wel swe:sve cze:ces fre:fra rum:ron slo:slk".split()
)


def can_hold(name: str, stream: Stream) -> bool:
    """Whether a container takes the packets of a stream as they are, so that players find them.

    Args:
        name: ffmpeg's name of the format, for example `"matroska"`.
        stream: of a file that is open for reading.
    """
    if isinstance(stream, AttachmentStream):
        return name == "matroska"
    if isinstance(stream, VideoStream) and containers.is_picture(stream):
        return name in ("mp4", "matroska")
    if name == "mpegts":
        # This muxer takes any codec, and files what it does not know as private data that no player finds.
        return stream.type == "video" or bool(set(_codec_names(stream)) & _MPEGTS_CODECS)
    if stream.type == "data":
        # MOV takes any, and gives some a name that no reader knows.
        return False
    trial = av.open(os.devnull, "w", name)
    try:
        if stream.codec_context is not None and not set(_codec_names(stream)) & trial.supported_codecs:
            return False
        trial.add_stream_from_template(stream, opaque=True)
        trial.start_encoding()
    except (ValueError, av.FFmpegError):
        return False
    finally:
        with contextlib.suppress(av.FFmpegError):
            trial.close()
    return True


def holders(streams: list[Stream]) -> list[str]:
    """The extensions of the containers that can hold all of some streams."""
    return [extension for name, extension in EXTENSIONS.items() if all(can_hold(name, stream) for stream in streams)]


def describe(stream: Stream) -> str:
    """How a message names a stream: kind, index in its file, and codec or file name."""
    kind = "cover picture" if isinstance(stream, VideoStream) and containers.is_picture(stream) else stream.type
    name = containers.codec_name(stream)
    return f"{kind} stream {stream.index}" + (f" ({name})" if name else "")


def language(name: str, code: str) -> str:
    """The code for a language by which a container's muxer knows it."""
    return _QUICKTIME_LANGUAGES.get(code, code) if name == "mov" else code


def tag_options(name: str, tags: dict[str, str], cover: bool) -> tuple[dict[str, str], list[str]]:
    """How a muxer is made to write all of a file's tags.

    Args:
        name: ffmpeg's name of the format.
        tags: of the file.
        cover: whether there is a cover picture, which MP4 keeps only beside the tags that players look for.

    Returns:
        Options of the container, and the names of the tags that it cannot hold.
    """
    if name not in ("mp4", "mov"):
        return {}, []
    known = _MP4_TAGS if name == "mp4" else _MOV_TAGS
    others = [tag for tag in tags if tag.lower().split("-")[0] not in known]
    if not others or (cover and name == "mp4"):
        return {}, others
    return {"movflags": "use_metadata_tags"}, []


def is_timecode(stream: Stream) -> bool:
    """Whether a data stream is QuickTime's timecode track, which ffmpeg writes anew from the video's tag `timecode`."""
    return stream.type == "data" and stream.codec_context is None and "timecode" in stream.metadata


def is_chapter_track(stream: Stream, chapters: bool) -> bool:
    """Whether a data stream is QuickTime's track of chapter titles, which ffmpeg reads and writes as chapters."""
    return stream.type == "data" and chapters and containers.codec_name(stream) == "bin_data"


def _codec_names(stream: Stream) -> tuple[str, ...]:
    if stream.codec_context is None:
        name = containers.codec_name(stream)
        return (name,) if name else ()
    codec = stream.codec_context.codec
    return codec.name, codec.canonical_name
