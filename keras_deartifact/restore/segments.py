"""A video's frames into segments, each by an encoder of its own, one after the other."""

from fractions import Fraction
from typing import IO

import av

from keras_deartifact import fields, video
from keras_deartifact.restore.journal import Journal
from keras_deartifact.video import segments
from keras_deartifact.video.encoding import Encoding, FrameEncoder

FRAMES = 240
"""The most frames of a segment: about as many as x264 lets pass from one key frame to the next in any case."""

SECONDS = 20
"""The longest segment, where frames are rare: a kill costs no more than that of what was done."""

# Of large frames fewer, so that a segment is less than a minute of work.
_FEWEST, _PIXELS = 48, 800_000_000


def length(width: int, height: int) -> int:
    """How many frames of a size a segment has, unless it is long."""
    return min(FRAMES, max(_FEWEST, _PIXELS // (width * height)))


class Segments:
    """Encodes frames, and notes each segment in a journal when it is finished.

    Where a segment ends depends on the times and the size of its frames alone.
    """

    def __init__(self, journal: Journal, encoding: Encoding, deinterlace: bool = False) -> None:
        """Goes on after the segments that the journal has.

        Args:
            journal: of the target.
            encoding: of all segments.
            deinterlace: make progressive frames of interlaced ones; each segment by itself, so that of its first and
                last frame one neighbour is not known.
        """
        self._journal = journal
        self._encoding = encoding
        self._length = length(*encoding.size)
        self._file: IO[bytes] | None = None
        self._encoder = FrameEncoder(encoding)
        self._deinterlace = deinterlace
        self._deinterlacer: fields.Deinterlacer | None = None
        self._frames = 0
        self._start = Fraction(0)
        self._predictions: list[float] = []

    def write(self, frame: av.VideoFrame, decoded: av.VideoFrame, prediction: float | None = None) -> None:
        """Encodes a frame.

        Args:
            frame: see `VideoWriter.write`.
            decoded: likewise.
            prediction: what the predictor saw in it, if it looked: the median, log2 step.
        """
        time = (frame.pts or 0) * Fraction(frame.time_base or self._encoding.time_base)
        if self._frames == self._length or (self._frames and time - self._start >= SECONDS):
            self.finish()
        if self._file is None:
            self._file = self._journal.part.open("wb")
            self._encoder = FrameEncoder(self._encoding, after=self._journal.last)
            self._deinterlacer = fields.Deinterlacer() if self._deinterlace else None
            self._frames, self._start, self._predictions = 0, time, []
        if self._deinterlacer is None:
            segments.append(self._file, self._encoder.encode(frame, decoded))
        else:
            for each in self._deinterlacer.push(video.with_picture(decoded, frame)):
                segments.append(self._file, self._encoder.encode(each))
        self._frames += 1
        if prediction is not None:
            self._predictions.append(prediction)

    def finish(self) -> None:
        """Finishes the segment at work, if there is one."""
        if self._file is None:
            return
        for each in self._deinterlacer.flush() if self._deinterlacer else ():
            segments.append(self._file, self._encoder.encode(each))
        if self._encoder.last is None:
            return
        segments.append(self._file, self._encoder.flush())
        self.close()
        self._journal.add(self._frames, self._encoder.last, self._predictions)

    def close(self) -> None:
        """Closes the file of the segment at work."""
        if self._file is not None:
            self._file.close()
            self._file = None
