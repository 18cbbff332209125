"""Restored copies of video files.

A video runs through three stages that overlap (`pipeline.py`):

    decode, RGB, float, quantiser map  ->  inference (the calling thread)  ->  correction, encode a segment

What the network changes, restored minus input, is added to the decoded planes (`colour.add_correction`), so that a
network that changes nothing gives back the decoded video exactly.

It is made in segments of some seconds, each by an encoder of its own (`plan.py`). What a segment holds is a function of
the source's frames up to its end (and of the parameters) alone: what runs across frames reaches back over a few of them
(`maps.py`). So a run that was interrupted is continued after its last finished segment (`journal.py`), segments can be
made apart from each other (`ranges.py`), and the file that comes out is the same, byte for byte.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import av
import numpy as np

from keras_deartifact import files
from keras_deartifact.engines import Predictor, Restorer
from keras_deartifact.restore import journal, plan
from keras_deartifact.restore.run import Run


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
    options = plan.VideoOptions(strength, codec, crf, preset, drop, deinterlace)
    planned = plan.outline(source, target, options)
    parameters = planned.parameters(restorer, predictor, source)
    journal.clean(target)
    files.check_target(source, target, overwrite)
    with (
        files.naming(target, journal.work_folder(target)),
        journal.Journal(target, parameters, restart) as work,
        _forgotten_if_refused(work),
    ):
        # What the target cannot hold is told before the work, not after.
        trial = planned.writer(work.complete, source)
        trial.close()
        if notice is not None:
            for line in trial.skipped:
                notice(line)
        continued = work.frames
        if continued and progress is not None:
            progress(continued)
        if not work.is_whole:
            planned = plan.with_segments(planned, source)
        run = Run(restorer, predictor, source, planned, progress, continued)
        if not work.is_whole:
            before = work.segments[-1].after if work.segments else None
            run.encode(work, trial.encoding, len(work.segments), before=before)
            work.finish()
        with planned.writer(work.complete, source) as complete:
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
        codec=str(planned.options.codec),
        states_quantisers=any(each.stated for each in work.segments),
        predicted_log2_step=float(np.median(predictions)) if predictions else None,
        broken=journal.broken(work.segments) or complete.damaged,
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
