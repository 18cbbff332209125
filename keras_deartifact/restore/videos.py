"""Restored copies of video files.

A video runs through three stages that overlap (`pipeline.py`):

    decode, RGB, float, quantiser map  ->  inference (the calling thread)  ->  correction, encode a segment

What the network changes, restored minus input, is added to the decoded planes (`colour.add_correction`), so that a
network that changes nothing gives back the decoded video exactly.

It is made in segments of some seconds, each by an encoder of its own. What a segment holds is a function of the
source's frames up to its end (and of the parameters) alone: what runs across frames, the maps' smoothing, reaches back
over a fixed number of them. So a run that was interrupted is continued after its last finished segment (`journal.py`),
and the file that comes out is the same, byte for byte.
"""

import contextlib
import functools
import os
import shlex
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import av
import numpy as np
import numpy.typing as npt

from keras_deartifact import (
    __version__,
    colour,
    encoders,
    engines,
    fields,
    files,
    image,
    limit,
    pipeline,
    quantiser,
    video,
)
from keras_deartifact.engines import Predictor, Restorer
from keras_deartifact.restore import journal
from keras_deartifact.restore.frames import (
    MARGIN,
    WHOLE_PIXELS,
    Floats,
    check_strength,
    corrections,
    known_map,
    predicted_map,
)
from keras_deartifact.restore.segments import Segments
from keras_deartifact.video.encoding import Encoding

VIDEO_MARGIN = 1.25
"""How much coarser a video's frame has to look than its bitstream states, in log2 steps.

1.1 % of frames that were compressed once exceed it."""

EARLIER_LOG2_STEP = 4.25
"""How coarse a video's frame has to look to count as compressed harder before: up to here, soft optics look the same.

It is the step of H.264's QP 29 to 30."""

VIDEO_SHARE = 0.2
"""Of the quantiser's error that a video's frame may change by, see `limit`.

The largest with which no clip of training pictures, by x264 at CRF 12 to 40, loses."""

MPEG_SHARE = 0.6
"""The same for a codec of before H.264: nothing in it smooths the edges of blocks, so that more can be undone."""

PREDICT_EVERY = 24
"""Frames from one prediction of a video's quality to the next. A prediction takes as long as two restored frames."""

# So many maps of the past are smoothed over: the weight of the one before them is 2^-16, or 2^-4 of a prediction.
_STATED_MAPS, _PREDICTED_MAPS = 16, 4


@dataclass(frozen=True)
class VideoReport:
    """What `restore_video` did.

    Attributes:
        frames: number of frames written.
        continued: how many of them an earlier run had made.
        seconds: wall time from the first decoded frame to the closed file.
        fps: frames a second over that time, those of the earlier run not counted.
        inference_busy: share of that time inside the restorer, in `[0, 1]`.
        codec: the encoder.
        states_quantisers: whether the bitstream gave quantiser maps; otherwise they are predicted, or the default.
        predicted_log2_step: the median of what the pixels show, over the predictions; None without a predictor.
        broken: why the source is incomplete, or None. Every frame that decodes was restored and written.
        skipped: what the target cannot hold and was left out.
    """

    frames: int
    continued: int
    seconds: float
    fps: float
    inference_busy: float
    codec: str
    states_quantisers: bool
    predicted_log2_step: float | None
    broken: str | None
    skipped: tuple[str, ...]


def restore_video(
    restorer: Restorer,
    source: files.StrPath,
    target: files.StrPath,
    *,
    predictor: Predictor | None = None,
    strength: float | None = None,
    codec: str | None = None,
    crf: float | None = None,
    preset: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
    drop: bool = False,
    deinterlace: bool = False,
    notice: Callable[[str], None] | None = None,
    restart: bool = False,
) -> VideoReport:
    """Writes a restored copy of a video file, with its timing, colour description and all other streams.

    Each frame's quantiser map comes from the bitstream where ffmpeg tells it, smoothed over past frames; a frame
    without one takes its predecessor's. Every `PREDICT_EVERY` frames the predictor looks at the pixels: its map,
    smoothed likewise, stands in where the bitstream tells none, and counts where it is coarser (`quantiser.coarser`).

    The two fields of an interlaced frame go through the network one after the other, and stay fields (`fields.py`).

    A source that is damaged or breaks off is restored as far as it decodes, and the report says so.

    A run that stops on the way, by whatever cause, leaves a hidden folder beside the target (`journal.py`). The same
    call goes on from there, at the last finished segment, and makes the same file. What is refused leaves nothing.

    Args:
        restorer: see `engines`; it is called in the calling thread, with one float32 frame, one field or a tile of it.
        source: a video file.
        target: the file to write; its extension gives the container.
        predictor: see `restore_image`; it is called in a thread of its own, with one padded float32 frame.
        strength: 0 keeps the decoded planes, 1 takes what the network makes of them; None takes as much of it as
            the compression can account for (`limit`, `VIDEO_SHARE`, `MPEG_SHARE`).
        codec: key of `encoders.ENCODERS`; by default the one that `encoders.default` chooses.
        crf: quality in the encoder's own scale, down is better; the default is the encoder's in `encoders.ENCODERS`.
        preset: speed against size, in the encoder's own words; the default is the encoder's in `encoders.ENCODERS`.
        overwrite: whether an existing target may be replaced.
        progress: called after each restored frame, in the calling thread, with the number of frames so far; first of
            all with the number of those that an earlier run made, if it did.
        drop: leave out what the target cannot hold (streams, alpha, HDR metadata of single frames), instead of refusing
            the file.
        deinterlace: make one progressive frame of each interlaced one, after it was restored.
        notice: called before work starts, in the calling thread, with each thing that is left out and what could hold
            it; data streams that no container here can hold are, even without `drop`.
        restart: begin anew, whatever an earlier run has done.

    Returns:
        A `VideoReport`.

    Raises:
        ValueError: the source is no video, has a pixel format that is not supported, or changes its size on the way;
            no frame decodes; an unknown codec; the target cannot hold a stream or is the source; a number is out of
            range; the restorer returns something else than frames; an earlier run had another source, network or
            option, and `restart` is False; the source changes meanwhile; or another run is at work on the target.
        FileExistsError: the target exists, and `overwrite` is False.
        OSError: the file system does not give or take it.
    """
    check_strength(strength)
    info = video.probe(source)
    if info.pix_fmt is None:
        raise video.BrokenVideoError(
            f"no frame of the video decodes; check that the file is complete. Received: {os.fspath(source)}"
        )
    if info.pix_fmt not in colour.SUPPORTED:
        raise ValueError(
            f"the video must have a pixel format such as yuv420p; convert it first, for example with "
            f"'ffmpeg -i {shlex.quote(os.fspath(source))} -c:v ffv1 -pix_fmt yuv444p -c:a copy converted.mkv'. "
            f"Received: pix_fmt={info.pix_fmt}"
        )
    codec = codec or encoders.default(target, info.pix_fmt)
    encoder = encoders.choose(codec, crf, preset, info.width * info.height)
    if codec == "libsvtav1":
        # It writes a banner to stderr by itself, and takes its log level, 1 for errors, from the environment alone.
        os.environ.setdefault("SVT_LOG", "1")
    share = MPEG_SHARE if info.codec in quantiser.STEP_FROM_QP and info.codec != "h264" else VIDEO_SHARE
    run = _Run(restorer, predictor, strength, share, progress, deinterlace)
    parameters = {
        "input": files.fingerprint(source),
        **engines.identity(restorer),
        "predictor": None if predictor is None else engines.identity(predictor)["model"],
        "strength": strength,
        "codec": codec,
        "crf": encoder.crf,
        "preset": encoder.preset,
        "drop": drop,
        "deinterlace": deinterlace,
        "version": __version__,
        "ffmpeg": " ".join(".".join(map(str, version)) for version in av.library_versions.values()),
    }

    def writer(path: files.StrPath) -> video.VideoWriter:
        return video.VideoWriter(
            path,
            source,
            codec=codec,
            **encoder.settings,
            drop=drop,
            deinterlaced=deinterlace,
        )

    journal.clean(target)
    files.check_target(source, target, overwrite)
    with (
        files.naming(target, journal.work_folder(target)),
        journal.Journal(target, parameters, restart) as work,
        _forgotten_if_refused(work),
    ):
        # What the target cannot hold is told before the work, not after.
        trial = writer(work.complete)
        trial.close()
        if notice is not None:
            for line in trial.skipped:
                notice(line)
        continued = work.frames
        if continued and progress is not None:
            progress(continued)
        end = work.end or run.encode(source, info.codec, work, trial.encoding)
        with writer(work.complete) as complete:
            if files.fingerprint(source) != parameters["input"]:
                raise ValueError(f"the input must not change while it is restored. Received: {os.fspath(source)}")
            complete.write_segments(work.paths)
        # The run may have taken hours.
        files.check_target(source, target, overwrite)
        work.name()
    seconds = time.perf_counter() - run.started
    predictions = [value for segment in work.segments for value in segment.predictions]
    return VideoReport(
        frames=work.frames,
        continued=continued,
        seconds=seconds,
        fps=(work.frames - continued) / seconds,
        inference_busy=run.busy_seconds / seconds,
        codec=codec,
        states_quantisers=end.states_quantisers,
        predicted_log2_step=float(np.median(predictions)) if predictions else None,
        broken=end.broken,
        skipped=tuple(trial.skipped),
    )


@contextlib.contextmanager
def _forgotten_if_refused(work: journal.Journal) -> Iterator[None]:
    """Removes what a run has done where the next one would be refused for the same reason."""
    try:
        yield
    except ValueError as error:
        # PyAV's errors of reading and writing may pass.
        if not isinstance(error, av.FFmpegError):
            work.remove()
            work.segments.clear()
        raise


def _is_small(width: int, height: int) -> bool:
    """Whether a frame goes through the network in one piece."""
    return width * height <= WHOLE_PIXELS


class _Decoded(NamedTuple):
    """A frame on its way to the network.

    `pictures` are the frame, or its two fields; `images` the same, each `(1, rows, columns, 3)`, padded to a multiple
    of 16: float32, or uint8 where a frame is so large that it goes through the network in tiles. `quantiser_map` is
    that of each picture.
    """

    frame: av.VideoFrame
    pictures: tuple[av.VideoFrame, ...]
    images: list[npt.NDArray[Any]]
    quantiser_map: Floats
    prediction: float | None


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


class _Run:
    """One video's way through the three stages, and what is counted on it."""

    def __init__(
        self,
        restorer: Restorer,
        predictor: Predictor | None,
        strength: float | None,
        share: float,
        progress: Callable[[int], None] | None,
        deinterlace: bool,
    ) -> None:
        self.started = time.perf_counter()
        self._done = 0
        self._states_quantisers = False
        self._broken: str | None = None
        # Of frames and of interlaced ones, which may take turns.
        self._seen = {False: 0, True: 0}
        self._predicted = {kind: deque[Floats](maxlen=_PREDICTED_MAPS) for kind in (False, True)}
        self._predictor = predictor
        self._restorer = _Timed(restorer)
        self._strength = strength
        self._share = share
        self._progress = progress
        self._deinterlace = deinterlace

    def encode(self, source: files.StrPath, codec: str, work: journal.Journal, encoding: Encoding) -> journal.End:
        """Encodes the segments that the journal does not have yet."""
        self._done = work.frames
        segments = Segments(work, encoding, self._deinterlace)
        with contextlib.closing(segments):
            frames = self._decode(source, codec)
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
            segments.finish()
        if not work.segments:
            raise ValueError(f"the source must hold a frame. Received: {os.fspath(source)}")
        end = journal.End(self._states_quantisers, self._broken)
        work.finish(end)
        return end

    def _decode(self, source: files.StrPath, codec: str) -> Generator[_Decoded, None, None]:
        """Yields the frames that are to be done; one that is broken ends them, unless it is the first."""
        frames = cast(Generator[video.Frame, None, None], video.read_frames(source))
        done, first, size = self._done, True, (0, 0)
        # Of frames that are done, those that later ones' predictions are smoothed with.
        skipped = {kind: deque[av.VideoFrame](maxlen=_PREDICTED_MAPS) for kind in (False, True)}
        try:
            with contextlib.closing(frames):
                for index, (frame, stated) in enumerate(self._stated(frames, codec)):
                    if first:
                        self.started, first, size = time.perf_counter(), False, (frame.width, frame.height)
                    if (frame.width, frame.height) != size:
                        raise ValueError(
                            f"the video must keep its size of {size[0]}x{size[1]} to its end. "
                            f"Received: {frame.width}x{frame.height}"
                        )
                    kind = frame.interlaced_frame
                    looks = self._predictor is not None and self._seen[kind] % PREDICT_EVERY == 0
                    self._seen[kind] += 1
                    if index < done:
                        if looks:
                            skipped[kind].append(frame)
                        continue
                    for each in (*skipped[False], *skipped[True]):
                        self._look(each)
                    skipped[False].clear()
                    skipped[True].clear()
                    prediction = self._look(frame) if looks else None
                    pictures = fields.pictures(frame)
                    rows, columns = pictures[0].height, pictures[0].width
                    rgb = [image.pad_to_multiple(colour.to_rgb(each), image.GRID)[None] for each in pictures]
                    images = list(map(image.to_float, rgb)) if _is_small(*size) else rgb
                    steps = _smoothed(stated)
                    maps = known_map(
                        fields.field_map(steps) if steps is not None and len(pictures) > 1 else steps,
                        _smoothed(self._predicted[kind]),
                        (rows, columns),
                        VIDEO_MARGIN,
                        EARLIER_LOG2_STEP,
                    )
                    yield _Decoded(frame, pictures, images, maps, prediction)
        except video.BrokenVideoError as error:
            if first:
                raise
            self._broken = str(error)

    def _restore(self, item: _Decoded) -> _Restored:
        """Puts a frame through the network, of an interlaced one each field."""
        changes = [corrections(self._restorer, each, item.quantiser_map[None])[0] for each in item.images]
        self._done += 1
        if self._progress is not None:
            self._progress(self._done)
        return _Restored(item, changes)

    @property
    def busy_seconds(self) -> float:
        """Of the restorer, so far."""
        return self._restorer.seconds

    def _corrected(self, item: _Restored) -> tuple[av.VideoFrame, av.VideoFrame, float | None]:
        """The decoded frame with what the network changed; and what else `Segments.write` takes."""
        decoded, corrected = item.decoded, []
        for picture, correction in zip(decoded.pictures, item.corrections, strict=True):
            if self._strength is None:
                correction = limit.limited(correction, decoded.quantiser_map, self._share, out=correction)
            elif self._strength != 1.0:
                correction *= np.float32(self._strength)
            corrected.append(colour.add_correction(picture, correction[: picture.height, : picture.width]))
        return fields.weave(tuple(corrected), decoded.frame), decoded.frame, decoded.prediction

    def _look(self, frame: av.VideoFrame) -> float | None:
        """Predicts the map of a frame, or of its upper field; returns its median."""
        if self._predictor is None:
            return None
        predicted = predicted_map(self._predictor, colour.to_rgb(fields.pictures(frame)[0])[None])
        self._predicted[frame.interlaced_frame].append(predicted)
        return float(np.median(predicted))

    def _stated(self, frames: Iterator[video.Frame], codec: str) -> Iterator[tuple[av.VideoFrame, deque[Floats]]]:
        """Yields every frame with the last maps that the bitstream states; a frame without one has the one before."""
        latest: deque[Floats] = deque(maxlen=_STATED_MAPS)
        for frame in frames:
            if frame.qp is not None and codec in quantiser.STEP_FROM_QP:
                latest.append(quantiser.log2_step_from_qp(frame.qp, codec))
                self._states_quantisers = True
            elif latest:
                latest.append(latest[-1])
            yield frame.image, latest


def _smoothed(maps: deque[Floats]) -> Floats | None:
    return functools.reduce(quantiser.smoothed, maps) if maps else None
