"""HDR metadata: what display a video was mastered on, how bright it gets, and what of it cannot be carried over.

Static metadata (SMPTE ST 2086, CTA-861.3) goes two ways: into the bitstream, by parameters that x264, x265 and SVT-AV1
have for it, and into the container. PyAV writes nothing of it into a container by itself, but a stream that is made
after a template gets the template's, and a template is read from any file: here from a Matroska header in memory.

Dynamic metadata (HDR10+, Dolby Vision, HDR Vivid) changes from frame to frame.
"""

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.codec.codec import Codec
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer
from av.format import Flags as FormatFlags
from av.video.stream import VideoStream

from keras_deartifact.video import side_data

DYNAMIC = {
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata",
    "DOVI_RPU_BUFFER": "Dolby Vision metadata",
    "DOVI_METADATA": "Dolby Vision metadata",
    "DYNAMIC_HDR_VIVID": "HDR Vivid metadata",
}
"""Names of side data that belongs to single frames and that no encoder here is given; how a message calls it."""

OTHER = {
    "AMBIENT_VIEWING_ENVIRONMENT": "the ambient viewing environment",
    "SPHERICAL": "the spherical projection",
    "STEREO3D": "the arrangement of views for stereo",
    "AFD": "the active format description",
    "ICC_PROFILE": "the ICC profile",
}
"""Further side data of the picture that no encoder here is given."""

# Matroska's names of the codecs that a template can have an encoder for.
_CODECS = {"h264": "V_MPEG4/ISO/AVC", "hevc": "V_MPEGH/ISO/HEVC", "vp9": "V_VP9", "ffv1": "V_FFV1"}


@dataclass(frozen=True)
class Static:
    """What is said of a whole video.

    Attributes:
        primaries: CIE 1931 x and y of the display's red, green and blue; None where it is not said.
        white: x and y of its white point; None like the primaries.
        luminance: its least and greatest, cd/m2; None where it is not said.
        light: greatest luminance of a pixel (MaxCLL) and of a frame's mean (MaxFALL), cd/m2; None where it is not said.
    """

    primaries: tuple[Fraction, ...] | None
    white: tuple[Fraction, ...] | None
    luminance: tuple[Fraction, ...] | None
    light: tuple[int, int] | None

    @property
    def is_complete(self) -> bool:
        """Whether the display is described as bitstreams want it: colours and luminance."""
        return self.primaries is not None and self.luminance is not None


def static(frame: av.VideoFrame) -> Static | None:
    """The static metadata that a decoded frame holds, whether from the bitstream or from the container."""
    found = side_data.of(frame)
    primaries = white = luminance = light = None
    if (display := found.get("MASTERING_DISPLAY_METADATA")) is not None:
        # AVMasteringDisplayMetadata: eight chromaticities, two luminances as pairs of integers, and which are there.
        words = np.frombuffer(memoryview(display), np.int32)[:22].tolist()
        pairs = [Fraction(*pair) if pair[1] else Fraction(0) for pair in zip(words[0:20:2], words[1:20:2], strict=True)]
        if words[20]:
            primaries, white = tuple(pairs[:6]), tuple(pairs[6:8])
        if words[21]:
            luminance = tuple(pairs[8:])
    if (level := found.get("CONTENT_LIGHT_LEVEL")) is not None:
        most, mean = np.frombuffer(memoryview(level), np.uint32)[:2].tolist()
        light = most, mean
    result = Static(primaries, white, luminance, light)
    return None if result == Static(None, None, None, None) else result


def names(frame: av.VideoFrame, table: Mapping[str, str]) -> set[str]:
    """How a message calls the side data of a table that a frame holds."""
    return {text for name, text in table.items() if side_data.of(frame).get(name) is not None}


def encoder_options(codec: str, metadata: Static) -> dict[str, str]:
    """The options by which an encoder writes static metadata into the bitstream; empty for one that cannot."""
    options = {"libx264": "x264-params", "libx264rgb": "x264-params", "libx265": "x265-params"}
    parts = {}
    if codec in options:
        if metadata.is_complete:
            parts["master-display" if codec == "libx265" else "mastering-display"] = _display(
                metadata, "{:.0f}", 50000, 10000
            )
        if metadata.light is not None:
            parts["max-cll" if codec == "libx265" else "cll"] = "{},{}".format(*metadata.light)
    elif codec == "libsvtav1":
        options[codec] = "svtav1-params"
        if metadata.is_complete:
            parts["mastering-display"] = _display(metadata, "{:.6f}")
        if metadata.light is not None:
            parts["content-light"] = "{},{}".format(*metadata.light)
    return {options[codec]: ":".join(f"{name}={value}" for name, value in parts.items())} if parts else {}


def add_stream(output: OutputContainer, codec: str, rate: Fraction, metadata: Static | None) -> VideoStream | None:
    """Adds a stream for an encoder whose container says the static metadata.

    The encoder must be opened before the header is written, which PyAV does not do by itself for such a stream.

    Returns:
        None where there is no metadata, or no such stream for this encoder.
    """
    name = _CODECS.get(Codec(codec, "w").canonical_name)
    if metadata is None or name is None:
        return None
    with av.open(io.BytesIO(_matroska(name, metadata)), "r") as template:
        if Codec(template.streams.video[0].codec_context.codec.name, "w").name != codec:
            return None
        stream = _added(output, template)
    context = stream.codec_context
    context.framerate = rate
    context.bit_rate = 0
    if FormatFlags.global_header in FormatFlags(output.format.flags):
        context.flags = int(context.flags) | Flags.global_header
    return stream


def _added(output: OutputContainer, template: InputContainer) -> VideoStream:
    return output.add_stream_from_template(template.streams.video[0], opaque=False)


def _display(metadata: Static, form: str, chromaticity: int = 1, luminance: int = 1) -> str:
    """The display in the notation that encoders share: colours in units of `1 / chromaticity`, and so on."""
    numbers = [chromaticity * each for each in (*(metadata.primaries or ()), *(metadata.white or ()))]
    least, most = (luminance * each for each in metadata.luminance or ())
    red, green, blue, white = (numbers[at : at + 2] for at in (0, 2, 4, 6))
    # x264 and x265 want them in this order.
    named = {"G": green, "B": blue, "R": red, "WP": white, "L": (most, least)}
    return "".join(f"{name}({form},{form})".format(*map(float, pair)) for name, pair in named.items())


def _matroska(codec: str, metadata: Static) -> bytes:
    """The beginning of a Matroska file whose one stream has the metadata; RFC 9559 numbers the elements."""
    display = b""
    if metadata.primaries is not None and metadata.white is not None:
        values = (*metadata.primaries, *metadata.white)
        display = b"".join(_element(0x55D1 + number, float(value)) for number, value in enumerate(values))
    if metadata.luminance is not None:
        least, most = metadata.luminance
        display += _element(0x55D9, float(most)) + _element(0x55DA, float(least))
    colour = _element(0x55D0, display)
    if metadata.light is not None:
        colour += _element(0x55BC, metadata.light[0]) + _element(0x55BD, metadata.light[1])
    picture = _element(0xE0, _element(0xB0, 16) + _element(0xBA, 16) + _element(0x55B0, colour))
    track = _element(0xD7, 1) + _element(0x73C5, 1) + _element(0x83, 1) + _element(0x86, codec.encode()) + picture
    header = _element(0x4282, b"matroska") + _element(0x4287, 4) + _element(0x4285, 2)
    information = _element(0x2AD7B1, 1_000_000) + _element(0x4D80, b"-") + _element(0x5741, b"-")
    tracks, cluster = _element(0x1654AE6B, _element(0xAE, track)), _element(0x1F43B675, _element(0xE7, 0))
    return _element(0x1A45DFA3, header) + _element(0x18538067, _element(0x1549A966, information) + tracks + cluster)


def _element(number: int, value: bytes | int | float) -> bytes:
    if isinstance(value, float):
        data = struct.pack(">d", value)
    else:
        data = value.to_bytes(8, "big") if isinstance(value, int) else value
    # A size of eight bytes begins with 01.
    return number.to_bytes(-(-number.bit_length() // 8), "big") + (1 << 56 | len(data)).to_bytes(8, "big") + data
