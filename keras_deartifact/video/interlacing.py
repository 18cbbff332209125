"""Which streams and frames are interlaced, and in which order their fields come."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from typing import Self, cast

import av
from av.codec.context import Flags
from av.container import InputContainer
from av.video.stream import VideoStream

from keras_deartifact.video import carriers

# AVFieldOrder: 2 and 4 show the upper field first, 3 and 5 the lower one.
PROGRESSIVE, _UPPER_FIRST, _LOWER_FIRST = 1, 4, 5
_INTERLACED = frozenset((2, 3, 4, 5))
_LOWER = frozenset((3, 5))

# Their decoders tell of every frame whether it is interlaced. Of the others' only the container tells, of all frames.
_TELLS_OF_FRAMES = frozenset(
    "h264 hevc mpeg1video mpeg2video mpeg4 vc1 wmv3 cavs dvvideo prores dnxhd ffv1 cfhd".split()
)

# Codecs of broadcasts and discs, in which progressive and interlaced frames take turns.
_MIXES = frozenset("h264 mpeg2video vc1".split())

# In how many parts a file is looked at, and how many frames there.
_PLACES, _FRAMES = 9, 4

CODES_FIELDS = frozenset(("libx264", "libx264rgb", "ffv1"))
"""The encoders that take interlaced frames and tell players so."""


def field_order(stream: VideoStream) -> int:
    """The order of a stream's fields as AVFieldOrder has it; 1 is progressive, 0 unknown."""
    return int(stream.codec_context.field_order)


def is_field_coded(stream: VideoStream, frame: av.VideoFrame) -> bool:
    """Whether each decoded frame is a single field: ffmpeg gives those of HEVC so, flagged interlaced."""
    return stream.codec_context.codec.canonical_name == "hevc" and frame.interlaced_frame


def prepare(encoder: av.VideoCodecContext, order: int, first: av.VideoFrame) -> None:
    """Makes an encoder code interlaced frames as such.

    Args:
        encoder: of a codec in `CODES_FIELDS`, not open yet.
        order: as `field_order` gives it. The frames themselves tell x264 which field comes first.
        first: an interlaced frame, which tells where the stream does not.
    """
    encoder.flags = int(encoder.flags) | Flags.interlaced_dct | Flags.interlaced_me
    if order not in _INTERLACED:
        order = _UPPER_FIRST if _shows_upper_first(first) else _LOWER_FIRST
    encoder.field_order = order
    if encoder.name in ("libx264", "libx264rgb"):
        # On more, x264 gives other bits of the same interlaced frames from run to run.
        encoder.thread_count = 1


class Flagger:
    """Flags progressive frames as interlaced."""

    def __init__(self, order: int) -> None:
        """Notes the order of fields.

        Args:
            order: as `field_order` gives it; frames are left alone if it is none of interlaced ones.
        """
        self._mode = ("bff" if order in _LOWER else "tff") if order in _INTERLACED else None
        self._chain: Chain | None = None

    @classmethod
    def of_decoded(cls, stream: VideoStream) -> Self:
        """Flags the frames of a stream where only its container tells that they are interlaced."""
        tells = stream.codec_context.codec.canonical_name in _TELLS_OF_FRAMES
        return cls(PROGRESSIVE if tells else field_order(stream))

    def flagged(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame, or one of the same picture and times with the flag."""
        if self._mode is None or frame.interlaced_frame:
            return frame
        self._chain = self._chain or Chain(frame, ("setfield", self._mode))
        return next(self._chain.push(frame))


class Chain:
    """Filters of ffmpeg in a row, of frames like a first one."""

    def __init__(self, frame: av.VideoFrame, *filters: tuple[str, str]) -> None:
        """Links the filters.

        Args:
            frame: of the size, format, colour and time base of all frames.
            filters: names and arguments.
        """
        self._graph = av.filter.Graph()
        self._source = self._graph.add(
            "buffer",
            width=str(frame.width),
            height=str(frame.height),
            pix_fmt=frame.format.name,
            time_base=str(frame.time_base or Fraction(1, 1000)),
            colorspace=str(int(frame.colorspace)),
            range=str(int(frame.color_range)),
        )
        last = self._source
        for name, arguments in (*filters, ("buffersink", "")):
            following = self._graph.add(name, arguments)
            last.link_to(following)
            last = following
        self._sink = last
        self._graph.configure()

    def push(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """Takes a frame, or the end, and yields those that are ready."""
        self._source.push(frame)
        while True:
            try:
                yield cast(av.VideoFrame, self._sink.pull())
            except (av.BlockingIOError, av.EOFError):
                return


def seek_interlaced(container: InputContainer, stream: VideoStream) -> av.VideoFrame | None:
    """Looks at places throughout a file for an interlaced frame, which its beginning may lack.

    Args:
        container: open for reading; left somewhere else.
        stream: of it.

    Returns:
        The first one found, or None.
    """
    if not container.duration or stream.codec_context.codec.canonical_name not in _MIXES:
        return None
    for place in range(1, _PLACES):
        with contextlib.suppress(av.FFmpegError):
            container.seek((container.start_time or 0) + container.duration * place // _PLACES)
            for frame in islice(container.decode(stream), _FRAMES):
                if frame.interlaced_frame:
                    return frame
    return None


def _shows_upper_first(frame: av.VideoFrame) -> bool:
    """Whether the flags of an interlaced frame say so: ffmpeg separates its fields in the order in which they show."""
    first = carriers.lines(next(Chain(frame, ("separatefields", "")).push(frame)).planes[0])
    whole = carriers.lines(frame.planes[0])
    stride = min(first.shape[1], whole.shape[1])
    upper = whole[0::2, :stride]
    return bool((first[: len(upper), :stride] == upper[: len(first)]).all())
