"""Restored copies of video files.

A video runs through three stages that overlap (`pipeline.py`):

    decode, RGB, float, quantiser map  ->  inference (the calling thread)  ->  correction, encode

What the network changes, restored minus input, is added to the decoded planes (`colour.add_correction`), so that a
network that changes nothing gives back the decoded video exactly.
"""

import contextlib
import os
import shlex
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import av
import numpy as np
import numpy.typing as npt

from keras_deartifact import colour, encoders, fields, files, image, limit, pipeline, quantiser, video
from keras_deartifact.engines import Predictor, Restorer
from keras_deartifact.restore.frames import Floats, check_strength, known_map, restore_frames

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


@dataclass(frozen=True)
class VideoReport:
    """What `restore_video` did.

    Attributes:
        frames: number of frames written.
        seconds: wall time from the first decoded frame to the closed file.
        fps: frames a second over that time.
        inference_busy: share of that time inside the restorer, in `[0, 1]`.
        codec: the encoder.
        states_quantisers: whether the bitstream gave quantiser maps; otherwise they are predicted, or the default.
        predicted_log2_step: the median of what the pixels show, over the predictions; None without a predictor.
        broken: why the source is incomplete, or None. Every frame that decodes was restored and written.
        skipped: what the target cannot hold and was left out.
    """

    frames: int
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
) -> VideoReport:
    """Writes a restored copy of a video file, with its timing, colour description and all other streams.

    Each frame's quantiser map comes from the bitstream where ffmpeg tells it, smoothed over past frames; a frame
    without one takes its predecessor's. Every `PREDICT_EVERY` frames the predictor looks at the pixels: its map,
    smoothed likewise, stands in where the bitstream tells none, and counts where it is coarser (`quantiser.coarser`).

    The two fields of an interlaced frame go through the network one after the other, and stay fields (`fields.py`).

    A source that is damaged or breaks off is restored as far as it decodes, and the report says so.

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
        progress: called after each restored frame, in the calling thread, with the number of frames so far.
        drop: leave out what the target cannot hold (streams, alpha, HDR metadata of single frames), instead of refusing
            the file.
        deinterlace: make one progressive frame of each interlaced one, after it was restored.
        notice: called before work starts, in the calling thread, with each thing that is left out and what could hold
            it; data streams that no container here can hold are, even without `drop`.

    Returns:
        A `VideoReport`.

    Raises:
        ValueError: the source is no video, has a pixel format that is not supported, or changes its size on the way;
            no frame decodes; an unknown codec; the target cannot hold a stream or is the source; a number is out of
            range; or the restorer returns something else than frames.
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
    encoder = encoders.choose(codec, crf, preset)
    if codec == "libsvtav1":
        # It writes a banner to stderr by itself, and takes its log level, 1 for errors, from the environment alone.
        os.environ.setdefault("SVT_LOG", "1")
    with files.replacing(source, target, overwrite) as temporary:
        writer = video.VideoWriter(
            temporary,
            source,
            codec=codec,
            crf=encoder.crf or 0,
            preset=encoder.preset or "",
            options=encoder.options,
            drop=drop,
            deinterlaced=deinterlace,
        )
        share = MPEG_SHARE if info.codec in quantiser.STEP_FROM_QP and info.codec != "h264" else VIDEO_SHARE
        run = _Run(restorer, predictor, strength, share, progress, deinterlace)
        with writer:
            if notice is not None:
                for line in writer.skipped:
                    notice(line)
            pipeline.overlap(run.decode(source, info.codec), run.restore, lambda item: run.write(writer, item))
            run.finish(writer)
        seconds = time.perf_counter() - run.started
    return VideoReport(
        frames=run.frames,
        seconds=seconds,
        fps=run.frames / seconds,
        inference_busy=run.busy_seconds / seconds,
        codec=codec,
        states_quantisers=run.states_quantisers,
        predicted_log2_step=float(np.median(run.predictions)) if run.predictions else None,
        broken=run.broken,
        skipped=tuple(writer.skipped),
    )


class _Decoded(NamedTuple):
    """A frame on its way to the network.

    `pictures` are the frame, or its two fields; `images` the same, each float32 `(1, rows, columns, 3)`, padded to a
    multiple of 16; `quantiser_map` is that of each picture.
    """

    frame: av.VideoFrame
    pictures: tuple[av.VideoFrame, ...]
    images: list[Floats]
    quantiser_map: Floats


class _Restored(NamedTuple):
    """A frame on its way to the encoder; `restored` is like `decoded.images`."""

    decoded: _Decoded
    restored: list[Floats]


class _Timed:
    """A restorer that adds up the seconds which it takes."""

    def __init__(self, restorer: Restorer) -> None:
        self.seconds = 0.0
        self.tile = getattr(restorer, "tile", None)
        self._restorer = restorer

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
        self.frames = 0
        self.started = time.perf_counter()
        self.states_quantisers = False
        self.broken: str | None = None
        self.predictions: list[float] = []
        # By the shape of the map: frames and fields may take turns.
        self._predicted: dict[tuple[int, int], Floats] = {}
        self._decoded: Counter[tuple[int, int]] = Counter()
        self._predictor = predictor
        self._restorer = _Timed(restorer)
        self._strength = strength
        self._share = share
        self._progress = progress
        self._deinterlacer = fields.Deinterlacer() if deinterlace else None

    def decode(self, source: files.StrPath, codec: str) -> Generator[_Decoded, None, None]:
        """Yields the frames; one that is broken ends them, unless it is the first."""
        frames = cast(Generator[video.Frame, None, None], video.read_frames(source))
        started = False
        try:
            with contextlib.closing(frames):
                for frame, stated in self._stated(frames, codec):
                    if not started:
                        self.started, started = time.perf_counter(), True
                    pictures = fields.pictures(frame)
                    if stated is not None and len(pictures) > 1:
                        stated = fields.field_map(stated)
                    size = pictures[0].height, pictures[0].width
                    images = [
                        image.to_float(image.pad_to_multiple(colour.to_rgb(each), image.GRID))[None]
                        for each in pictures
                    ]
                    shown = self._shown(images[0][0, : size[0], : size[1]])
                    maps = known_map(stated, shown, size, VIDEO_MARGIN, EARLIER_LOG2_STEP)
                    yield _Decoded(frame, pictures, images, maps)
        except video.BrokenVideoError as error:
            if not started:
                raise
            self.broken = str(error)

    def restore(self, item: _Decoded) -> _Restored:
        """Puts a frame through the network, of an interlaced one each field."""
        restored = [restore_frames(self._restorer, each, item.quantiser_map[None]) for each in item.images]
        self.frames += 1
        if self._progress is not None:
            self._progress(self.frames)
        return _Restored(item, restored)

    def write(self, writer: video.VideoWriter, item: _Restored) -> None:
        """Encodes what became of a frame."""
        corrected, decoded = self.corrected(item), item.decoded.frame
        if self._deinterlacer is None:
            writer.write(corrected, decoded)
            return
        for frame in self._deinterlacer.push(video.with_picture(decoded, corrected)):
            writer.write(frame)

    def finish(self, writer: video.VideoWriter) -> None:
        """Encodes what waits for a frame that does not come."""
        for frame in self._deinterlacer.flush() if self._deinterlacer else ():
            writer.write(frame)

    @property
    def busy_seconds(self) -> float:
        """Of the restorer, so far."""
        return self._restorer.seconds

    def corrected(self, item: _Restored) -> av.VideoFrame:
        """The decoded frame with what the network changed."""
        decoded = item.decoded
        corrected = []
        for picture, before, after in zip(decoded.pictures, decoded.images, item.restored, strict=True):
            correction = (after - before)[0]
            if self._strength is None:
                correction = limit.limited(correction, decoded.quantiser_map, self._share)
            elif self._strength != 1.0:
                correction *= np.float32(self._strength)
            corrected.append(colour.add_correction(picture, correction[: picture.height, : picture.width]))
        return fields.weave(tuple(corrected), decoded.frame)

    def _shown(self, images: Floats) -> Floats | None:
        """What the pixels show of their compression, smoothed over the predictions so far."""
        if self._predictor is None:
            return None
        shape = quantiser.map_shape(*images.shape[:2])
        if self._decoded[shape] % PREDICT_EVERY == 0:
            predicted = self._predictor(images[None])[0]
            self.predictions.append(float(np.median(predicted)))
            self._predicted[shape] = quantiser.smoothed(self._predicted.get(shape), predicted)
        self._decoded[shape] += 1
        return self._predicted[shape]

    def _stated(self, frames: Iterator[video.Frame], codec: str) -> Iterator[tuple[av.VideoFrame, Floats | None]]:
        """Yields every frame with the map that the bitstream states, smoothed in time; None until it states one."""
        latest: Floats | None = None
        smoothed: Floats | None = None
        for frame in frames:
            if frame.qp is not None and codec in quantiser.STEP_FROM_QP:
                latest = quantiser.log2_step_from_qp(frame.qp, codec)
                self.states_quantisers = True
            if latest is not None and latest.shape != quantiser.map_shape(frame.image.height, frame.image.width):
                latest = smoothed = None
            if latest is not None:
                smoothed = quantiser.smoothed(smoothed, latest)
            yield frame.image, smoothed
