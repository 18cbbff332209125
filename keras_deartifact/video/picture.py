"""What the first frames say of a video's pictures beyond size and colour, and how an encoder is told."""

from collections.abc import Iterable, Mapping
from fractions import Fraction

import av
from av.codec.codec import Codec
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

from keras_deartifact.video import captions, hdr, interlacing, matroska, pixel_formats, siting

# Encoders whose bitstreams do not say what shape pixels have.
_TELL_NO_SHAPE = frozenset(("ffv1", "libsvtav1", "libvpx-vp9"))


class Picture:
    """The fields, alpha, place of chroma samples and HDR metadata of a video.

    Attributes:
        first: the first frame.
        has_captions: whether one of the frames has closed captions.
        pixel_shape: width of a pixel over its height; None if it is square, or not stated.
        interlaced: whether frames are, or may be, interlaced and are to be coded so.
        lost: what the new file cannot hold; complete after `prepare`.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        frames: Iterable[av.VideoFrame],
        deinterlaced: bool = False,
    ) -> None:
        """Looks at the stream and its first frames.

        Args:
            container: open for reading; left at another place.
            stream: of it.
            frames: decoded from its beginning, at least one. They are looked at one after the other, for 24 frames of
                4K would be 300 MB.
            deinterlaced: the frames to encode are progressive in any case.

        Raises:
            ValueError: each frame is a single field.
        """
        self.lost: list[str] = []
        self.has_captions = False
        self._interlaced_frame: av.VideoFrame | None = None
        self._static: hdr.Static | None = None
        dynamic: set[str] = set()
        others: set[str] = set()
        for number, frame in enumerate(frames):
            if number == 0:
                self.first = frame
            self.has_captions = self.has_captions or captions.has_captions(frame)
            if frame.interlaced_frame and not deinterlaced:
                self._interlaced_frame = self._interlaced_frame or frame
            self._static = self._static or hdr.static(frame)
            dynamic |= hdr.names(frame, hdr.DYNAMIC)
            others |= hdr.names(frame, hdr.OTHER)
        self._dynamic, self._others = sorted(dynamic), sorted(others)
        if interlacing.is_field_coded(stream, self.first):
            raise ValueError(
                "HEVC must have whole frames; this one's are single fields, which ffmpeg does not join. Weave them "
                "first, for example with 'ffmpeg -i IN -vf weave -c:v ffv1 OUT.mkv'. Received: an interlaced frame"
            )
        if not deinterlaced and self._interlaced_frame is None:
            self._interlaced_frame = interlacing.seek_interlaced(container, stream)
        self.interlaced = self._interlaced_frame is not None
        self._deinterlaced = deinterlaced
        self._order = interlacing.field_order(stream)
        self._chroma_location = siting.chroma_location(stream)
        shape = Fraction(stream.sample_aspect_ratio or 1)
        self.pixel_shape = None if shape == 1 else shape

    def add_stream(self, output: OutputContainer, codec: str, rate: Fraction) -> VideoStream:
        """Adds the stream to encode to a container; its context must be opened before the header is written.

        Raises:
            ValueError: no such encoder, or one that does not fit the container.
        """
        stream = hdr.add_stream(output, codec, rate, self._static) or output.add_stream(codec, rate=rate)
        if not isinstance(stream, VideoStream):
            raise ValueError(f"codec must be a video encoder. Received: codec={codec!r}")
        return stream

    def prepare(self, stream: VideoStream, drop: bool) -> None:
        """Tells an encoder of the pictures: size, pixel format, fields.

        Args:
            stream: as `add_stream` gave it.
            drop: leave out what is lost instead of refusing it.

        Raises:
            ValueError: the encoder lacks the pixel format or takes no fields, or something is lost and `drop` is False.
        """
        context = stream.codec_context
        codec = context.name
        if self.interlaced and codec not in interlacing.CODES_FIELDS:
            able = " or ".join(sorted(interlacing.CODES_FIELDS))
            raise ValueError(
                f"{codec} must code interlaced frames, which it cannot; choose {able}, or make the frames progressive "
                f"with deinterlace=True (--deinterlace). Received: codec={codec!r}"
            )
        keep_alpha = pixel_formats.keeps_alpha(codec, self.first.format.name)
        refused = [f"{name}, which no codec here can hold" for name in self._dynamic]
        if pixel_formats.has_alpha(self.first.format.name) and not keep_alpha:
            refused.append("alpha, which ffv1 in .mkv can hold, and libvpx-vp9 in .webm that of yuva420p")
        if refused and not drop:
            raise ValueError(
                f"{codec} cannot hold {'; nor '.join(refused)}. Leave out what it cannot hold with drop=True (--drop), "
                f"or choose what can. Received: pix_fmt={self.first.format.name!r}, codec={codec!r}"
            )
        self.lost += [*refused, *self._others]
        container = stream.container.format.name
        if self.pixel_shape and codec in _TELL_NO_SHAPE and container in matroska.NAMES:
            if not matroska.has_room(container, codec):
                self.lost.append(f"the pixel shape of {self.pixel_shape}, which .mp4 can hold")
        context.width, context.height = self.first.width, self.first.height
        context.pix_fmt = pixel_formats.encodable(self.first, Codec(codec, "w"), self.interlaced, keep_alpha)
        if self._interlaced_frame is not None:
            interlacing.prepare(context, self._order, self._interlaced_frame)
        elif self._deinterlaced:
            context.field_order = interlacing.PROGRESSIVE
        # Matroska says by this tag that a second stream of VP9 is the alpha of the first.
        for tag in [each for each in stream.metadata if each.lower() == "alpha_mode"]:
            del stream.metadata[tag]
        if codec == "libvpx-vp9" and pixel_formats.has_alpha(context.pix_fmt):
            stream.metadata["alpha_mode"] = "1"

    def options(self, codec: str, given: Mapping[str, str]) -> dict[str, str]:
        """The options of an encoder that say where chroma samples lie, and the static HDR metadata.

        Args:
            codec: ffmpeg's name of the encoder.
            given: options that it gets in any case; lists of parameters among them are continued.
        """
        options = dict(given)
        if self._chroma_location is not None:
            options.setdefault("chroma_sample_location", self._chroma_location)
        for name, value in (hdr.encoder_options(codec, self._static) if self._static else {}).items():
            options[name] = ":".join(filter(None, (options.get(name), value)))
        return options
