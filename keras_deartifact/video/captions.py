"""Closed captions, which lie in the frames themselves."""

from collections.abc import Mapping
from typing import Any, cast

import av
import numpy as np


def has_captions(frame: av.VideoFrame) -> bool:
    """Whether a frame holds captions by CEA-608 or 708."""
    return cast("Mapping[str, Any]", frame.side_data).get("A53_CC") is not None


def with_picture(decoded: av.VideoFrame, frame: av.VideoFrame) -> av.VideoFrame:
    """Gives a decoded frame the picture and times of another. In PyAV no other frame can hold its captions.

    Args:
        decoded: the frame with captions; overwritten.
        frame: of the same size and pixel format.

    Returns:
        `decoded`.
    """
    decoded.make_writable()
    for old, new in zip(decoded.planes, frame.planes, strict=True):
        stride = min(old.line_size, new.line_size)
        lines = [
            np.frombuffer(memoryview(plane), np.uint8)[: plane.height * plane.line_size].reshape(-1, plane.line_size)
            for plane in (old, new)
        ]
        lines[0][:, :stride] = lines[1][:, :stride]
    decoded.pts, decoded.duration = frame.pts, frame.duration
    if frame.time_base is not None:
        decoded.time_base = frame.time_base
    return decoded
