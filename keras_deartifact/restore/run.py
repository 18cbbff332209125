"""A stretch of a video's segments on its way through the three stages: decode, network, encode."""

import contextlib
import os
import time
from collections.abc import Callable, Generator
from fractions import Fraction
from typing import Any, NamedTuple, cast

import av
import numpy as np
import numpy.typing as npt

from keras_deartifact import colour, fields, files, image, limit, pipeline, quantiser, video
from keras_deartifact.engines import Predictor, Restorer
from keras_deartifact.restore.frames import MARGIN, WHOLE_PIXELS, Floats, corrections
from keras_deartifact.restore.maps import Maps
from keras_deartifact.restore.plan import Counted, Planned, VideoPlan, length
from keras_deartifact.restore.segments import Border, Note, Segments, Shelf
from keras_deartifact.video.encoding import Encoding

VIDEO_SHARE = 0.2
"""Of the quantiser's error that a block of a video's frame may change by, less where it was drawn, see `limit`.

The largest with which no clip of training pictures, by x264 at CRF 12 to 40, loses."""

MPEG_SHARE = 0.6
"""The same for a codec of before H.264: nothing in it smooths the edges of blocks, so that more can be undone."""


class _Decoded(NamedTuple):
    """A frame on its way to the network.

    `pictures` are the frame, or its two fields; `images` the same, each `(1, rows, columns, 3)`, padded to a multiple
    of 16: float32, or uint8 where a frame is so large that it goes through the network in tiles. `quantiser_map` is
    that of each picture, and `shares` are theirs by `limit.shares`, each None where a strength was asked for.
    """

    frame: av.VideoFrame
    pictures: tuple[av.VideoFrame, ...]
    images: list[npt.NDArray[Any]]
    quantiser_map: Floats
    shares: list[Floats | None]
    note: Note


class _Restored(NamedTuple):
    """A frame on its way to the encoder; `corrections`, one for each picture, float32 `(rows, columns, 3)`, padded."""

    decoded: _Decoded
    corrections: list[Floats]


class _Timed:
    """A restorer that adds up the seconds which it takes."""

    def __init__(self, restorer: Restorer) -> None:
        self.seconds = 0.0
        self.tile = getattr(restorer, "tile", None)
        self._restorer = restorer

    @property
    def radius(self) -> int:
        """The restorer's own, which may have to be measured."""
        return getattr(self._restorer, "radius", MARGIN)

    def __call__(self, frames: npt.NDArray[Any], quantiser_map: Floats | None = None) -> npt.NDArray[Any]:
        started = time.perf_counter()
        restored = self._restorer(frames, quantiser_map)
        self.seconds += time.perf_counter() - started
        return restored


class _Stretch(NamedTuple):
    """Segments from a first one up to before an `end`; see `Run.encode`."""

    first: int
    end: int | None
    before: str | None
    place: video.Place | None


class Run:
    """The restoring of segments that follow each other.

    Attributes:
        started: when the first frame was decoded, by `time.perf_counter`.
    """

    def __init__(
        self,
        restorer: Restorer,
        predictor: Predictor | None,
        source: files.StrPath,
        plan: VideoPlan,
        progress: Callable[[int], None] | None = None,
        done: int = 0,
    ) -> None:
        """Takes what all segments share.

        Args:
            restorer: see `restore_video`.
            predictor: likewise.
            source: likewise.
            plan: of the video.
            progress: see `restore_video`.
            done: how many frames an earlier run made.
        """
        self.started = time.perf_counter()
        self._restorer = _Timed(restorer)
        self._predictor = predictor
        self._source = source
        self._plan = plan
        self._progress = progress
        self._done = done
        self._end = Border(0, "")
        self._broken: str | None = None
        before_h264 = plan.source_codec in quantiser.STEP_FROM_QP and plan.source_codec != "h264"
        self._share = MPEG_SHARE if before_h264 else VIDEO_SHARE

    @property
    def busy_seconds(self) -> float:
        """Of the restorer, so far."""
        return self._restorer.seconds

    def encode(
        self, shelf: Shelf, encoding: Encoding, first: int = 0, end: int | None = None, before: str | None = None
    ) -> None:
        """Restores and encodes segments.

        Where the plan has a place to begin at, and the decoder finds there what the plan says, frames before it are
        not decoded.

        Args:
            shelf: takes the segments.
            encoding: of all segments.
            first: number of the first one.
            end: number of the one after the last; None for all to the end of the video.
            before: digest of what came before the first one, see `journal.Segment`, which must have been decoded to
                go on; None where it is not known.

        Raises:
            ValueError: see `restore_video`.
        """
        place = self._plan.segments[first].place if first < len(self._plan.segments) else None
        done, deinterlace = self._done, self._plan.options.deinterlace
        segments = Segments(shelf, encoding, first, deinterlace, place is None)
        try:
            self._overlap(segments, encoding, _Stretch(first, end, before, place))
        except video.LostError:
            if place is None:
                raise
            self._done = done + segments.frames
            segments = Segments(shelf, encoding, segments.number, deinterlace)
            self._overlap(segments, encoding, _Stretch(segments.number, end, None, None))

    def _overlap(self, segments: Segments, encoding: Encoding, stretch: _Stretch) -> None:
        with contextlib.closing(segments):
            frames = self._decode(stretch, encoding.size)
            if _is_small(*encoding.size):
                pipeline.overlap(frames, self._restore, lambda item: segments.write(*self._corrected(item)))
            else:
                # What waits between two stages is one frame's code values, not floats.
                pipeline.overlap(
                    frames,
                    lambda item: self._corrected(self._restore(item)),
                    lambda item: segments.write(*item),
                    ahead=1,
                )
            segments.finish(self._end, self._broken)

    def _decode(self, stretch: _Stretch, size: tuple[int, int]) -> Generator[_Decoded, None, None]:
        """Yields the frames of a stretch, and notes how it ends."""
        first, end, before, place = stretch
        frames = cast(Generator[video.Frame, None, None], video.read_frames(self._source, place=place))
        planned = self._plan.segments
        numbers: Planned | Counted | None = Planned(planned) if planned else None
        maps = Maps(self._predictor, self._plan.source_codec)
        current, look = first - 1, -1
        self._broken = None
        try:
            with contextlib.closing(frames):
                for frame in frames:
                    here = frame.image
                    if (here.width, here.height) != size:
                        raise ValueError(
                            f"the video must keep its size of {size[0]}x{size[1]} to its end. "
                            f"Received: {here.width}x{here.height}"
                        )
                    if numbers is None:
                        numbers = Counted(length(*size), Fraction(here.time_base or 1))
                    if look < 0:
                        self.started = time.perf_counter()
                    if place is not None and frame.fault is not None:
                        # What is put in place of damage may come from any frame before.
                        raise video.LostError(f"no packet may be damaged. Received: {frame.fault}")
                    segment, look = numbers.see(here.pts or 0)
                    if end is not None and segment >= end:
                        self._end = Border(end, maps.digest(look))
                        return
                    border = None
                    if segment > current:
                        border = Border(segment, maps.digest(look))
                        if current < first and before not in (None, border.digest):
                            raise video.LostError(f"segment {first} must follow the one before. Received: {place}")
                        current = segment
                    maps.see(frame, look)
                    if segment >= first:
                        yield self._prepared(frame, maps, look, border)
        except video.BrokenVideoError as error:
            if place is not None:
                raise video.LostError(str(error)) from error
            if look < 0:
                raise
            self._broken = str(error)
        self._end = Border(max(current + 1, len(planned) if end is None else end), maps.digest(look + 1))

    def _prepared(self, frame: video.Frame, maps: Maps, look: int, border: Border | None) -> _Decoded:
        """A frame that its maps have seen, as the network takes it."""
        here = frame.image
        pictures = fields.pictures(here)
        rgb = [image.pad_to_multiple(colour.to_rgb(each), image.GRID)[None] for each in pictures]
        images = list(map(image.to_float, rgb)) if _is_small(here.width, here.height) else rgb
        quantiser_map, prediction = maps.of(here, pictures, look)
        held = self._plan.options.strength is None
        shares = [limit.shares(each[0], quantiser_map, self._share) if held else None for each in rgb]
        broken = None
        if frame.fault is not None:
            seconds = float((here.pts or 0) * Fraction(here.time_base or 1))
            broken = (
                f"The video is damaged at {seconds:.2f} s ({frame.fault}); what decodes was read. "
                f"Received: {os.fspath(self._source)!r}"
            )
        return _Decoded(here, pictures, images, quantiser_map, shares, Note(maps.stated, prediction, broken, border))

    def _restore(self, item: _Decoded) -> _Restored:
        """Puts a frame through the network, of an interlaced one each field, unless nothing may change."""
        changes = [
            np.zeros(each.shape[1:], np.float32)
            if shares is not None and not shares.any()
            else corrections(self._restorer, each, item.quantiser_map[None])[0]
            for each, shares in zip(item.images, item.shares, strict=True)
        ]
        self._done += 1
        if self._progress is not None:
            self._progress(self._done)
        return _Restored(item, changes)

    def _corrected(self, item: _Restored) -> tuple[av.VideoFrame, av.VideoFrame, Note]:
        """The decoded frame with what the network changed; and what else `Segments.write` takes."""
        decoded, corrected, strength = item.decoded, [], self._plan.options.strength
        for picture, correction, shares in zip(decoded.pictures, item.corrections, decoded.shares, strict=True):
            if shares is not None:
                correction = limit.limited(correction, decoded.quantiser_map, shares, out=correction)
            elif strength is not None and strength != 1.0:
                correction *= np.float32(strength)
            corrected.append(colour.add_correction(picture, correction[: picture.height, : picture.width]))
        return fields.weave(tuple(corrected), decoded.frame), decoded.frame, decoded.note


def _is_small(width: int, height: int) -> bool:
    """Whether a frame goes through the network in one piece."""
    return width * height <= WHOLE_PIXELS
