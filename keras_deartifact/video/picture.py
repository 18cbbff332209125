"""What the first frames say of a video's pictures beyond size and colour, and how an encoder is told."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import av
from av.codec.codec import Codec
from av.container import OutputContainer
from av.video.stream import VideoStream

from keras_deartifact.video import hdr, interlacing, pixel_formats, siting


class Picture:
    """The fields, alpha, place of chroma samples and HDR metadata of a video.

    Attributes:
        first: the first frame.
        interlaced: whether frames are, or may be, interlaced and are to be coded so.
        lost: what the new file cannot hold; complete after `prepare`.
    """

    def __init__(self, stream: VideoStream, frames: Sequence[av.VideoFrame], deinterlaced: bool = False) -> None:
        """Looks at the stream and its first frames.

        Args:
            stream: of a file that is open for reading.
            frames: decoded from its beginning, at least one.
            deinterlaced: the frames to encode are progressive in any case.

        Raises:
            ValueError: each frame is a single field.
        """
        self.first = frames[0]
        self.lost: list[str] = []
        if interlacing.is_field_coded(stream, self.first):
            raise ValueError(
                "HEVC must have whole frames; this one's are single fields, which ffmpeg does not join. Weave them "
                "first, for example with 'ffmpeg -i IN -vf weave -c:v ffv1 OUT.mkv'. Received: an interlaced frame"
            )
        fields = [] if deinterlaced else [frame for frame in frames if frame.interlaced_frame]
        self.interlaced = bool(fields)
        self._interlaced_frame = fields[0] if fields else None
        self._deinterlaced = deinterlaced
        self._order = interlacing.field_order(stream)
        self._chroma_location = siting.chroma_location(stream)
        self._static = next(filter(None, map(hdr.static, frames)), None)
        self._dynamic = hdr.names(frames, hdr.DYNAMIC)
        self._others = hdr.names(frames, hdr.OTHER)

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
        encoder = Codec(codec, "w")
        refused = [name for name in self._dynamic if (codec, name) != ("libsvtav1", hdr.DYNAMIC["DYNAMIC_HDR_PLUS"])]
        keep_alpha = pixel_formats.has_alpha(self.first.format.name)
        if keep_alpha and not any(pixel_formats.has_alpha(each.name) for each in encoder.video_formats or []):
            refused.insert(0, "alpha, which ffv1 in .mkv and, of 8 bits and 4:2:0, libvpx-vp9 in .webm can hold")
            keep_alpha = False
        if refused and not drop:
            raise ValueError(
                f"{codec} cannot hold {'; '.join(refused)}. Choose a codec that can, or leave out what it cannot hold "
                f"with drop=True (--drop). Received: codec={codec!r}"
            )
        self.lost += [*refused, *self._others]
        context.width, context.height = self.first.width, self.first.height
        context.pix_fmt = pixel_formats.encodable(self.first, encoder, self.interlaced, keep_alpha)
        if self._interlaced_frame is not None:
            interlacing.prepare(context, self._order, self._interlaced_frame)
        elif self._deinterlaced:
            context.field_order = interlacing.PROGRESSIVE
        # Matroska says by this tag that a second stream of VP9 is the alpha of the first.
        stream.metadata.pop("alpha_mode", None)
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
