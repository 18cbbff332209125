"""Frames with what lies beside their picture: closed captions, the order of fields, HDR10+.

PyAV gives all of it to read, and nothing to write. What a decoded frame holds reaches an encoder only in that frame, so
it is given the new picture.
"""

import av
import numpy as np
import numpy.typing as npt
from av.video.plane import VideoPlane


def lines(plane: VideoPlane) -> npt.NDArray[np.uint8]:
    """A view of a plane's bytes, `(rows, bytes a row)` from the top, the padding at the end of each line included."""
    stride = plane.line_size
    # A negative line size means the image is stored bottom up; the buffer still starts at its lowest address.
    offset = 0 if stride >= 0 else (plane.height - 1) * -stride
    shape = plane.height, abs(stride)
    return np.ndarray(shape, np.uint8, buffer=memoryview(plane), offset=offset, strides=(stride, 1))


def with_picture(decoded: av.VideoFrame, frame: av.VideoFrame) -> av.VideoFrame:
    """Gives a decoded frame the picture and times of another.

    Args:
        decoded: the frame with more than its picture; overwritten.
        frame: of the same size and pixel format.

    Returns:
        `decoded`.
    """
    decoded.make_writable()
    for old, new in zip(decoded.planes, frame.planes, strict=True):
        source, target = lines(new), lines(old)
        stride = min(source.shape[1], target.shape[1])
        target[:, :stride] = source[:, :stride]
    decoded.pts, decoded.duration = frame.pts, frame.duration
    if frame.time_base is not None:
        decoded.time_base = frame.time_base
    return decoded
