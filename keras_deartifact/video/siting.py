"""Where the chroma samples of a video lie, which PyAV does not tell: a Matroska header of the stream does."""

import io
import re

import av
from av.video.stream import VideoStream

# ChromaSitingHorz and ChromaSitingVert (RFC 9559, 5.1.4.1.28), a byte each: 1 is on the first sample, 2 between two.
_SITING = re.compile(rb"\x55\xb7\x81(.)\x55\xb8\x81(.)", re.DOTALL)
_LOCATIONS = {(1, 2): "left", (2, 2): "center", (1, 1): "topleft", (2, 1): "top"}


def chroma_location(stream: VideoStream) -> str | None:
    """The place of chroma samples among those of luma.

    Args:
        stream: of a file that is open for reading.

    Returns:
        `"left"`, `"center"`, `"topleft"` or `"top"`, by ffmpeg's names; None where the stream states none of these.
    """
    written = io.BytesIO()
    try:
        with av.open(written, "w", "matroska") as header:
            header.add_stream_from_template(stream, opaque=True)
            header.start_encoding()
    except (ValueError, av.FFmpegError):
        # Matroska does not hold this codec.
        return None
    found = _SITING.search(written.getvalue())
    return _LOCATIONS.get((found[1][0], found[2][0])) if found else None
