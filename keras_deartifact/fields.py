"""The two fields of interlaced frames: pictures of their own, taken at two times, which only share a frame's rows.

A network must never see both at once: what moves has combs there that no compression made. So an interlaced frame is
taken apart (`pictures`), each field goes through the network as a picture of half the height, and the corrected fields
are put together again (`weave`). All planes are split by rows, chroma of 4:2:0 too: its rows belong to the fields in
turn, as MPEG-2 and H.264 have it. (Between them they lie a quarter of a row off the middle, up in one field and down in
the other. For a correction, which is a mean over pixels and small, that makes no difference.)

The quantiser map of a field (`field_map`) is the frame's with its rows averaged in pairs: a block of 16 rows of a field
covers 32 rows of the frame. Two macroblocks above each other there are one of each field (field pictures of MPEG-2 and
H.264, pairs of MBAFF in field mode) or two of the whole frame, which ffmpeg does not tell; the mean serves both.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import cast

import av
import numpy as np
import numpy.typing as npt

from keras_deartifact import colour, video

Floats = npt.NDArray[np.float32]


def pictures(frame: av.VideoFrame) -> tuple[av.VideoFrame, ...]:
    """The pictures that a frame holds: the frame itself, or where it is interlaced its fields, the upper one first.

    Args:
        frame: of planes of 8 to 16 bits a sample.

    Returns:
        The frame, or two new ones of the same width and half the height, rounded up, without times. In a field that
        is a row shorter the last one is repeated. The matrix is stated, for a guess would go by the height.
    """
    if not frame.interlaced_frame:
        return (frame,)
    fields = []
    for parity in (0, 1):
        field = av.VideoFrame(frame.width, -(-frame.height // 2), frame.format.name)
        for old, new in zip(frame.planes, field.planes, strict=True):
            source, target = video.lines(old)[parity::2], video.lines(new)
            if not len(source):
                source = video.lines(old)
            stride = min(source.shape[1], target.shape[1])
            target[: len(source), :stride] = source[:, :stride]
            target[len(source) :, :stride] = source[-1, :stride]
        field.colorspace = frame.colorspace if frame.format.is_rgb else colour.matrix(frame)
        field.color_range = frame.color_range
        fields.append(field)
    return tuple(fields)


def weave(fields: tuple[av.VideoFrame, ...], decoded: av.VideoFrame) -> av.VideoFrame:
    """Puts the pictures of a frame together again.

    Args:
        fields: as `pictures` gave them, changed or not.
        decoded: the frame that they came from; not changed.

    Returns:
        The one picture of a progressive frame as it is; else a new frame with the time and colour of `decoded`. That it
        is interlaced only `decoded` can tell an encoder, see `video.with_picture`.
    """
    if len(fields) == 1:
        return fields[0]
    frame = av.VideoFrame(decoded.width, decoded.height, decoded.format.name)
    for parity, field in enumerate(fields):
        for old, new in zip(field.planes, frame.planes, strict=True):
            source, target = video.lines(old), video.lines(new)[parity::2]
            stride = min(source.shape[1], target.shape[1])
            target[:, :stride] = source[: len(target), :stride]
    colour.copy_attributes(decoded, frame)
    return frame


def field_map(quantiser_map: Floats) -> Floats:
    """The quantiser map of either field of an interlaced frame.

    Args:
        quantiser_map: float32 `(rows, columns)`, log2 steps of the frame's blocks.

    Returns:
        Float32 `(ceil(rows / 2), columns)`, the means of rows in pairs.
    """
    if len(quantiser_map) % 2:
        quantiser_map = np.concatenate([quantiser_map, quantiser_map[-1:]])
    return cast(Floats, (quantiser_map[0::2] + quantiser_map[1::2]) * np.float32(0.5))


class Deinterlacer:
    """Makes one progressive frame of each interlaced one, by ffmpeg's `bwdif`; progressive frames pass unchanged.

    A frame keeps the rows of the field that is shown first; those between come from the fields around it. So it leaves
    when the next frame has come.
    """

    def __init__(self) -> None:
        self._chain: video.Chain | None = None
        self._time_base = Fraction(1)

    def push(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """Takes a frame, and yields those that are ready.

        Args:
            frame: flagged if it is interlaced; all of one size and format, with times.
        """
        if self._chain is None:
            # The filter lacks formats such as nv12.
            self._chain = video.Chain(
                frame, ("bwdif", "mode=send_frame:deint=interlaced"), ("format", frame.format.name)
            )
            self._time_base = Fraction(frame.time_base or 1)
        yield from map(self._timed, self._chain.push(frame))

    def flush(self) -> Iterator[av.VideoFrame]:
        """Yields what is left."""
        if self._chain is not None:
            yield from map(self._timed, self._chain.push(None))

    def _timed(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Counts time as the source does; the filter halves the ticks, for it can make two frames of one."""
        ratio = Fraction(frame.time_base or 1) / self._time_base
        frame.pts, frame.duration = round((frame.pts or 0) * ratio), round(frame.duration * ratio)
        frame.time_base = self._time_base
        return frame
