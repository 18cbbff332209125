"""Frames in presentation order, each with the quantisers it was coded with, and whether the file is whole."""

# PyAV's Packet is generic in its stubs alone, so annotations must not be evaluated.
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.encparams import VideoEncParams, VideoEncParamsType
from av.video.stream import VideoStream

from keras_deartifact import bounds
from keras_deartifact.video import containers, interlacing, places, side_data
from keras_deartifact.video.containers import Source
from keras_deartifact.video.places import Place

# Decoders that export quantisers; frame threads corrupt some of their maps, so these are limited to slice threads.
_EXPORTS_QUANTISERS = frozenset(
    "h264 mpeg1video mpeg2video mpeg4 h263 flv1 msmpeg4v1 msmpeg4v2 msmpeg4v3 wmv1 wmv2 rv10 rv20".split()
)

# Formats whose header states a duration that was not merely estimated from what is left of the file.
_STATES_STREAM_DURATION = "mov"
_STATES_DURATION = {"matroska,webm", "flv", "asf"}

_UNDECODABLE = "a packet does not decode"

# So many frames are looked at to see whether the presentation times hold; no B-frame moves further.
_LOOK_FRAMES = 24


class BrokenVideoError(ValueError):
    """A video ends early or holds data that does not decode; raised after every frame that does was delivered."""


@dataclass(frozen=True)
class Frame:
    """A decoded frame and the quantisers it was coded with.

    Attributes:
        image: decoded planes, with `pts` and `time_base` always set; flagged interlaced where its bitstream or, for
            codecs that tell nothing of frames, its container says so.
        qp: float32 `(ceil(height / 16), ceil(width / 16))` as `macroblock_qp` gives it, or None.
        fault: what was found broken first since the frame before, or None.
    """

    image: av.VideoFrame
    qp: npt.NDArray[np.float32] | None
    fault: str | None = None


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
    exported = side_data.of(frame).get("VIDEO_ENC_PARAMS")
    if exported is None:
        return None
    parameters = cast(VideoEncParams, exported)
    kind = parameters.codec_type
    if kind not in (VideoEncParamsType.H264, VideoEncParamsType.MPEG2) or parameters.nb_blocks == 0:
        return None
    # Each block is five int32: x, y, width, height, quantiser minus the frame's. PyAV's own qp_map loops over objects.
    words = np.frombuffer(memoryview(exported), np.int32, offset=parameters.blocks_offset)
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


def read_frames(source: Source, quantisers: bool = True, place: Place | None = None) -> Iterator[Frame]:
    """Decodes the main video stream, one frame at a time, in presentation order.

    The main stream is the one marked as the default, else the one of the largest picture.

    A frame's time is its pts. AVI holds none, and what ffmpeg makes up there is wrong for H.264 and for packed
    B-frames; some MP4 files have decoding times in their place. So in AVI, and where the pts of the first frames go
    back, a frame's time is its dts, that of the packet which completed it. A frame without a time, or with one that is
    not after its predecessor's, gets its predecessor's plus one frame at the stream's rate (summed exactly, rounded to
    the time base); a first one gets the stream's start.

    What counts as broken: a packet the demuxer marks corrupt, one that does not decode after the first frame did (a
    recording may start between key frames), a frame the decoder marks corrupt after the first clean one, a read error,
    or an end more than about two frames before the duration in the header (half a second in AVI, one second where only
    the whole file's duration is stated). Decoding goes on past damage. Transport and program streams state no duration,
    so a cut there shows only if it falls inside a packet, and not always then.

    Args:
        source: a path, or a seekable binary file object.
        quantisers: also export `Frame.qp`; costs frame-parallel decoding for the codecs that have it.
        place: of the file, to begin there; None for its start. Frames that show before it may be missing or broken.

    Yields:
        A `Frame`.

    Raises:
        ValueError: the file is empty, not a video, or holds no video stream, or not the place; raised by the call
            itself.
        FileNotFoundError: there is no such file.
        LostError: raised on the way, if what follows the place is not what was read there before.
        BrokenVideoError: raised after the last frame that decodes.
    """
    if place is not None:
        container, stream, packets = places.reach(source, place)
        return _decode(container, stream, packets, quantisers, place.by_dts, containers.label(source))
    by_dts = shows_at_dts(source)
    container = containers.open_input(source)
    stream = containers.main_video(container, source)
    # All streams, for the latest end; the packets of the others are read from the file in any case.
    packets = containers.packets(container)
    return _decode(container, stream, packets, quantisers, by_dts, containers.label(source))


def shows_at_dts(source: Source) -> bool:
    """Whether a file's presentation times are none: in AVI, and where those of the first frames do not grow."""
    with containers.open_input(source) as container:
        stream = containers.main_video(container, source)
        if container.format.name == "avi":
            return True
        times = [frame.pts for frame in islice(containers.decodable(container, stream), _LOOK_FRAMES)]
    known = [time for time in times if time is not None]
    return any(second < first for first, second in pairwise(known))


def _decode(
    container: InputContainer,
    stream: VideoStream,
    packets: Iterator[Packet[Any]],
    quantisers: bool,
    by_dts: bool,
    label: str,
) -> Iterator[Frame]:
    context = containers.decoder(stream)
    flagger = interlacing.Flagger.of_decoded(stream)
    maps = quantisers and context.codec.canonical_name in _EXPORTS_QUANTISERS
    if maps:
        context.options = {**context.options, "export_side_data": "venc_params"}
    context.thread_type = av.codec.context.ThreadType.SLICE if maps else av.codec.context.ThreadType.AUTO
    time_base = containers.time_base(stream)
    rate = containers.frame_rate(stream) or Fraction(25)
    step = 1 / (rate * time_base)
    expected = Fraction(stream.start_time or 0)
    last: int | None = None
    damage: list[str] = []
    told = 0
    ends = _Ends(stream.index)
    clean = False
    with container:
        for images, fault in _decoded(packets, stream, context, ends):
            if fault and (clean or fault != _UNDECODABLE):
                damage.append(fault)
            for image in images:
                if image.is_corrupt and clean:
                    damage.append("a frame decodes with errors")
                clean = clean or not image.is_corrupt
                pts = image.dts if by_dts else image.pts
                if pts is None or (last is not None and pts <= last):
                    floor = 0 if last is None else last + 1
                    pts = max(round(expected), floor) if last is not None else round(expected)
                    expected += step
                else:
                    expected = pts + step
                image.pts, image.time_base = pts, time_base
                last = pts
                news = damage[told] if told < len(damage) else None
                told = len(damage)
                yield Frame(flagger.flagged(image), macroblock_qp(image) if maps else None, news)
        if last is None:
            raise BrokenVideoError(f"No frame of the video decodes; check that the file is complete. Received: {label}")
        missing = _missing_seconds(container, stream, ends, rate)
        end = float(ends.video)
    if missing is not None:
        why = next((f" ({fault})" for fault in damage if fault.startswith("read error")), "")
        raise BrokenVideoError(
            f"The video breaks off after {end:.2f} s, {missing:.2f} s before the end that its header states{why}; "
            f"frames up to there were read. Received: {label}"
        )
    if damage:
        raise BrokenVideoError(
            f"The video is damaged in {len(damage)} places (first: {damage[0]}); what decodes was read. "
            f"Received: {label}"
        )


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
        end = (stamp + (packet.duration or 0)) * Fraction(packet.time_base)
        self.any = max(self.any, end)
        if packet.stream_index == self.index:
            self.video = max(self.video, end)


def _decoded(
    packets: Iterator[Packet[Any]], stream: VideoStream, context: av.VideoCodecContext, ends: _Ends
) -> Iterator[tuple[list[av.VideoFrame], str | None]]:
    """Yields what every video packet decodes to, and what is wrong with it."""
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
            with bounds.decoding():
                images = context.decode(cast("Packet[VideoStream]", packet))
            yield images, fault
        except av.FFmpegError:
            yield [], fault or _UNDECODABLE
    try:
        with bounds.decoding():
            images = context.decode(None)
        yield images, None
    except av.FFmpegError:
        yield [], _UNDECODABLE


def _missing_seconds(container: InputContainer, stream: VideoStream, ends: _Ends, rate: Fraction) -> float | None:
    """Seconds between the last packet and the end that the header states, where they are too many to be rounding."""
    name = container.format.name
    tolerance = Fraction(5, 2) / rate
    start = (stream.start_time or 0) * containers.time_base(stream)
    stated: Fraction | None = None
    reached = ends.video
    if name.startswith(_STATES_STREAM_DURATION) and stream.duration:
        stated = start + stream.duration * containers.time_base(stream)
    elif name == "avi" and stream.frames:
        # Dropped frames at the very end have no packets.
        stated, tolerance = start + stream.frames / rate, max(tolerance, Fraction(1, 2))
    elif "matroska" in name and containers.tagged_duration(stream):
        stated = containers.tagged_duration(stream)
    elif name in _STATES_DURATION and container.duration:
        stated = Fraction(container.duration + (container.start_time or 0), av.time_base)
        reached, tolerance = ends.any, max(tolerance, Fraction(1))
    if stated is None or stated - reached <= tolerance:
        return None
    return float(stated - reached)
