"""How a video is encoded: settings that give any number of encoders which make the same packets of the same frames."""

# PyAV's Packet is generic in its stubs alone, so annotations must not be evaluated.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import av
from av.packet import Packet
from av.video.frame import PictureType
from av.video.stream import VideoStream

from keras_deartifact.video import captions, carriers, interlacing

# What PyAV sets for a stream of its own, and what else an encoder is told beside its options.
_ATTRIBUTES = (
    "width height pix_fmt time_base framerate bit_rate bit_rate_tolerance sample_aspect_ratio colorspace color_range"
    " color_primaries color_trc thread_count flags field_order"
).split()


@dataclass(frozen=True)
class Encoding:
    """Everything that an encoder is told.

    Attributes:
        codec: an ffmpeg encoder.
        attributes: of the codec context.
        options: of the encoder.
        formats: pixel formats in which frames may come.
        time_base: seconds a tick of the frames' and packets' times.
        earlier: ticks by which all times move to the front.
        captions: whether the encoder takes closed captions.
        interlaced: whether frames are coded as fields.
    """

    codec: str
    attributes: Mapping[str, Any]
    options: Mapping[str, str]
    formats: frozenset[str]
    time_base: Fraction
    earlier: int
    captions: bool
    interlaced: bool

    @classmethod
    def of(
        cls,
        stream: VideoStream,
        options: Mapping[str, str],
        pix_fmt: str,
        earlier: Fraction,
        *,
        captions: bool,
        interlaced: bool,
    ) -> Encoding:
        """The settings of a stream that is ready to be encoded, for others like its own encoder.

        Args:
            stream: of a container that is open for writing; its encoder is given the options.
            options: of the encoder.
            pix_fmt: of the frames, beside the encoder's own.
            earlier: seconds by which all times move to the front.
            captions: see the class.
            interlaced: likewise.
        """
        context = stream.codec_context
        context.options = dict(options)
        time_base = Fraction(context.time_base or Fraction(1, 90000))
        return cls(
            context.name,
            {name: getattr(context, name) for name in _ATTRIBUTES},
            dict(options),
            frozenset((pix_fmt, str(context.pix_fmt))),
            time_base,
            round(earlier / time_base),
            captions,
            interlaced,
        )

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames in pixels."""
        return self.attributes["width"], self.attributes["height"]

    def context(self) -> av.VideoCodecContext:
        """A fresh encoder."""
        context = cast(av.VideoCodecContext, av.CodecContext.create(self.codec, "w"))
        for name, value in self.attributes.items():
            if value is not None:
                setattr(context, name, value)
        context.options = dict(self.options)
        return context


class FrameEncoder:
    """Encodes frames at their own presentation times.

    Attributes:
        last: time of the last frame in ticks of the source, before it moved to the front; None before the first.
    """

    def __init__(
        self, encoding: Encoding, context: av.VideoCodecContext | None = None, after: int | None = None
    ) -> None:
        """Takes the settings.

        Args:
            encoding: the settings.
            context: an encoder with these settings; None for a fresh one.
            after: a time in ticks, of the last frame of the encoder before this one, which all frames must be after.
        """
        self.last = after
        self._encoding = encoding
        self._context = context or encoding.context()
        # x264 codes all frames as fields then, and would take the lower one for the first of a progressive frame.
        in_fields = encoding.interlaced and encoding.codec != "ffv1"
        self._order = interlacing.Flagger(int(self._context.field_order)) if in_fields else None

    def encode(self, frame: av.VideoFrame, decoded: av.VideoFrame | None = None) -> list[Packet[Any]]:
        """Encodes one frame; see `VideoWriter.write`.

        Returns:
            The packets that are ready.

        Raises:
            ValueError: the size, the format or the time is not as it should be.
        """
        wanted = self._encoding
        if (frame.width, frame.height) != wanted.size or frame.format.name not in wanted.formats:
            raise ValueError(
                f"frame must be {wanted.size[0]}x{wanted.size[1]} in {sorted(wanted.formats)}. "
                f"Received: {frame.width}x{frame.height} in {frame.format.name}"
            )
        if frame.pts is None:
            raise ValueError("frame must have a pts. Received: pts=None")
        ticks = frame.pts * Fraction(frame.time_base or wanted.time_base) / wanted.time_base
        if ticks.denominator != 1 or (self.last is not None and ticks <= self.last):
            raise ValueError(
                f"pts must be whole ticks of {wanted.time_base} s after the last frame's {self.last}. "
                f"Received: pts={frame.pts}, time_base={frame.time_base}"
            )
        self.last = int(ticks)
        if decoded is not None:
            frame = self._completed(frame, decoded)
        if self._order is not None:
            frame = self._order.flagged(frame)
        # A decoded frame remembers its picture type, and encoders take it as an order.
        kind, frame.pict_type = frame.pict_type, PictureType.NONE
        given = frame.pts, frame.time_base
        frame.pts, frame.time_base = self.last - wanted.earlier, wanted.time_base
        try:
            return self._context.encode(frame)
        finally:
            frame.pict_type = kind
            frame.pts, frame.time_base = given

    def flush(self) -> list[Packet[Any]]:
        """Returns the packets of the frames that the encoder still held."""
        return self._context.encode(None)

    def _completed(self, frame: av.VideoFrame, decoded: av.VideoFrame) -> av.VideoFrame:
        """A frame to encode with what a decoded frame holds beside its picture, as far as the encoder takes it."""
        wanted = self._encoding
        fields = wanted.interlaced and decoded.interlaced_frame
        # FFV1 has a frame's pixel shape from the frame, and PyAV cannot give Matroska one.
        shape = wanted.codec == "ffv1" and wanted.attributes["sample_aspect_ratio"] not in (None, 0, 1)
        if decoded is not frame and (fields or shape or (wanted.captions and captions.has_captions(decoded))):
            return carriers.with_picture(decoded, frame)
        return frame
