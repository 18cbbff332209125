"""A video's frames into segments, each by an encoder of its own, one after the other."""

from pathlib import Path
from typing import IO, NamedTuple, Protocol

import av

from keras_deartifact import fields, video
from keras_deartifact.restore.journal import Segment
from keras_deartifact.video import segments
from keras_deartifact.video.encoding import Encoding, FrameEncoder


class Shelf(Protocol):
    """Where finished segments go, one after the other."""

    @property
    def part(self) -> Path:
        """Where the next segment is to be written."""

    @property
    def last(self) -> int | None:
        """Time of the last frame in what is there, in ticks of the source."""

    def add(self, segment: Segment) -> None:
        """Takes what is in `part` for a finished segment."""


class Border(NamedTuple):
    """Between two segments: the number of the second one, and the digest of what came before it (`maps.Maps`)."""

    segment: int
    digest: str


class Note(NamedTuple):
    """What a segment remembers of a frame.

    `stated` tells whether the bitstream gave it a map, `prediction` what the predictor saw in it if it looked (the
    median, log2 step), `broken` what is wrong with the source there; `border` is there where it begins a segment.
    """

    stated: bool
    prediction: float | None
    broken: str | None
    border: Border | None


class Segments:
    """Encodes frames, and puts each segment on a shelf when it is finished.

    Attributes:
        number: of the segment at work, or of the next one.
        frames: how many there are in those that are finished.
    """

    def __init__(
        self, shelf: Shelf, encoding: Encoding, first: int = 0, deinterlace: bool = False, from_start: bool = True
    ) -> None:
        """Goes on after the segments that are there.

        Args:
            shelf: takes the segments.
            encoding: of all segments.
            first: number of the first one.
            deinterlace: make progressive frames of interlaced ones; each segment by itself, so that of its first and
                last frame one neighbour is not known.
            from_start: see `journal.Segment`.
        """
        self._shelf = shelf
        self._encoding = encoding
        self.number, self.frames = first, 0
        self._last = shelf.last
        self._deinterlace = deinterlace
        self._from_start = from_start
        self._file: IO[bytes] | None = None

    def write(self, frame: av.VideoFrame, decoded: av.VideoFrame, note: Note) -> None:
        """Encodes a frame.

        Args:
            frame: see `VideoWriter.write`.
            decoded: likewise.
            note: of it; the first frame's has a border.
        """
        if note.border is not None:
            self.finish(note.border)
            self._file = self._shelf.part.open("wb")
            self._encoder = FrameEncoder(self._encoding, after=self._last)
            self._deinterlacer = fields.Deinterlacer() if self._deinterlace else None
            self._before = note.border.digest
            self._notes: list[Note] = []
        if self._file is None:
            raise ValueError("the first frame must begin a segment. Received: a frame without a border")
        if self._deinterlacer is None:
            segments.append(self._file, self._encoder.encode(frame, decoded))
        else:
            for each in self._deinterlacer.push(video.with_picture(decoded, frame)):
                segments.append(self._file, self._encoder.encode(each))
        self._notes.append(note)

    def finish(self, border: Border, broken: str | None = None) -> None:
        """Finishes the segment at work, if there is one; those up to the border have no frame that decodes.

        Args:
            border: behind it.
            broken: what is wrong with the source after its last frame.
        """
        if self._file is not None:
            for each in self._deinterlacer.flush() if self._deinterlacer else ():
                segments.append(self._file, self._encoder.encode(each))
            segments.append(self._file, self._encoder.flush())
            self.close()
            self._last = self._encoder.last
            self._add(self._notes, self._before, border.digest, broken)
        while self.number < border.segment:
            self._shelf.part.write_bytes(b"")
            self._add([], border.digest, border.digest, broken)

    def close(self) -> None:
        """Closes the file of the segment at work."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _add(self, notes: list[Note], before: str, after: str, broken: str | None) -> None:
        self.number += 1
        self.frames += len(notes)
        self._shelf.add(
            Segment(
                frames=len(notes),
                last=self._last if notes else None,
                predictions=[note.prediction for note in notes if note.prediction is not None],
                stated=any(note.stated for note in notes),
                broken=broken or next((note.broken for note in notes if note.broken), None),
                before=before,
                after=after,
                from_start=self._from_start,
            )
        )
